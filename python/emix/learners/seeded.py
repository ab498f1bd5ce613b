"""What a learner's tensors are made with: random numbers from its seed, and no setting of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Let torch make tensors in float32 on the CPU, whatever ``torch.set_default_dtype`` and
    ``torch.set_default_device`` say; afterwards all is as before."""
    dtype = torch.get_default_dtype()
    with torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator, seeded anew, with ``plain_defaults``; afterwards all is as before."""
    with torch.random.fork_rng(devices=[]), plain_defaults():
        torch.random.default_generator.manual_seed(seed)
        yield
