"""The seed of an op that draws."""

from __future__ import annotations

import torch
from torch import Tensor

_SEEDS = 2**63 - 1


def new_seed(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an int64 tensor [1] on the device of ``logits``, from ``generator`` or torch's default one."""
    return torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
