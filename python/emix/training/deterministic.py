"""torch's settings for the whole process, while a run trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from emix.errors import UsageError

# torch looks at it once, at the process's first product on a GPU, which may come before a training.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic(threads: int, device: torch.device) -> Iterator[None]:
    """Let torch repeat its numbers from run to run, on so many CPU threads; afterwards all is as it was.

    Raises:
        UsageError: it is too late for that on the device.
    """
    memory: Any = torch.utils.deterministic
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = torch.get_num_threads(), memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it would write every new tensor twice
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    try:
        if device.type == "cuda":
            _check_cublas(device)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        threads, memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark = before
        torch.set_num_threads(threads)


def _check_cublas(device: torch.device) -> None:
    one = torch.ones(1, 1, device=device)
    try:
        torch.mm(one, one)
    except RuntimeError as error:
        raise UsageError(
            f"cuBLAS would not repeat its numbers: expected CUBLAS_WORKSPACE_CONFIG :4096:8 or :16:8 at the "
            f"process's first product on a GPU, got {os.environ.get('CUBLAS_WORKSPACE_CONFIG')!r} now; set it in "
            f"the environment, or import emix.training, which sets it, before you compute on a GPU"
        ) from error
