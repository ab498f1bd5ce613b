"""ADER's policies of actions that are vectors: tanh-Gaussians, differentiated through what they draw."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emix import ops
from emix._precision import Precision
from emix.data import Box, EnvSpec, Episodes
from emix.learners.ader_config import AderConfig
from emix.learners.ader_critics import Critics, TwinCritic, reward_slopes
from emix.learners.ader_policies import Improvement
from emix.learners.box_actor import BoxActor
from emix.learners.parts import Schedule
from emix.learners.shared import frozen, previous_actions, unscaled
from emix.nn.box_agent import BoxAgent
from emix.nn.critic import ActionCritic

_LOG_STD_RANGE = (-20.0, 2.0)  # SAC's


class Draws(NamedTuple):
    """A joint action at every observation of a batch, drawn from the present policies."""

    unit: Tensor  # [B, T+1, n, D] in (-1, 1), with gradient
    log_prob: Tensor  # [B, T+1, n], with gradient

    @property
    def entropy(self) -> Tensor:
        """A sample of it, ``[B, T+1, n]``."""
        return -self.log_prob.detach()


class Gaussian:
    """What ADER's update asks of vectors. Expectations are a draw; critics and entropies see actions in [-1, 1].

    Args:
        config: hyperparameters.
        spec: sizes of the environment, whose actions are a ``Box``.
        precision: of the GRU's matrix products on CUDA.
    """

    def __init__(self, config: AderConfig, spec: EnvSpec, precision: Precision) -> None:
        self.config, self.spec, self.dim = config, spec, spec.action.encoding_dim
        self.box: Box = spec.action  # type: ignore[assignment]
        self.agent = BoxAgent(
            spec.obs_dim,
            self.dim,
            spec.n_agents,
            2,
            (config.hidden_dim, config.second_dim),
            recurrent=config.recurrent,
            last_action=config.last_action,
            agent_id=config.agent_id,
            init_scale=config.policy_init_scale,
            precision=precision,
        )

    def make_utilities(self) -> ActionCritic:
        """Both members' value of an action: [observation, action, id] -> FC -> FC -> 1."""
        spec, config = self.spec, self.config
        dims = (config.critic_dim, config.critic_second_dim)
        return ActionCritic(2, spec.obs_dim, self.dim, spec.n_agents, dims, agent_id=config.critic_agent_id)

    def make_actor(self, epsilon: Schedule, generator: torch.Generator) -> BoxActor:
        """What plays: a draw while exploring, in tests tanh of the means; vectors have no floor."""
        self.generator = generator
        return BoxActor(self.agent, self._choose, generator, self.spec)

    def policies(self, batch: Episodes) -> Draws:
        """A draw at every observation."""
        numbers, _ = self.agent(batch.obs, previous_actions(batch.actions, self.spec))
        return Draws(*self._sample(numbers, self.generator))

    def expected(self, critic: TwinCritic, batch: Episodes, policies: Draws) -> Tensor:
        """Q_i of the draw, ``[2, B, T+1, n]``."""
        return critic.utilities(batch.obs, policies.unit.detach())

    def taken(self, critic: TwinCritic, batch: Episodes) -> Tensor:
        """Q_i of the actions that were taken, ``[2, B, T, n]``."""
        return critic.utilities(batch.obs[:, :-1], unscaled(batch.actions[:, :-1], self.spec))

    def active(self, batch: Episodes) -> Tensor:
        """Agents can always choose."""
        return torch.ones_like(batch.actions[:, :-1, :, 0], dtype=torch.bool)

    def improve(self, critics: Critics, batch: Episodes, policies: Draws, alpha: Tensor) -> Improvement:
        """What eq. 12 maximises, ``min Q^R_tot + sum_i alpha_i (min Q^{H,i}_tot - log pi_i)``, at the draw."""
        obs, state, unit = batch.obs[:, :-1], batch.state[:, :-1], policies.unit[:, :-1]
        gain = -(alpha * policies.log_prob[:, :-1]).sum(-1)  # [B, T]
        with frozen(critics):
            reward, entropy = critics.reward, critics.entropy
            u, weights = reward.utilities(obs, unit), reward.mixers.weights(state)  # u [2, B, T, n]
            gain = gain + ops.monotonic_mix(u, *weights).amin(0)
            slope = reward_slopes(u.detach(), weights).slope.sum(0)  # [B, T, n]
            if entropy is not None:
                values = entropy.mixers(entropy.utilities(obs, unit), state).amin(0)  # [B, T, n]
                gain = gain + (alpha * values).sum(-1)
        return Improvement(gain, gain.detach(), slope)

    def _choose(self, numbers: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.tanh(numbers.chunk(2, dim=-1)[0]) if generator is None else self._sample(numbers, generator).action

    def _sample(self, numbers: Tensor, generator: torch.Generator) -> ops.GaussianSample:
        mean, log_std = numbers.chunk(2, dim=-1)  # [..., n, D]
        log_std = log_std.clamp(*_LOG_STD_RANGE)
        if not self.box.sizes:
            return ops.tanh_gaussian_sample(mean, log_std, generator=generator)
        unit, each = ops.tanh_gaussian_sample(mean.unsqueeze(-1), log_std.unsqueeze(-1), generator=generator)
        own = self.box.without_padding
        return ops.GaussianSample(own(unit.squeeze(-1)), own(each).sum(-1))
