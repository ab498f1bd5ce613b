"""The members of an ensemble; see ``emix.ops.ensemble``."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops.reference.policy import masked_policy
from emix.ops.reference.sampling import sample_actions


def ensemble_moments(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and kurtosis over the first axis; kurtosis 3, without a gradient, where the members agree."""
    mean = q.mean(0)  # [...]
    d = q - mean  # [N, ...]
    variance = d.square().mean(0)
    agree = variance <= 1e-12 + 1e-10 * mean.square()
    z = d / torch.where(agree, torch.ones_like(variance), variance).sqrt()
    kurtosis = torch.where(agree, torch.full_like(variance, 3), z.pow(4).mean(0))
    return mean, variance, kurtosis


def uncertainty_weight(q: Tensor, scale: float = 0.01) -> Tensor:
    """``0.5 + sigmoid(-scale kurtosis)``."""
    return 0.5 + torch.sigmoid(-scale * ensemble_moments(q)[2])


def _bonus(q: Tensor, avail: Tensor | None, bonus: float) -> tuple[Tensor, Tensor]:
    """What is added to the logits [..., A], and the open gates [...]."""
    kurtosis = ensemble_moments(q)[2]  # [..., A]
    avail = torch.ones_like(kurtosis, dtype=torch.bool) if avail is None else avail.bool()
    excess = torch.where(avail, kurtosis - 3, torch.zeros_like(kurtosis))
    gate = excess.sum(-1) / avail.sum(-1).clamp(min=1) > 0  # [...]
    return torch.where(avail & gate[..., None], bonus * kurtosis, torch.zeros_like(kurtosis)), gate


def explore_logits(logits: Tensor, q: Tensor, avail: Tensor | None = None, bonus: float = 0.001) -> Tensor:
    """``logits + bonus kurtosis`` where the gate is open; -inf for actions that are not available."""
    explored = logits + _bonus(q, avail, bonus)[0]  # [..., A]
    return explored if avail is None else explored.masked_fill(~avail.bool(), -torch.inf)


def explore_actions(
    logits: Tensor, q: Tensor, avail: Tensor | None, seed: Tensor, *, bonus: float = 0.001, floor: float | Tensor = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Action, probability and gate [...]: ``sample_actions`` with the bonus added to the available actions' logits."""
    added, gate = _bonus(q, avail, bonus)
    action = sample_actions(logits + added, avail, seed, floor=floor)
    pi = masked_policy(logits + added, avail, floor)  # [..., A]
    return action, torch.where(pi.sum(-1) > 0, pi.gather(-1, action[..., None])[..., 0], 1.0), gate
