"""ADER's critics: pairs of utilities and mixers, the lower of two values, and their targets.

The numbers of equations are those of the paper that ``emix.learners.ader`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Episodes
from emix.learners.ader_config import AderConfig
from emix.nn.mixer import MixerEnsemble


class TwinCritic(nn.Module):
    """Two of a kind: each agent's utilities, and a mixer that makes team values of them.

    Args:
        utilities: gives both members' values, ``[2, ..., n]`` or ``[2, ..., n, A]``.
        mixers: two of them.
    """

    def __init__(self, utilities: nn.Module, mixers: MixerEnsemble) -> None:
        super().__init__()
        self.utilities, self.mixers = utilities, mixers


class Critics(nn.Module):
    """Of the reward, and of the agents' entropies where there are such."""

    def __init__(self, reward: TwinCritic, entropy: TwinCritic | None) -> None:
        super().__init__()
        self.reward, self.entropy = reward, entropy

    def named(self) -> dict[str, TwinCritic]:
        """Those that there are, by name."""
        return {"reward": self.reward} if self.entropy is None else {"reward": self.reward, "entropy": self.entropy}


class Slopes(NamedTuple):
    """The lower of both team values, and how much it rises with each member's utilities."""

    value: Tensor  # [...] of the reward, [..., n] of the entropies
    slope: Tensor  # [2, ..., n], 0 where the member's is not the lower value


Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # what ``MixerEnsemble.weights`` makes of the state


def make_critics(config: AderConfig, spec: EnvSpec, make_utilities: Callable[[], nn.Module]) -> Critics:
    """The critics that the config has; ``make_utilities`` gives those of a pair."""

    def mixers(outputs: int | None) -> MixerEnsemble:
        return MixerEnsemble(
            2,
            spec.n_agents,
            spec.state_dim,
            outputs,
            embed_dim=config.mixing_embed_dim,
            hypernet_layers=config.hypernet_layers,
            hypernet_dim=config.hypernet_dim,
        )

    reward = TwinCritic(make_utilities(), mixers(None))
    single = config.critics == "single"
    return Critics(reward, None if single else TwinCritic(make_utilities(), mixers(spec.n_agents)))


def reward_slopes(u: Tensor, weights: Weights) -> Slopes:
    """min_k V_tot,k and its derivatives by u ``[2, ..., n]``; no gradient of their own."""
    w1, b1, w2, _ = weights
    values = ops.monotonic_mix(u, *weights)  # [2, ...]
    return Slopes(values.amin(0), ops.monotonic_mix_grad(u, w1, b1, w2) * _lower(values).unsqueeze(-1))


def entropy_slopes(u: Tensor, weights: Weights, share: Tensor) -> Slopes:
    """min_k V^{H,j}_tot,k of every agent j, and the derivatives of their sum, each times share ``[n]`` >= 0, by u."""
    w1, b1, w2, _ = weights
    values = ops.monotonic_mix(u, *weights)  # [2, ..., n]
    counted = share * _lower(values)  # [2, ..., n], of the values that are the lower ones
    return Slopes(values.amin(0), ops.monotonic_mix_grad(u, w1, b1, w2, counted))


def _lower(values: Tensor) -> Tensor:
    """Which member has the lower value, the first where both are alike: ``[2, ...]`` bool."""
    first = values[0] <= values[1]
    return torch.stack([first, ~first])


def targets(
    config: AderConfig, batch: Episodes, values: Mapping[str, Tensor], entropy: Tensor, alpha: Tensor
) -> dict[str, Tensor]:
    """The critics' targets: of the ``reward`` ``[B, T]``, and where it has a critic of every agent's ``entropy``
    ``[B, T, n]``.

    ``G_t = r_t + gamma ((1 - lam) V_{t+1} + lam G_{t+1})``, and with H_{t+1}, which is what the step is paid:
    ``G^{H,i}_t = gamma (H_{i,t+1} + (1 - lam) V^{H,i}_{t+1} + lam G^{H,i}_{t+1})``, eq. 10 where lam is 0; nothing
    follows a terminal step. A single soft critic (eq. 7) has both in one.

    Args:
        config: hyperparameters.
        batch: B episodes.
        values: by the target critics: of the ``reward``, V^R_tot ``[B, T+1]``; where there is one, of the ``entropy``,
            V^{H,i}_tot without the present entropy, ``[B, T+1, n]``.
        entropy: of the policies, or a sample of it, ``[B, T+1, n]``.
        alpha: the temperatures ``[n]``.
    """
    ended = batch.terminated if config.bootstrap_truncated else batch.terminated | batch.truncated  # [B, T]
    paid = config.gamma * entropy[:, 1:] * ~ended.unsqueeze(-1)  # [B, T, n]
    returns = partial(
        ops.lambda_returns, gamma=config.gamma, lam=config.td_lambda, truncated=batch.truncated, valid=batch.valid
    )
    if "entropy" not in values:
        return {"reward": returns(batch.reward + (alpha * paid).sum(-1), ended, values["reward"])}
    if config.alpha_in_critic:
        paid = alpha * paid
    rewards = torch.cat([batch.reward.unsqueeze(-1), paid], dim=-1)  # [B, T, 1 + n]
    both = torch.cat([values["reward"].unsqueeze(-1), values["entropy"]], dim=-1)  # [B, T+1, 1 + n]
    y = returns(rewards, ended, both)  # one launch for all 1 + n
    return {"reward": y[..., 0], "entropy": y[..., 1:]}
