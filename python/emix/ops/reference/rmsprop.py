"""RMSprop's step after clipping; see ``emix.ops.rmsprop``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def rmsprop_step(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    max_norm: float = float("inf"),
) -> Tensor:
    """A tensor after the other, an operation after the other."""
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1)
    for p, g, s in zip(parameters, grads, square_avgs, strict=True):
        g.mul_(scale)
        s.mul_(alpha).add_((1 - alpha) * g * g)
        p.sub_(lr * g / (s.sqrt() + eps))
    return norm
