"""The seed of an op that draws."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

_SEEDS = 2**63 - 1


def check_seed(seed: int) -> int:
    """A caller's seed as a Python integer; which integers are seeds is the same for all of emix."""
    number = -1 if isinstance(seed, bool) else operator.index(seed)
    if not 0 <= number <= _SEEDS:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, got {seed!r}")
    return number


def new_seed(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an int64 tensor [1] on the device of ``logits``, from ``generator`` or torch's default one."""
    return torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
