"""torch's settings for the whole process, while a run trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Let torch repeat its numbers from run to run, on so many CPU threads; afterwards all is as it was."""
    memory: Any = torch.utils.deterministic
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = torch.get_num_threads(), memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    workspace = os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS reads it once, before its first product
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it would write every new tensor twice
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        threads, memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark = before
        torch.set_num_threads(threads)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
