"""Masked policies and what losses take of them."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_policy(logits: Tensor, avail: Tensor | None = None, floor: float | Tensor = 0.0) -> Tensor:
    """Softmax over the available actions, or ``avail ((1 - floor) softmax(logits) + floor / A)`` renormalised."""
    avail = torch.ones_like(logits, dtype=torch.bool) if avail is None else avail.bool()
    counted = logits if floor != 0 else logits.masked_fill(~avail, -torch.inf)
    some = (counted != -torch.inf).any(-1, keepdim=True) & avail.any(-1, keepdim=True)  # something can be taken
    p = torch.softmax(counted.masked_fill(~some, 0.0), dim=-1)
    pi = avail * ((1 - floor) * p + floor / logits.shape[-1]) if floor != 0 else p
    return torch.where(some, pi, 0.0) / pi.sum(-1, keepdim=True).masked_fill(~some, 1.0)


def policy_terms(
    logits: Tensor,
    action: Tensor,
    avail: Tensor | None = None,
    value: Tensor | None = None,
    floor: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``log pi(action)``, ``-sum_a pi_a log pi_a`` and ``sum_a pi_a value_a``."""
    pi = masked_policy(logits, avail, floor)
    positive = pi > 0
    log_pi = torch.where(pi == 0, 1.0, pi).log()
    possible = positive | pi.isnan() if avail is None else (positive | pi.isnan()) & avail.bool()
    taken = torch.where(possible, log_pi, torch.full((), 1e-10, dtype=pi.dtype, device=pi.device).log())
    log_prob = taken.gather(-1, action.long()[..., None])[..., 0]
    log_prob = torch.where((pi != 0).any(-1), log_prob, 0.0)  # 0 where nothing can be taken
    expected_value = None if value is None else (pi * torch.where(positive, value, 0.0)).sum(-1)
    return log_prob, -(pi * log_pi).sum(-1), expected_value
