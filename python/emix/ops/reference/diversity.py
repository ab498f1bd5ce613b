"""How far the members of an ensemble are from their mean; see ``emix.ops.diversity``."""

from __future__ import annotations

import torch
from torch import Tensor


def bhattacharyya(q: Tensor, avail: Tensor | None = None, detach_mean: bool = True) -> Tensor:
    """``sum_j -ln sum_a sqrt(softmax(q_j)_a softmax(mean q)_a)`` as log-sums over the available actions."""
    if avail is not None:
        q = q.masked_fill(~avail.bool(), 0)
    mean = q.mean(0)  # [..., A]
    mean = mean.detach() if detach_mean else mean

    def log_sum(x: Tensor) -> Tensor:
        return torch.logsumexp(x if avail is None else x.masked_fill(~avail.bool(), -torch.inf), -1)

    distance = (0.5 * log_sum(mean) + 0.5 * log_sum(q) - log_sum((mean + q) / 2)).sum(0)  # [...]
    return distance if avail is None else torch.where(avail.bool().any(-1), distance, torch.zeros_like(distance))
