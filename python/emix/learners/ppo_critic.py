"""The critics of MAPPO, IPPO and PERLA: what they say of a state, and what they are learned from.

The numbers of equations and of algorithm 1 are PERLA's (``emix.learners.ppo``).

===============  ==========================================  ========================================  ===============
critic           value of a state, Vbar_i                    what is fitted to the target y            advantage
===============  ==========================================  ========================================  ===============
no samples       V_i(s)                                      V_i(s)                                    y - V_i
v, marginal      1/K sum_k V_i(s, a_-i^k)                    the same                                  y - Vbar_i
v, executed      the same                                    V_i(s, a_-i) at the actions taken         y - Vbar_i
q                sum_x pi_i(x) Qhat_i(x), with eq. 2's       Q_i(s, a) at the actions taken            Qhat_i(a_i)
                 Qhat_i(x) = 1/K sum_k Q_i(s, x, a_-i^k)                                               - Vbar_i
===============  ==========================================  ========================================  ===============
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emix._precision import Precision
from emix.data import EnvSpec, Episodes
from emix.learners.normalise import CumulativeNorm, DebiasedNorm
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Target
from emix.learners.ppo_actor import make_network
from emix.learners.ppo_config import PPOConfig
from emix.learners.shared import pick
from emix.nn.multi_agent import ActionCritic, orthogonal_

Rows = Mapping[str, Tensor]
"""Steps that something is learned from, ``[R, T, ...]`` each: ``seen``, what a critic sees of a state; ``actions``;
with PERLA ``joint``, the samples ``[R, T, n, K]`` (or ``[R, T, n, D, K]``), and ``pi`` ``[R, T, n, A]``, the policies
that they were drawn from, where a q critic asks for them."""


class Estimate(NamedTuple):
    """What a critic says of steps, ``[R, T, n]`` each; the scale is that of its ``norm``."""

    fitted: Tensor  # with a gradient: to be brought to y
    value: Tensor  # Vbar_i of the state
    action_value: Tensor | None  # Qhat_i(a_i), of a q critic


class Critic:
    """One critic for all agents, told apart by their ids, or one for each.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where it lives.
        precision: of a GRU's matrix products on CUDA.
    """

    def __init__(self, config: PPOConfig, spec: EnvSpec, device: torch.device, precision: Precision) -> None:
        self.config, self.spec = config, spec
        sizes = {"state": spec.state_dim, "obs": spec.obs_dim, "state_obs": spec.state_dim + spec.obs_dim}
        inputs = sizes[config.critic_input]
        network: Any
        if config.samples:
            discrete, encoding = spec.action.dtype == "int64", spec.action.encoding_dim
            network = ActionCritic(inputs, encoding, spec.n_agents, config.hidden_dim, discrete=discrete)
        else:
            network = make_network(config, config.critic_network, inputs, 1, spec.n_agents, precision)
        if config.init == "orthogonal":
            orthogonal_(network, head_gain=1.0)
        self.network: Any = network.to(device)  # phi
        self.target = _make_target(config, self.network)
        self.optimiser = make_optimiser(config, self.network, config.critic_lr)
        norms = {"debiased": DebiasedNorm, "cumulative": CumulativeNorm}
        self.norm = norms[config.value_norm]().to(device) if config.value_norm != "none" else None

    def sees(self, episodes: Episodes) -> Tensor:
        """What it sees of each state: ``[B, T+1, S]``, or ``[B, T+1, n, ...]`` where agents see different things."""
        if self.config.critic_input == "state":
            return episodes.state
        if self.config.critic_input == "obs":
            return episodes.obs
        state = episodes.state.unsqueeze(2).expand(-1, -1, self.spec.n_agents, -1)
        return torch.cat([state, episodes.obs], dim=-1)

    @torch.no_grad()
    def values(self, rows: Rows, *, target: bool) -> Tensor:
        """Vbar_i of each state in the rewards' scale, ``[R, T, n]``, by the live critic or its target."""
        network = self.target.module if target and self.target is not None else self.network
        value = self._value(network, rows)
        return value if self.norm is None else self.norm.denormalise(value)

    def estimate(self, rows: Rows) -> Estimate:
        """What the live critic says of the states and of the actions taken."""
        network, config = self.network, self.config
        if config.samples == 0 or (config.critic, config.fit) == ("v", "marginal"):
            value = self._value(network, rows)
            return Estimate(value, value.detach(), None)
        taken = rows["actions"]
        if config.critic == "v":
            with torch.no_grad():
                value = self._value(network, rows)
            return Estimate(network(rows["seen"], taken.unsqueeze(0)), value, None)
        with torch.no_grad():
            q = network.every_own(rows["seen"], _joint(rows))  # [R, T, n, A], eq. 2
        fitted = network(rows["seen"], taken.unsqueeze(0), own=taken)
        return Estimate(fitted, (rows["pi"] * q).sum(-1), pick(q, taken))

    def follow(self) -> None:
        """Count an update: the target follows."""
        if self.target is not None:
            self.target.follow()

    def _value(self, network: Any, rows: Rows) -> Tensor:
        """Vbar_i, ``[R, T, n]``."""
        if self.config.samples == 0:
            return network(rows["seen"])[0].squeeze(-1)
        if self.config.critic == "v":
            return network(rows["seen"], _joint(rows))
        return (rows["pi"] * network.every_own(rows["seen"], _joint(rows))).sum(-1)


def make_optimiser(config: PPOConfig, module: nn.Module, lr: float) -> Optimiser:
    """The config's kind, for actors or critics."""
    options: dict[str, Any] = {"lr": lr, "eps": config.optimizer_eps, "clip": config.grad_norm_clip}
    if config.momentum > 0:
        options["momentum"] = config.momentum
    return Optimiser(module, config.optimizer, **options)


def _make_target(config: PPOConfig, network: nn.Module) -> Target | None:
    if config.target == "none" or config.returns == "gae":
        return None
    hard = config.target == "hard"
    return Target(network, every=config.target_every) if hard else Target(network, tau=config.target_tau)


def _joint(rows: Rows) -> Tensor:
    """K joint actions first: ``[K, R, T, n]``, or ``[K, R, T, n, D]``."""
    return rows["joint"].movedim(-1, 0)
