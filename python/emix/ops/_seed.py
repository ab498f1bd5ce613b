"""The seed of an op that draws."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.errors import UsageError
from emix.ops._call import check_tensors

_SEEDS = 2**63 - 1


def new_seed(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an int64 tensor [1] on the device of ``logits``, from ``generator`` or torch's default one."""
    try:
        return torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
    except (RuntimeError, AttributeError, TypeError):
        check_tensors(logits=logits)
        if not isinstance(generator, torch.Generator | None):
            raise UsageError(f"generator must be a torch.Generator, got {type(generator).__name__}") from None
        if generator is not None and generator.device.type != logits.device.type:
            raise UsageError(f"generator must be on {logits.device.type} like logits, got {generator.device}") from None
        raise
