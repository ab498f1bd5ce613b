"""ADER: maximum-entropy learning in which each agent has a target entropy of its own, from a budget for the team.

Kim and Sung, "An Adaptive Entropy-Regularization Framework for Multi-Agent Reinforcement Learning"; the numbers of
equations are this paper's.

=====================  ==========================================================
method                 differs in
=====================  ==========================================================
ADER
SER-MARL               ``allocation`` fixed: equal target entropies
SER-DCE                ``allocation`` fixed, ``shares`` different ones
Reversed ADER          ``allocation`` reversed
ADER without EMA       ``ema`` 0
one soft critic        ``critics`` single
=====================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emix._precision import Precision
from emix.data import Box, EnvSpec, Episodes
from emix.learners.ader_config import AderConfig
from emix.learners.ader_critics import TwinCritic, make_critics, targets
from emix.learners.ader_discrete import Discrete
from emix.learners.ader_gaussian import Gaussian
from emix.learners.ader_policies import Policies
from emix.learners.entropy_budget import EntropyBudget, Temperatures
from emix.learners.learner import BaseLearner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Schedule, Target
from emix.learners.seeded import seeded
from emix.learners.shared import in_rows, masked_mean


class Ader(BaseLearner):
    """Learns policies of discrete actions, or of vectors, with the reward's critics and one for each agent's entropy.

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of all draws; torch's global random state is neither used nor changed.
        precision: of the policies' recurrent networks on CUDA; critics and mixers multiply as torch is set to.

    Raises:
        UsageError: the config does not go with the environment.
    """

    capturable = True

    def __init__(
        self,
        config: AderConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        config.check(spec)
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            self.policies = _make_policies(config, spec, precision)
            self.critics = make_critics(config, spec, self.policies.make_utilities)
            self.temperatures = Temperatures(config, spec.n_agents)
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.policies.agent.to(self.device)
        self.critics.to(self.device)
        self.temperatures.to(self.device)
        every = None if config.target_tau is not None else config.target_update_episodes
        self.targets = Target(self.critics, every=every, tau=config.target_tau)
        self.budget = EntropyBudget(config, config.entropy_budget(spec), spec.n_agents, self.device)
        self.optimiser = _make_optimiser(config, self.policies.agent, config.lr)
        self.critic_optimisers = {
            name: _make_optimiser(config, critic, config.critic_lr) for name, critic in self.critics.named().items()
        }
        self.alpha_optimiser = _make_optimiser(config, self.temperatures, config.alpha_lr, clip=False)
        start, finish, time = config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time
        epsilon = Schedule(start, finish, time, device=self.device)
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = self.policies.make_actor(epsilon, generator)
        self.schedules = {} if isinstance(spec.action, Box) else {"epsilon": epsilon}
        self.parts = Parts(
            agent=self.policies.agent,
            critics=self.critics,
            targets=self.targets,
            temperatures=self.temperatures,
            shares=self.budget.shares,
            optimiser=self.optimiser,
            **{f"{name}_optimiser": each for name, each in self.critic_optimisers.items()},
            alpha_optimiser=self.alpha_optimiser,
            generator=generator,
            **self.schedules,
        )

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One step of the critics (eq. 10), of the target entropies (14, 15), policies (12) and temperatures (13), in
        this order, which is the published code's.

        Returns:
            0-dim tensors on the device: ``loss``, the reward critics', and ``entropy_loss``, the entropy critics', each
            with its ``..._grad_norm`` (before clipping); ``policy_loss`` and its norm, ``temperature_loss``; over the
            valid steps ``td_error_abs``, ``q_taken_mean``, ``target_mean``; and of each agent i, from 0,
            ``target_entropy_<i>``, ``entropy_<i>`` (over the steps that the temperatures learn from) and ``alpha_<i>``.
        """
        config = self.config
        # Vectors are drawn for the whole batch, whose episodes are of one length in most tasks.
        batches = [batch] if isinstance(self.spec.action, Box) else batch.by_length()
        parts = [(part, self.policies.policies(part)) for part in batches]
        (valid,) = in_rows((part.valid,) for part, _ in parts)  # [R], of the steps of all parts
        metrics = self._update_critics(parts, valid)

        alpha = self.temperatures.alpha
        gain, value, slope = in_rows(self.policies.improve(self.critics, *part, alpha) for part in parts)
        self.budget.follow(slope, valid, self.optimiser)
        norm = self.optimiser.descend(-self.optimiser.mean(gain, valid))
        metrics |= {"policy_loss": -masked_mean(value, valid), "policy_grad_norm": norm}

        (entropy,), goals = in_rows((policies.entropy[:, :-1],) for _, policies in parts), self.budget.targets
        active = torch.ones_like(entropy, dtype=torch.bool)  # [R, n]
        if config.temperature_mask == "active":
            (active,) = in_rows((self.policies.active(part),) for part, _ in parts)
            active = active & valid.unsqueeze(-1)
        metrics["temperature_loss"] = self.temperatures.learn(entropy, goals, active, self.alpha_optimiser)
        if config.target_tau is not None:
            self.targets.follow()
        mean = torch.where(active, entropy, 0.0).sum(0) / active.sum(0).clamp(min=1)  # [n]
        for name, values in (("target_entropy", goals), ("entropy", mean), ("alpha", alpha)):
            metrics |= {f"{name}_{i}": each for i, each in enumerate(values.unbind())}
        return metrics

    def _update_critics(self, parts: Sequence[tuple[Episodes, Any]], valid: Tensor) -> dict[str, Tensor]:
        """One step of each kind toward its targets. ``parts``: of the batch, with the policies; valid ``[R]``."""
        targets = [self._targets(*part) for part in parts]
        metrics: dict[str, Tensor] = {}
        for name, critic in self.critics.named().items():
            optimiser, prefix = self.critic_optimisers[name], "" if name == "reward" else f"{name}_"
            squares, lower, y = in_rows(
                self._critic_steps(critic, part, y[name]) for (part, _), y in zip(parts, targets, strict=True)
            )
            loss = optimiser.mean(squares, valid)
            metrics |= {f"{prefix}loss": loss.detach(), f"{prefix}grad_norm": optimiser.descend(loss)}
            if name == "reward":
                metrics["td_error_abs"] = masked_mean((y - lower).abs(), valid)
                metrics["q_taken_mean"] = masked_mean(lower, valid)
                metrics["target_mean"] = masked_mean(y, valid)
        return metrics

    def _critic_steps(self, critic: TwinCritic, batch: Episodes, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The squared errors ``[B, T]``, over both members, which both learn, and of entropies over all agents; the
        lower of the members' values, and y, which both are ``[B, T]``, or ``[B, T, n]``."""
        values = critic.mixers(self.policies.taken(critic, batch), batch.state[:, :-1])  # [2, B, T], or [2, B, T, n]
        squares = (y - values).square().sum(0)
        return squares if y.dim() == 2 else squares.sum(-1), values.detach().amin(0), y

    @torch.no_grad()
    def _targets(self, batch: Episodes, policies: Any) -> dict[str, Tensor]:
        """By the target critics, whose lower value counts, and the present policies."""
        values = {
            name: critic.mixers(self.policies.expected(critic, batch, policies), batch.state).amin(0)
            for name, critic in self.targets.module.named().items()
        }
        return targets(self.config, batch, values, policies.entropy, self.temperatures.alpha)

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: the floor falls, and the target critics are renewed when due.

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        for schedule in self.schedules.values():
            schedule.advance(env_steps)
        if self.config.target_tau is None:
            self.targets.follow(episodes)


def _make_policies(config: AderConfig, spec: EnvSpec, precision: Precision) -> Policies:
    return (Gaussian if isinstance(spec.action, Box) else Discrete)(config, spec, precision)


def _make_optimiser(config: AderConfig, module: nn.Module, lr: float, clip: bool = True) -> Optimiser:
    options: dict[str, Any] = {"alpha": config.rms_alpha} if config.optimizer == "rmsprop" else {"fused": True}
    norm = config.grad_norm_clip if clip else None
    return Optimiser(module, config.optimizer, lr=lr, eps=config.optimizer_eps, clip=norm, **options)
