"""QTRAN-base: agents' values whose sum plus V(s) equals the joint action's at their best one and is above it elsewhere.

Son et al. 2019, "QTRAN: Learning to Factorize with Transformation for Cooperative Multi-Agent Reinforcement Learning",
as oxwhirl/pymarl has it. QTRAN-R, as Yao et al. compare it with SMIX(lambda), takes SMIX's target for the joint value:
the recipe ``qtran@r``.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes, require_discrete
from emix.learners.learner import BaseLearner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Schedule, Target
from emix.learners.qtran_config import QtranConfig
from emix.learners.recurrent_actors import EpsilonGreedyActor
from emix.learners.seeded import seeded
from emix.learners.shared import greedy, in_rows, masked_mean, pick, previous_actions
from emix.nn.agent import RecurrentAgent
from emix.nn.joint import JointValue


class Qtran(BaseLearner):
    """Learns Q_jt(s, u), V(s) and the agents' values from replayed episodes; each agent acts on its own Q_i.

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of exploration; torch's global random state is neither used nor changed.
        precision: of the agents' recurrent networks on CUDA; all else multiplies as torch is set to.
    """

    capturable = True

    def __init__(
        self,
        config: QtranConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        require_discrete(spec, "QTRAN")
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            agent = RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim, precision=precision)
            joint = JointValue(spec.state_dim, spec.n_actions, config.hidden_dim, config.mixing_embed_dim)
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.networks = nn.ModuleDict({"agent": agent, "joint": joint}).to(self.device)
        self.targets = Target(self.networks, every=config.target_update_episodes)
        self.optimiser = Optimiser(
            self.networks,
            "rmsprop",
            lr=config.lr,
            alpha=config.rms_alpha,
            eps=config.rms_eps,
            clip=config.grad_norm_clip,
        )
        self.epsilon = Schedule(
            config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time, device=self.device
        )
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = EpsilonGreedyActor(self.networks["agent"], self.epsilon, generator, spec, config.hidden_dim)
        self.parts = Parts(
            networks=self.networks,
            targets=self.targets,
            optimiser=self.optimiser,
            epsilon=self.epsilon,
            generator=generator,
        )

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One gradient step on B episodes, down the weighted L_td + L_opt + L_nopt, each a mean over the valid steps.

        Returns:
            ``loss``, ``td_loss``, ``opt_loss`` and ``nopt_loss`` (before their weights), ``grad_norm`` (before
            clipping), and over the valid steps ``td_error_abs``, ``q_taken_mean`` (of the joint actions),
            ``target_mean`` and ``v_mean``: 0-dim tensors on the device.
        """
        config = self.config
        # Of R steps: the errors in L_td, L_opt and L_nopt, what is measured beside them, which are valid.
        td, opt, nopt, q_jt, y, v, valid = in_rows(self._steps(part) for part in batch.by_length())
        td_loss, opt_loss, nopt_loss = (self.optimiser.mean(each.square(), valid) for each in (td, opt, nopt))
        loss = td_loss + config.opt_weight * opt_loss + config.nopt_weight * nopt_loss

        grad_norm = self.optimiser.descend(loss)
        with torch.no_grad():
            losses = {"loss": loss, "td_loss": td_loss, "opt_loss": opt_loss, "nopt_loss": nopt_loss}
            seen = {"td_error_abs": td.abs(), "q_taken_mean": q_jt, "target_mean": y, "v_mean": v}
            means = {name: masked_mean(value, valid) for name, value in seen.items()}
            return {name: value.detach() for name, value in losses.items()} | means | {"grad_norm": grad_norm}

    def _steps(self, batch: Episodes) -> tuple[Tensor, ...]:
        """See ``update``; ``[B, T]`` each."""
        agent, joint = cast("RecurrentAgent", self.networks["agent"]), cast("JointValue", self.networks["joint"])
        last_actions = previous_actions(batch.actions, self.spec)  # [B, T+1, n]
        all_q, all_hidden = agent.unroll(batch.obs, last_actions)  # [B, T+1, n, A], [B, T+1, n, H]
        all_best = greedy(all_q.detach(), batch.avail)  # [B, T+1, n]
        y = self._target(batch, last_actions, all_best)  # [B, T]

        q, hidden, best, actions = all_q[:, :-1], all_hidden[:, :-1], all_best[:, :-1], batch.actions[:, :-1]
        state = batch.state[:, :-1]
        q_jt, v = joint(state, hidden, actions), joint.value(state)  # [B, T] each
        with torch.no_grad():
            best_q_jt = joint(state, hidden, best)  # [B, T]
        td = q_jt - y  # L_td
        opt = pick(q, best).sum(-1) - best_q_jt + v  # L_opt
        nopt = (pick(q, actions).sum(-1) - q_jt.detach() + v).clamp(max=0.0)  # L_nopt
        return td, opt, nopt, q_jt, y, v, batch.valid

    @torch.no_grad()
    def _target(self, batch: Episodes, last_actions: Tensor, best: Tensor) -> Tensor:
        """y of every step ``[B, T]`` by the target networks; best ``[B, T+1, n]``: the live agents' greedy actions."""
        config, networks = self.config, self.targets.module
        _, hidden = networks["agent"].unroll(batch.obs, last_actions)  # [B, T+1, n, H]
        actions = best if config.target == "max" else batch.actions
        value = networks["joint"](batch.state, hidden, actions)  # [B, T+1]
        ended = batch.terminated if config.bootstrap_truncated else batch.terminated | batch.truncated  # [B, T]
        return ops.lambda_returns(
            batch.reward,
            ended,
            value,
            gamma=config.gamma,
            lam=0.0 if config.target == "max" else config.td_lambda,
            truncated=batch.truncated,
            valid=batch.valid,
        )

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: epsilon falls, and the targets are renewed when due.

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self.epsilon.advance(env_steps)
        self.targets.follow(episodes)
