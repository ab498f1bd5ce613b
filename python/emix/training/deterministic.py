"""torch's settings for the whole process, while a run trains."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from emix.errors import UsageError

_guard = threading.Lock()
_before: list[_Settings] = []  # an entry for each training that runs, in threads of this process


@contextmanager
def deterministic(threads: int, device: torch.device) -> Iterator[None]:
    """Let torch repeat its numbers from run to run, on so many CPU threads; afterwards all is as it was.

    Raises:
        UsageError: it is too late for that on the device.
    """
    with _guard:
        _before.append(_Settings.now())
        _Settings(threads, algorithms=True, warn_only=False, fill=False, benchmark=False).apply()
    try:
        if device.type == "cuda":
            _check_cublas(device)
        yield
    finally:
        with _guard:  # the last of several trainings puts back what the first has found
            if len(_before) == 1:
                _before[0].apply()
            _before.pop()


class _Settings(NamedTuple):
    """What torch is set to."""

    threads: int
    algorithms: bool
    warn_only: bool
    fill: bool  # of new tensors, which would be written twice
    benchmark: bool

    @classmethod
    def now(cls) -> _Settings:
        memory: Any = torch.utils.deterministic
        return cls(
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            memory.fill_uninitialized_memory,
            torch.backends.cudnn.benchmark,
        )

    def apply(self) -> None:
        memory: Any = torch.utils.deterministic
        torch.use_deterministic_algorithms(self.algorithms, warn_only=self.warn_only)
        memory.fill_uninitialized_memory = self.fill
        torch.backends.cudnn.benchmark = self.benchmark
        torch.set_num_threads(self.threads)


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
