"""COMA: policies that follow what each agent's own action added, by one critic that sees all of them.

Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", as oxwhirl/pymarl has it. COMA-R is the same from
replayed episodes, as Yao et al. compare it with SMIX(lambda): the recipe ``coma@r``.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes, require_discrete
from emix.learners.coma_config import ComaConfig
from emix.learners.learner import BaseLearner
from emix.learners.loop import Loop, run_loop
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Schedule, Target
from emix.learners.recurrent_actors import FloorActor
from emix.learners.seeded import seeded
from emix.learners.shared import masked_mean, pick, previous_actions
from emix.nn.agent import RecurrentAgent
from emix.nn.counterfactual import CounterfactualCritic

_MEASURED = ("loss", "critic_grad_norm", "td_error_abs", "q_taken_mean", "target_mean")  # at each step of the critic


class Coma(BaseLearner):
    """Learns one policy for all agents, and a critic of every agent's actions given the others'.

    ``update`` is a function of fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can
    capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of all draws; torch's global random state is neither used nor changed.
        precision: of the policies' matrix products on CUDA; the critic multiplies as torch is set to.
    """

    capturable = True

    def __init__(
        self,
        config: ComaConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        require_discrete(spec, "COMA")
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        sizes = spec.obs_dim, spec.n_actions, spec.n_agents
        with seeded(seed):
            self.agent = RecurrentAgent(*sizes, config.hidden_dim, precision=precision).to(self.device)
            self.critic = CounterfactualCritic(spec.state_dim, *sizes, config.critic_dim).to(self.device)
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.target = Target(self.critic, every=config.target_update_interval)
        common: dict[str, Any] = {"alpha": config.rms_alpha, "eps": config.rms_eps, "clip": config.grad_norm_clip}
        self.optimiser = Optimiser(self.agent, "rmsprop", lr=config.lr, **common)
        self.critic_optimiser = Optimiser(self.critic, "rmsprop", lr=config.critic_lr, **common)
        self.epsilon = Schedule(
            config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time, device=self.device
        )
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = FloorActor(self.agent, self.epsilon, generator, spec, config.hidden_dim)
        self.parts = Parts(
            agent=self.agent,
            critic=self.critic,
            target=self.target,
            optimiser=self.optimiser,
            critic_optimiser=self.critic_optimiser,
            epsilon=self.epsilon,
            generator=generator,
        )

    def update(self, batch: Episodes, *, loop: Loop = run_loop) -> dict[str, Tensor]:
        """Train the critic, one time step after the other from the last to the first, then the policies.

        Args:
            batch: B episodes.
            loop: runs the critic's optimiser steps; what captures an update records one of them.

        Returns:
            0-dim tensors on the device. The critic's, means over the optimiser's steps: ``loss`` (squared error),
            ``critic_grad_norm`` (before clipping), ``td_error_abs``, ``q_taken_mean``, ``target_mean``. The policies':
            ``actor_loss``, ``actor_grad_norm``, ``entropy``, ``advantage_abs``.
        """
        # Where another process has longer episodes, its optimiser steps more often, which all must do together.
        batch = batch.padded(self.critic_optimiser.group.agree(batch.valid.shape[1]))
        last_actions = previous_actions(batch.actions, self.spec)  # [B, T+1, n]
        logits = self.agent(batch.obs, last_actions)[0][:, :-1]  # [B, T, n, A]
        y = self._targets(batch, last_actions)
        advantage, metrics = self._update_critic(batch, last_actions, logits.detach(), y, loop)
        return metrics | self._update_policies(batch, logits, advantage)

    @torch.no_grad()
    def _targets(self, batch: Episodes, last_actions: Tensor) -> Tensor:
        """TD(lambda) of the target critic's values of the actions taken, each agent's own: ``[B, T, n]``."""
        q = self.target.module(batch.state, batch.obs, batch.actions, last_actions)  # [B, T+1, n, A]
        ended = batch.terminated if self.config.bootstrap_truncated else batch.terminated | batch.truncated  # [B, T]
        return ops.lambda_returns(
            batch.reward,
            ended,
            pick(q, batch.actions),
            gamma=self.config.gamma,
            lam=self.config.td_lambda,
            truncated=batch.truncated,
            valid=batch.valid,
        )

    def _update_critic(
        self, batch: Episodes, last_actions: Tensor, logits: Tensor, y: Tensor, loop: Loop
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """An optimiser step for each time step. The counterfactual advantages ``[B, T, n]``, by the critic as it was
        before the step of theirs (as in PyMARL), and the metrics."""
        optimiser, avail = self.critic_optimiser, cast("Tensor", batch.avail)
        fields = (batch.state, batch.obs, batch.actions, last_actions, avail, logits, y, batch.valid)
        steps = y.shape[1]
        real = optimiser.everywhere(batch.valid.sum(0)) > 0  # [T]
        # A counter on the device: a step that was recorded once finds there which one it is.
        t = torch.full((1,), steps - 1, device=self.device)
        numbers = torch.arange(steps, device=self.device)
        advantages, results = torch.zeros_like(y), y.new_zeros(len(_MEASURED), steps)

        def learn() -> None:
            state, obs, actions, last, avail, logits, y, valid = (
                field.index_select(1, t).squeeze(1) for field in fields
            )
            q = self.critic(state, obs, actions, last)  # [B, n, A]
            taken = pick(q, actions)  # [B, n]
            valid = valid.unsqueeze(-1).expand_as(taken)
            error = torch.where(valid, y - taken, 0.0)
            loss = optimiser.mean(error.square(), valid)
            norm = optimiser.descend_where(real.index_select(0, t).squeeze(0), loss)
            with torch.no_grad():
                terms = ops.policy_terms(logits, actions, avail, q, floor=self.epsilon.tensor)
                advantage = taken - cast("Tensor", terms.expected_value)  # of the action over its policy's mean
                now = numbers == t  # [T]
                torch.where(now.unsqueeze(-1), advantage.unsqueeze(1), advantages, out=advantages)
                means = [masked_mean(each, valid) for each in (error.abs(), taken, y)]
                torch.where(now, torch.stack([loss, norm, *means]).unsqueeze(-1), results, out=results)
                t.sub_(1)

        loop(learn, steps)
        self.target.follow(real.sum())
        return advantages, {name: masked_mean(result, real) for name, result in zip(_MEASURED, results, strict=True)}

    def _update_policies(self, batch: Episodes, logits: Tensor, advantage: Tensor) -> dict[str, Tensor]:
        """One step up the mean, over valid steps and agents, of advantage times log-probability; logits as advantage
        ``[B, T, n]``, with A."""
        avail = cast("Tensor", batch.avail)[:, :-1]
        terms = ops.policy_terms(logits, batch.actions[:, :-1], avail, floor=self.epsilon.tensor)
        valid = batch.valid.unsqueeze(-1).expand_as(advantage)
        loss = -self.optimiser.mean(advantage * terms.log_prob, valid)
        norm = self.optimiser.descend(loss)
        return {
            "actor_loss": loss.detach(),
            "actor_grad_norm": norm,
            "entropy": masked_mean(terms.entropy.detach(), valid),
            "advantage_abs": masked_mean(advantage.abs(), valid),
        }

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: the floor falls.

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self.epsilon.advance(env_steps)
