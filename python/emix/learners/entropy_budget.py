"""Who gets how much of the team's entropy, and the temperatures that hold each agent to it (ADER, section 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from emix.learners.ader_config import AderConfig
from emix.learners.optimiser import Optimiser

_EPS = 1e-5  # of the published code, beneath the metric's largest value


def allocate(slope: Tensor, scale: float, sign: float) -> Tensor:
    """Shares that sum to 1, eq. 14: ``softmax(sign * d)``, ``d_i = slope_i / (scale * max_j |slope_j| + 1e-5)``.

    Args:
        slope: the metric, ``[..., n]``: how much the team's value rises with each agent's.
        scale: how soft: 1 lets shares differ by a factor of e where no slope is negative, 0.1 by e^10.
        sign: -1 gives agents of small slopes the most, 1 those of great ones.
    """
    largest = slope.abs().amax(-1, keepdim=True)  # [..., 1]
    return torch.softmax(sign * slope / (scale * largest + _EPS), dim=-1)


class EntropyBudget:
    """The target entropies H_i = beta_i H_0, whose shares beta follow the metric (eq. 14 and 15).

    Where H_0 is negative, as the entropies of vectors are, a greater share is a lower target: the sign of eq. 14 turns.

    Args:
        config: hyperparameters.
        total: H_0.
        n_agents: n.
        device: where the shares live.
    """

    def __init__(self, config: AderConfig, total: float, n_agents: int, device: torch.device) -> None:
        self.config, self.total = config, total
        wanted = config.shares or (1 / n_agents,) * n_agents
        self.shares = torch.tensor(wanted, dtype=torch.float32, device=device)  # [n], beta^EMA
        toward_small = -1.0 if total >= 0 else 1.0  # the sign that gives agents of small slopes the most entropy
        self.sign = toward_small if config.allocation == "adaptive" else -toward_small

    @property
    def targets(self) -> Tensor:
        """The target entropies ``[n]``."""
        return self.shares * self.total

    @torch.no_grad()
    def follow(self, slope: Tensor, valid: Tensor, optimiser: Optimiser) -> None:
        """Take in the metric: slope ``[..., n]``, valid ``[...]``; ``optimiser`` knows the processes."""
        config = self.config
        if config.allocation == "fixed":
            return
        count = optimiser.everywhere(valid.sum()).clamp(min=1)
        each = allocate(slope, config.share_scale, self.sign) if config.average == "shares" else slope
        mean = torch.where(valid.unsqueeze(-1), each, 0.0).flatten(0, -2).sum(0) / count  # [n]
        optimiser.group.sum_([mean])
        new = mean if config.average == "shares" else allocate(mean, config.share_scale, self.sign)
        self.shares.copy_(config.ema * self.shares + (1 - config.ema) * new)  # eq. 15


class Temperatures(nn.Module):
    """alpha_i, what a unit of agent i's entropy is worth: above 0, by their logarithms.

    Args:
        config: hyperparameters.
        n_agents: n.
    """

    def __init__(self, config: AderConfig, n_agents: int) -> None:
        super().__init__()
        self.bounds = (config.alpha_min, config.alpha_max)
        self.log_alpha = nn.Parameter(torch.full((n_agents,), config.alpha_init).log())

    @property
    def alpha(self) -> Tensor:
        """``[n]``, without gradient."""
        return self.log_alpha.detach().exp().clamp(*self.bounds)

    def learn(self, entropy: Tensor, targets: Tensor, active: Tensor, optimiser: Optimiser) -> Tensor:
        """One step down eq. 13, ``sum_i E[alpha_i (H_i - target_i)]`` over the active steps, and its value.

        Args:
            entropy: of each policy, or a sample of it, ``[..., n]``.
            targets: ``[n]``.
            active: ``[..., n]``.
            optimiser: of this module.
        """
        excess = torch.where(active, entropy.detach() - targets, 0.0).flatten(0, -2).sum(0)  # [n]
        loss = (self.log_alpha.exp() * excess / optimiser.everywhere(active.flatten(0, -2).sum(0)).clamp(min=1)).sum()
        optimiser.descend(loss)
        with torch.no_grad():  # a temperature that stayed at its bound is not wound up beyond it
            self.log_alpha.clamp_(*map(math.log, self.bounds))
        return loss.detach()
