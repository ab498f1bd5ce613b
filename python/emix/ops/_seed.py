"""The seed of an op that draws."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

_SEEDS = 2**63 - 1


def as_int64(seed: int) -> int:
    """The 64 bits of a seed as the ops take them. Which integers are seeds is as in ``torch.manual_seed``."""
    number = operator.index(seed)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"seed must be an integer from -2^63 to 2^64 - 1, got {seed}")
    return number if number < 2**63 else number - 2**64


def new_seed(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an int64 tensor [1] on the device of ``logits``, from ``generator`` or torch's default one."""
    return torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
