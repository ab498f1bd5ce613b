"""Ensemble-MIX, and DOP beneath it: a decomposed critic of N members, and actors that follow their agents' values.

Danino and Shimkin, "Ensemble-MIX: Enhancing Sample Efficiency in Multi-Agent RL Using Ensemble Methods"; the numbers of
equations and algorithms below are this paper's. DOP (Wang et al. 2021, "DOP: Off-Policy Multi-Agent Decomposed Policy
Gradients") is one member, no bonus, c1 = c2 = 0, on-policy actors: the recipe ``dop``.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes, require_discrete
from emix.data.episodes import alike, joined
from emix.learners.decomposed_critic import DecomposedCritic, make_optimiser
from emix.learners.ensemble_mix_actor import EnsembleMixActor
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.learner import BaseLearner, EpisodeData
from emix.learners.loop import Loop, run_loop
from emix.learners.parts import Parts, Schedule
from emix.learners.seeded import seeded
from emix.learners.shared import pick, previous_actions
from emix.nn.agent import RecurrentAgent


class Batch(NamedTuple):
    """What one update learns from."""

    critics: Episodes  # as many on-policy episodes as ``actors`` has, then the off-policy ones
    actors: Episodes  # for the actors' on-policy term


class ActorTerms(NamedTuple):
    """What eq. 12 averages over states, for each agent ``[..., n]``."""

    on: Tensor  # log pi_i(a_i) U_i(a_i)
    off: Tensor  # m_i E_pi Q_i, agent i's part of the mean of Q_tot over its own actions
    entropy: Tensor


class EnsembleMix(BaseLearner):
    """Learns Q_tot = sum_i m_i(s) Q_i(s, o_i, a_i) by N critics, and one policy for all agents.

    ``update`` is a function of fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can
    capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of all draws; torch's global random state is neither used nor changed.
        precision: of the agent networks' matrix products on CUDA; critics and mixer multiply as torch is set to.
    """

    capturable = True

    def __init__(
        self,
        config: EnsembleMixConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        require_discrete(spec, "Ensemble-MIX")
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            self.agent = _make_agent(config, spec, precision).to(self.device)  # theta
            self.critic = DecomposedCritic(config, spec, self.device)
            exploration_seed, test_seed = torch.randint(2**63 - 1, (2,)).tolist()
        self.optimiser = make_optimiser(config, self.agent, config.lr)
        self.epsilon = Schedule(
            config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time, device=self.device
        )
        members = self.critic.networks.critic
        self.actor = EnsembleMixActor(
            self.agent, members, self.epsilon, config, spec, seeds=(exploration_seed, test_seed)
        )
        self.parts = Parts(
            agent=self.agent,
            critic=self.critic.networks,
            target=self.critic.target,
            optimiser=self.optimiser,
            critic_optimiser=self.critic.optimiser,
            epsilon=self.epsilon,
            explored=self.actor.explored,
            generator=self.actor.generator,
            test_generator=self.actor.test_generator,
        )

    def draw(self, data: EpisodeData) -> Batch:
        """On-policy episodes from the newest ``on_window``, off-policy ones from all, and the newest for the actors.

        Args:
            data: holds at least ``plan.batch_size``, which is how many off-policy ones there are, and the most
                on-policy ones.
        """
        count = min(self.config.on_batch, self.plan.batch_size)
        on = data.sample(count, newest=self.config.on_window)
        off = data.sample(self.plan.batch_size)
        held = self.config.on_window if self._ring_is_cut(data.added, count) else count
        newest = data.sample(count, newest=held)
        if not self.critic.skips_padding:  # one length for all, so that a GPU captures few
            on, off, newest = alike(on, off, newest)
        return Batch(joined(on, off), newest)

    def _ring_is_cut(self, added: int, count: int) -> bool:
        """Whether the newest ``count`` episodes of DOP's buffer lie at its end and its beginning, where it then draws
        from all of it."""
        return self.config.actor_batch == "ring" and added % self.config.on_window < count

    def update(self, batch: Batch, *, loop: Loop = run_loop) -> dict[str, Tensor]:
        """Train the critics by eq. 16, then the actors by eq. 12 (algorithm 2).

        Args:
            batch: what ``draw`` gave.
            loop: runs the critics' optimiser steps; what captures an update records one of them.

        Returns:
            0-dim tensors on the device. The critics': ``loss`` (eq. 16), ``critic_grad_norm`` (before clipping; like
            all of these a mean over the optimiser's steps), ``diversity`` (eq. 15, where c2 is not 0), and over the
            valid steps ``td_error_abs``, ``q_taken_mean``, ``target_mean`` and ``uncertainty_weight_mean`` (eq. 11,
            where c1 is not 0). The actors': ``actor_loss``, ``actor_grad_norm``, ``entropy``, with actor "two_steps"
            those of the on-policy step, and ``off_actor_loss`` and ``off_actor_grad_norm``; ``explore_fraction``, the
            share of open gates while acting since the last ``advance``.
        """
        config, rows, count = self.config, batch.critics, len(batch.actors)
        # Where another process has longer episodes, its critics step more often, which all must do together.
        rows = rows.padded(self.critic.optimiser.group.agree(rows.valid.shape[1]))
        on, off = rows[:count], rows[count:]
        with torch.set_grad_enabled(config.actor != "on_policy"):
            off_logits = self._logits(off)  # [B, T+1, n, A]: for the tree backup, and later for the actors
        off_pi = ops.masked_policy(off_logits.detach(), off.avail, self.epsilon.tensor)
        on_pi = None
        if config.on_target == "retrace":
            with torch.no_grad():
                on_pi = ops.masked_policy(self._logits(on), on.avail, self.epsilon.tensor)
        metrics = self.critic.update(rows, count, off_pi, on_pi, loop)
        if config.actor == "two_steps":
            first = self._update_actors(batch.actors, off, off_logits, on_share=0.0, off_share=1.0)
            metrics |= {f"off_{name}": first[name] for name in ("actor_loss", "actor_grad_norm")}
        shares = {"mixed": (1 - config.nu, config.nu), "off_policy": (0.0, 1.0)}
        metrics |= self._update_actors(batch.actors, off, off_logits, *shares.get(config.actor, (1.0, 0.0)))
        explored, acted = self.actor.explored
        return metrics | {"explore_fraction": explored.float() / acted.clamp(min=1).float()}

    def _update_actors(
        self, newest: Episodes, off: Episodes, off_logits: Tensor, on_share: float, off_share: float
    ) -> dict[str, Tensor]:
        """One step up eq. 12's terms with their shares, and up the entropy where that has a weight."""
        config = self.config
        objective = entropy = torch.zeros((), dtype=torch.float32, device=self.device)
        if on_share > 0:
            terms = self._actor_terms(newest, self._logits(newest))
            objective = objective + on_share * self._mean(terms.on, newest.valid)
            entropy = entropy + on_share * self.optimiser.mean(terms.entropy.mean(-1), newest.valid)
        if off_share > 0:
            terms = self._actor_terms(off, off_logits)
            objective = objective + off_share * self._off_term(terms.off, off.valid)
            entropy = entropy + off_share * self.optimiser.mean(terms.entropy.mean(-1), off.valid)
        loss = -objective
        if config.entropy > 0:
            loss = loss - config.entropy * entropy / entropy.detach().clamp(min=1e-8)
        norm = self.optimiser.descend(loss)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy": entropy.detach()}

    def _actor_terms(self, episodes: Episodes, logits: Tensor) -> ActorTerms:
        """Eq. 12's terms ``[B, T, n]`` by the live critics; logits ``[B, T+1, n, A]``."""
        avail = cast("Tensor", episodes.avail)  # [B, T+1, n, A]
        q, m = self.critic.agents_values(episodes)  # [B, T, n, A], [B, T, n]
        return actor_terms(logits[:, :-1], q, episodes.actions[:, :-1], avail[:, :-1], m, self.epsilon.tensor)

    def _mean(self, terms: Tensor, valid: Tensor) -> Tensor:
        """The mean over the valid steps of the sum over agents, or the mean over agents, too: ``[B, T, n]`` -> []."""
        total = self.optimiser.mean(terms.sum(-1), valid)
        return total if self.config.norm == "bt" else total / self.spec.n_agents

    def _off_term(self, terms: Tensor, valid: Tensor) -> Tensor:
        """The off-policy terms' mean, or their sum: ``[B, T, n]`` -> []."""
        if self.config.off_norm == "norm":
            return self._mean(terms, valid)
        return torch.where(valid, terms.sum(-1), 0.0).sum()

    def _logits(self, episodes: Episodes) -> Tensor:
        """The actors' logits at every observation, ``[B, T+1, n, A]``."""
        return self.agent(episodes.obs, previous_actions(episodes.actions, self.spec))[0]

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: the floor falls, and ``explore_fraction`` starts anew.

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self.epsilon.advance(env_steps)
        self.actor.explored.zero_()


def actor_terms(
    logits: Tensor, q: Tensor, actions: Tensor, avail: Tensor, m: Tensor, floor: float | Tensor
) -> ActorTerms:
    """What eq. 12 averages: logits, q, avail ``[..., n, A]``, actions, m ``[..., n]`` -> ``[..., n]`` each."""
    log_prob, entropy, value = ops.policy_terms(logits, actions, avail, q, floor=floor)
    expected = cast("Tensor", value)
    advantage = m * (pick(q, actions) - expected.detach())  # eq. 5
    return ActorTerms(advantage * log_prob, m * expected, entropy)


def _make_agent(config: EnsembleMixConfig, spec: EnvSpec, precision: Precision) -> nn.Module:
    return RecurrentAgent(
        spec.obs_dim,
        spec.n_actions,
        spec.n_agents,
        config.hidden_dim,
        agent_id=config.agent_id,
        precision=precision,
    )
