"""ADER's policies of discrete actions: what the update takes of them, exactly."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes
from emix.learners.ader_config import AderConfig
from emix.learners.ader_critics import Critics, TwinCritic, entropy_slopes, reward_slopes
from emix.learners.ader_policies import Improvement
from emix.learners.parts import Schedule
from emix.learners.recurrent_actors import FloorActor
from emix.learners.shared import previous_actions
from emix.nn.agent import RecurrentAgent
from emix.nn.critic import EnsembleCritic


class DiscretePolicies(NamedTuple):
    """The policies at every observation of a batch."""

    logits: Tensor  # [B, T+1, n, A], with gradient
    pi: Tensor  # [B, T+1, n, A]
    entropy: Tensor  # [B, T+1, n]


class Discrete:
    """What ADER's update asks of discrete actions. Expectations over an agent's own actions are exact.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        precision: of the policies' matrix products on CUDA.
    """

    def __init__(self, config: AderConfig, spec: EnvSpec, precision: Precision) -> None:
        self.config, self.spec = config, spec
        self.agent = RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim, precision=precision)

    def make_utilities(self) -> EnsembleCritic:
        """Both members' values of every action: [observation, id] -> FC -> FC -> A."""
        spec, dim = self.spec, self.config.critic_dim
        return EnsembleCritic(2, 0, spec.obs_dim, spec.n_actions, spec.n_agents, dim, value_head=False)

    def make_actor(self, epsilon: Schedule, generator: torch.Generator) -> FloorActor:
        """What plays."""
        self.epsilon = epsilon
        return FloorActor(self.agent, epsilon, generator, self.spec, self.config.hidden_dim)

    def policies(self, batch: Episodes) -> DiscretePolicies:
        """With the floor, which counts in the losses, too."""
        logits, _ = self.agent(batch.obs, previous_actions(batch.actions, self.spec))
        with torch.no_grad():
            pi = ops.masked_policy(logits, batch.avail, self.epsilon.tensor)
            entropy = ops.policy_terms(logits, batch.actions, batch.avail, floor=self.epsilon.tensor).entropy
        return DiscretePolicies(logits, pi, entropy)

    def expected(self, critic: TwinCritic, batch: Episodes, policies: DiscretePolicies) -> Tensor:
        """V_i = sum_a pi_i(a) Q_i(a) of both members at every observation, ``[2, B, T+1, n]``."""
        return (policies.pi * _values(critic, batch.obs)).sum(-1)

    def taken(self, critic: TwinCritic, batch: Episodes) -> Tensor:
        """Q_i of the actions that were taken, ``[2, B, T, n]``."""
        q = _values(critic, batch.obs, batch.actions)  # [2, B, T+1, n]: the last ones cost less than a copy of obs
        return q[:, :, :-1]

    def active(self, batch: Episodes) -> Tensor:
        """Where an agent can choose, bool ``[B, T, n]``."""
        return cast("Tensor", batch.avail)[:, :-1].sum(-1) > 1

    def improve(self, critics: Critics, batch: Episodes, policies: DiscretePolicies, alpha: Tensor) -> Improvement:
        """What eq. 12 maximises, ``min V^R_tot + sum_i alpha_i (min V^{H,i}_tot + H_i)``.

        The team values' derivatives by pi_i(a) are U_i(a) = dV^R_tot/dV_i Q_i(a) + the same of the entropies. So the
        gradient is that of sum_i sum_a pi_i(a) U_i(a) with U held, and nothing is differentiated through the critics.
        """
        state, avail = batch.state[:, :-1], cast("Tensor", batch.avail)[:, :-1]
        pi = policies.pi[:, :-1]
        with torch.no_grad():
            mixers = critics.reward.mixers
            q = _values(critics.reward, batch.obs)[:, :, :-1]  # [2, B, T, n, A]
            value, slopes = reward_slopes((pi * q).sum(-1), mixers.weights(state))
            u = (slopes.unsqueeze(-1) * q).sum(0)  # [B, T, n, A]
            slope = slopes.sum(0)  # [B, T, n]
            if self.config.metric == "entropy":
                chosen = torch.where(slopes[:1].any(-1, keepdim=True).unsqueeze(-1), q[0], q[1]).squeeze(0)
                slope = slope * _value_by_entropy(chosen, pi)
            if critics.entropy is not None:
                mixers = critics.entropy.mixers
                q = _values(critics.entropy, batch.obs)[:, :, :-1]
                entropy_value, slopes = entropy_slopes((pi * q).sum(-1), mixers.weights(state), alpha)
                u = u + (slopes.unsqueeze(-1) * q).sum(0)
                value = value + (alpha * entropy_value).sum(-1)
        terms = ops.policy_terms(policies.logits[:, :-1], batch.actions[:, :-1], avail, u, floor=self.epsilon.tensor)
        gain = (cast("Tensor", terms.expected_value) + alpha * terms.entropy).sum(-1)  # [B, T]
        return Improvement(gain, value + (alpha * policies.entropy[:, :-1]).sum(-1), slope)


def _values(critic: TwinCritic, obs: Tensor, actions: Tensor | None = None) -> Tensor:
    """Both members' values: ``[..., n, O] -> [2, ..., n, A]``, or of the actions ``[..., n] -> [2, ..., n]``."""
    return critic.utilities(obs.new_empty(*obs.shape[:-2], 0), obs, actions)


def _value_by_entropy(q: Tensor, pi: Tensor) -> Tensor:
    """dV_i/dH_i along the direction in which H_i rises fastest: ``[..., n, A] -> [..., n]``.

    With g = dH/dpi = -(log pi + 1): <g, Q> / <g, g>, the limit of the published code's quotient of differences, which
    takes a step of 1e-5.
    """
    g = torch.where(pi > 0, -(pi.clamp(min=1e-10).log() + 1), 0.0)
    return (g * q).sum(-1) / g.square().sum(-1).clamp(min=1e-8)
