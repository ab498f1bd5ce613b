"""The terms of PPO's losses, each for itself; nothing here knows of networks.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; the value loss is on-policy's (Yu et al. 2022, "The
Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", section 5).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emix.distributed import Group


class Surrogate(NamedTuple):
    """Of each action, ``[...]``."""

    objective: Tensor  # to be raised
    clipped: Tensor  # bool, whether the ratio is out of bounds
    kl: Tensor  # an estimate of the divergence from the policy that acted, at least 0; no gradient


def clipped_objective(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Surrogate:
    """min(rho A, clamp(rho, 1 - clip, 1 + clip) A) with rho = pi(a) / pi_old(a), Schulman et al. eq. 7; all ``[...]``.

    The divergence is estimated as rho - 1 - log rho (Schulman 2020).
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    objective = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    with torch.no_grad():
        return Surrogate(objective, (ratio - 1).abs() > clip, ratio - 1 - log_ratio)


def value_loss(
    value: Tensor, y: Tensor, *, huber_delta: float | None = None, old_value: Tensor | None = None, clip: float = 0.2
) -> Tensor:
    """The loss of each value ``[...]`` against its target.

    Args:
        value: with a gradient.
        y: targets, in the values' scale.
        huber_delta: beyond it the error counts linearly, below it as e^2 / 2; None: e^2 throughout.
        old_value: of the critic before the update: the loss is then the larger one of value's and of what value is when
            kept within ``clip`` of it.
        clip: see old_value.
    """
    plain = _loss(y - value, huber_delta)
    if old_value is None:
        return plain
    kept = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(plain, _loss(y - kept, huber_delta))


def _loss(error: Tensor, delta: float | None) -> Tensor:
    if delta is None:
        return error.square()
    size = error.abs()
    return torch.where(size <= delta, error.square() / 2, delta * (size - delta / 2))


@torch.no_grad()
def normalised_advantage(advantage: Tensor, mask: Tensor, group: Group) -> Tensor:
    """(A - mean) / (deviation + 1e-5) over where the mask is True, in all processes of the group; 0 elsewhere."""
    real = torch.where(mask, advantage, 0.0)
    sums = torch.stack([real.sum(), mask.sum().to(real.dtype)])
    group.sum_([sums])
    count = sums[1].clamp(min=1)
    centred = torch.where(mask, advantage - sums[0] / count, 0.0)
    squares = centred.square().sum()
    group.sum_([squares])
    return centred / ((squares / count).sqrt() + 1e-5)
