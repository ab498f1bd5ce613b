"""FACMAC: deterministic policies of vectors that follow a factored critic, as they are ADER's baseline.

Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients"; the numbers of equations are this
paper's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes, require_box
from emix.learners.box_actor import BoxActor, normal
from emix.learners.facmac_config import FacmacConfig
from emix.learners.learner import BaseLearner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Target
from emix.learners.seeded import seeded
from emix.learners.shared import frozen, masked_mean, previous_actions, unscaled
from emix.nn.box_agent import BoxAgent
from emix.nn.critic import ActionCritic
from emix.nn.mixer import MonotonicMixer


class FactoredCritic(nn.Module):
    """Q_tot(s, a) = f_mix(s, Q_1(o_1, a_1), ..., Q_n(o_n, a_n)), monotonic in every Q_i (eq. 3)."""

    def __init__(self, config: FacmacConfig, spec: EnvSpec) -> None:
        super().__init__()
        dims = (config.critic_dim, config.critic_second_dim)
        vector = spec.action.encoding_dim
        self.utilities = ActionCritic(1, spec.obs_dim, vector, spec.n_agents, dims, agent_id=config.critic_agent_id)
        self.mixer = MonotonicMixer(
            spec.n_agents,
            spec.state_dim,
            embed_dim=config.mixing_embed_dim,
            hypernet_layers=config.hypernet_layers,
            hypernet_dim=config.hypernet_dim,
        )

    def forward(self, obs: Tensor, state: Tensor, unit: Tensor) -> Tensor:
        """obs ``[..., n, O]``, state ``[..., S]``, actions in [-1, 1] ``[..., n, D]`` -> Q_tot ``[...]``."""
        return self.mixer(self.utilities(obs, unit).squeeze(0), state)


class Facmac(BaseLearner):
    """Learns Q_tot from replayed steps or episodes, and one policy network for all agents from Q_tot.

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment, whose actions are vectors.
        device: where networks and batches live.
        seed: of the initial weights and of exploration; torch's global random state is neither used nor changed.
        precision: of the policies' recurrent networks on CUDA; all else multiplies as torch is set to.

    Raises:
        UsageError: the environment's actions are no vectors.
    """

    capturable = True

    def __init__(
        self,
        config: FacmacConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        config.check(spec)
        self.config, self.spec, self.plan = config, spec, config.plan
        self.box = require_box(spec, "FACMAC")
        padded = spec.n_agents * self.box.dim / self.box.numbers(spec.n_agents)
        self.penalty = config.action_penalty * padded  # so that the mean is over the numbers that there are
        self.device = torch.device(device)
        with seeded(seed):
            agent = BoxAgent(
                spec.obs_dim,
                spec.action.encoding_dim,
                spec.n_agents,
                1,
                (config.hidden_dim, config.second_dim),
                recurrent=config.recurrent,
                last_action=config.last_action,
                agent_id=config.agent_id,
                precision=precision,
            )
            self.networks = nn.ModuleDict({"agent": agent, "critic": FactoredCritic(config, spec)}).to(self.device)
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.targets = Target(self.networks, tau=config.target_tau)
        self.optimiser = _make_optimiser(config, self.networks["agent"], config.lr)
        self.critic_optimiser = _make_optimiser(config, self.networks["critic"], config.critic_lr)
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = BoxActor(agent, self._choose, generator, spec)
        self.parts = Parts(
            networks=self.networks,
            targets=self.targets,
            optimiser=self.optimiser,
            critic_optimiser=self.critic_optimiser,
            generator=generator,
        )

    def _unit(self, numbers: Tensor) -> Tensor:
        """The policies' actions in [-1, 1], ``[..., n, D]``."""
        return self.box.without_padding(torch.tanh(numbers))

    def _choose(self, numbers: Tensor, generator: torch.Generator | None) -> Tensor:
        """The policies' actions, with noise while exploring; what leaves the bounds counts as the nearest."""
        unit = self._unit(numbers)
        return unit if generator is None else unit + self.config.action_noise * normal(unit, generator)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One step of the critic toward the targets (eq. 4), and of the policies up Q_tot (eq. 6).

        Returns:
            ``loss`` and ``policy_loss`` with ``grad_norm`` and ``policy_grad_norm`` (before clipping), and over the
            valid steps ``td_error_abs``, ``q_taken_mean`` and ``target_mean``: 0-dim tensors on the device.
        """
        valid, critic = batch.valid, self.networks["critic"]
        obs, state, last = batch.obs[:, :-1], batch.state[:, :-1], previous_actions(batch.actions, self.spec)
        y = self._targets(batch, last)  # [B, T]
        q = critic(obs, state, unscaled(batch.actions[:, :-1], self.spec))  # [B, T]
        loss = self.critic_optimiser.mean((y - q).square(), valid)
        norm = self.critic_optimiser.descend(loss)

        numbers, _ = self.networks["agent"](batch.obs, last)  # [B, T+1, n, D]
        unit = self._unit(numbers)[:, :-1]  # all agents' actions are the present policies' at once
        with frozen(critic):
            gain = critic(obs, state, unit) - self.penalty * unit.square().mean((-1, -2))
        policy_loss = -self.optimiser.mean(gain, valid)
        policy_norm = self.optimiser.descend(policy_loss)
        self.targets.follow()
        with torch.no_grad():
            return {
                "loss": loss.detach(),
                "grad_norm": norm,
                "policy_loss": policy_loss.detach(),
                "policy_grad_norm": policy_norm,
                "td_error_abs": masked_mean((y - q).abs(), valid),
                "q_taken_mean": masked_mean(q, valid),
                "target_mean": masked_mean(y, valid),
            }

    @torch.no_grad()
    def _targets(self, batch: Episodes, last: Tensor) -> Tensor:
        """r + gamma Q_tot(s', mu(o')) by the target networks, ``[B, T]``."""
        numbers, _ = self.targets.module["agent"](batch.obs, last)
        value = self.targets.module["critic"](batch.obs, batch.state, self._unit(numbers))  # [B, T+1]
        ended = batch.terminated if self.config.bootstrap_truncated else batch.terminated | batch.truncated
        gamma, truncated, valid = self.config.gamma, batch.truncated, batch.valid
        return ops.n_step_returns(batch.reward, ended, value, gamma=gamma, n=1, truncated=truncated, valid=valid)


def _make_optimiser(config: FacmacConfig, module: nn.Module, lr: float) -> Optimiser:
    options: dict[str, Any] = {"fused": True} if config.optimizer == "adam" else {}
    return Optimiser(module, config.optimizer, lr=lr, eps=config.optimizer_eps, clip=config.grad_norm_clip, **options)
