"""Ensemble-MIX, and DOP beneath it: a decomposed critic of N members, and actors that follow their agents' values.

Danino and Shimkin, "Ensemble-MIX: Enhancing Sample Efficiency in Multi-Agent RL Using Ensemble Methods"; the numbers of
equations and algorithms below are this paper's. DOP (Wang et al. 2021, "DOP: Off-Policy Multi-Agent Decomposed Policy
Gradients") is one member, no bonus, c1 = c2 = 0, on-policy actors: the recipe ``dop``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from emix import ops
from emix.learners import shared
from emix.learners.decomposed_critic import DecomposedCritic
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.episodes import Episodes, EpisodeSource, alike, joined
from emix.learners.loop import Loop, run_loop
from emix.learners.shared import greedy, masked_mean, pick, previous_actions
from emix.nn.agent import RecurrentAgent
from emix.ops.recurrent import Precision

if TYPE_CHECKING:
    from emix.envs.core import EnvSpec, Step


class Batch(NamedTuple):
    """What one update learns from."""

    critics: Episodes  # as many on-policy episodes as ``actors`` has, then the off-policy ones
    actors: Episodes  # for the actors' on-policy term


class ActorTerms(NamedTuple):
    """What eq. 12 averages over states, for each agent ``[..., n]``."""

    on: Tensor  # log pi_i(a_i) U_i(a_i)
    off: Tensor  # m_i E_pi Q_i, agent i's part of the mean of Q_tot over its own actions
    entropy: Tensor


class EnsembleMix:
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
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            self.agent = _make_agent(config, spec, precision).to(self.device)  # theta
            self.critic = DecomposedCritic(config, spec, self.device)
            exploration_seed, test_seed = torch.randint(2**63 - 1, (2,)).tolist()
        self.generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.test_generator = torch.Generator(self.device).manual_seed(test_seed)
        self.optimizer = shared.make_optimizer(config, self.agent, config.lr, self.device)
        self._epsilon = shared.Epsilon(config, self.device)
        self.explored = torch.zeros(2, dtype=torch.int64, device=self.device)  # open gates, actions since ``advance``

    @property
    def epsilon(self) -> float:
        """Floor of the policies, for acting and for learning."""
        return self._epsilon.value

    def initial_memory(self, num_envs: int) -> shared.Memory:
        """The memory at the start of an episode in each of E environments."""
        return shared.initial_memory(num_envs, self.spec, self.config.hidden_dim, self.device)

    @torch.no_grad()
    def act(self, step: Step, memory: shared.Memory, *, explore: bool) -> tuple[Tensor, shared.Memory]:
        """Choose every agent's action: while exploring by algorithm 1, else the likeliest, or as ``test_sample`` says.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing is drawn from there.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory.
        """
        logits, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        logits = logits.squeeze(1)  # [E, n, A]
        if explore:
            action, probability, open_gate = self._explore(step, logits)
            playing = ~step.done.unsqueeze(-1)  # [E, 1]
            self.explored += torch.stack([(open_gate & playing).sum(), playing.expand_as(action).sum()])
            return action, shared.Memory(hidden, action, probability)
        if self.config.test_sample:
            action = ops.sample_actions(logits, step.avail, generator=self.test_generator)
        else:
            action = greedy(logits, step.avail)
        return action, shared.Memory(hidden, action)

    def _explore(self, step: Step, logits: Tensor) -> ops.ExploreActions:
        """Draw from the softmax with the bonus and the floor (algorithm 1; eq. 13 and 14): each result [E, n]."""
        config, avail = self.config, step.avail
        open_gate = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=self.device)
        if config.bonus != "none":
            q = self.critic.members(step.state, step.obs)  # [N, E, n, A]
            if config.bonus == "kurtosis" and config.gate_over == "available":
                return ops.explore_actions(
                    logits, q, avail, bonus=config.beta, floor=self._epsilon.tensor, generator=self.generator
                )
            moments = ops.ensemble_moments(q)  # eq. 6 and 7
            if config.bonus == "kurtosis":
                open_gate = (moments.kurtosis - 3).mean(-1) > 0  # eq. 13 over all actions
                bonus = moments.kurtosis * open_gate.unsqueeze(-1)  # [E, n, A], eq. 14
            else:
                open_gate = ~open_gate
                bonus = moments.variance
            logits = logits + config.beta * bonus * avail
        action = ops.sample_actions(logits, avail, floor=self._epsilon.tensor, generator=self.generator)
        probability = ops.policy_terms(logits, action, avail, floor=self._epsilon.tensor).log_prob.exp()
        return ops.ExploreActions(action, probability, open_gate)

    def draw(self, replay: EpisodeSource, episodes: int) -> Batch:
        """On-policy episodes from the newest ``on_window``, off-policy ones from all, and the newest for the actors.

        Args:
            replay: holds at least ``episodes``.
            episodes: how many off-policy ones, and the most on-policy ones.
        """
        count = min(self.config.on_batch, episodes)
        on = replay.sample(count, newest=self.config.on_window)
        off = replay.sample(episodes)
        newest = replay.sample(count, newest=count)
        if not self.critic.skips_padding:  # one length for all, so that a GPU captures few
            on, off, newest = alike(on, off, newest)
        return Batch(joined(on, off), newest)

    def update(self, batch: Batch, *, loop: Loop = run_loop) -> dict[str, Tensor]:
        """Train the critics by eq. 16, then the actors by eq. 12 (algorithm 2).

        Args:
            batch: what ``draw`` gave.
            loop: runs the critics' optimiser steps; what captures an update records one of them.

        Returns:
            0-dim tensors on the device. The critics': ``loss`` (eq. 16), ``critic_grad_norm`` (before clipping; like
            all of these a mean over the optimiser's steps), ``diversity`` (eq. 15, where c2 is not 0), and over the
            valid steps ``td_error_abs``, ``q_taken_mean``, ``target_mean`` and ``uncertainty_weight_mean`` (eq. 11,
            where c1 is not 0). The actors': ``actor_loss``, ``actor_grad_norm``, ``entropy``; ``explore_fraction``,
            the share of open gates while acting since the last ``advance``.
        """
        config, rows, count = self.config, batch.critics, len(batch.actors)
        on, off = rows[:count], rows[count:]
        with torch.set_grad_enabled(config.actor != "on_policy"):
            off_logits = self._logits(off)  # [B, T+1, n, A]: for the tree backup, and later for the actors
        off_pi = ops.masked_policy(off_logits.detach(), off.avail, self._epsilon.tensor)
        on_pi = None
        if config.on_target == "retrace":
            with torch.no_grad():
                on_pi = ops.masked_policy(self._logits(on), on.avail, self._epsilon.tensor)
        metrics = self.critic.update(rows, count, off_pi, on_pi, loop)
        metrics |= self._update_actors(batch.actors, off, off_logits)
        explored, acted = self.explored
        return metrics | {"explore_fraction": explored / acted.clamp(min=1)}

    def _update_actors(self, newest: Episodes, off: Episodes, off_logits: Tensor) -> dict[str, Tensor]:
        """One step up eq. 12, and up the entropy where that has a weight."""
        config = self.config
        shares = {"mixed": (1 - config.nu, config.nu), "on_policy": (1.0, 0.0), "off_policy": (0.0, 1.0)}
        on_share, off_share = shares[config.actor]
        objective = entropy = torch.zeros((), device=self.device)
        if on_share > 0:
            terms = self._actor_terms(newest, self._logits(newest))
            objective = objective + on_share * self._mean(terms.on, newest.valid)
            entropy = entropy + on_share * masked_mean(terms.entropy.mean(-1), newest.valid)
        if off_share > 0:
            terms = self._actor_terms(off, off_logits)
            objective = objective + off_share * self._mean(terms.off, off.valid)
            entropy = entropy + off_share * masked_mean(terms.entropy.mean(-1), off.valid)
        loss = -objective
        if config.entropy > 0:
            loss = loss - config.entropy * entropy / entropy.detach().clamp(min=1e-8)
        norm = shared.descend(self.optimizer, self.agent, loss, config.grad_norm_clip)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy": entropy.detach()}

    def _actor_terms(self, episodes: Episodes, logits: Tensor) -> ActorTerms:
        """Eq. 12's terms ``[B, T, n]`` by the live critics; logits ``[B, T+1, n, A]``."""
        q, m = self.critic.agents_values(episodes)  # [B, T, n, A], [B, T, n]
        return actor_terms(logits[:, :-1], q, episodes.actions[:, :-1], episodes.avail[:, :-1], m, self._epsilon.tensor)

    def _mean(self, terms: Tensor, valid: Tensor) -> Tensor:
        """The mean over the valid steps of the sum over agents, or the mean over agents, too: ``[B, T, n]`` -> []."""
        total = masked_mean(terms.sum(-1), valid)
        return total if self.config.norm == "bt" else total / self.spec.n_agents

    def _logits(self, episodes: Episodes) -> Tensor:
        """The actors' logits at every observation, ``[B, T+1, n, A]``."""
        return self.agent(episodes.obs, previous_actions(episodes.actions, self.spec.n_actions))[0]

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: the floor falls, and ``explore_fraction`` starts anew.

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self._epsilon.env_steps += env_steps
        self.explored.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides what comes next, flat: after ``load_state_dict`` training goes on bit for bit.

        As in torch, the networks' tensors are the live ones: save or copy them before the next update.
        """
        state: dict[str, Tensor] = {}
        for prefix, networks in self._networks.items():
            state |= {f"{prefix}.{name}": value for name, value in networks.state_dict().items()}
        for prefix, (networks, optimizer) in self._optimizers.items():
            state |= shared.optimizer_state(prefix, optimizer, networks.named_parameters())
        counters = (self._epsilon.env_steps, self.critic.steps, self.critic.target_updated_at)
        state["counters"] = torch.tensor([int(each) for each in counters])
        state["explored"] = self.explored
        state["generator"] = self.generator.get_state()
        state["test_generator"] = self.test_generator.get_state()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a ``state_dict`` of a learner with the same config and environment.

        Raises:
            UsageError: a tensor is missing, unknown or of another shape; nothing is changed then.
        """
        shared.refuse_foreign_state(self.state_dict(), state, self.spec.name)
        for prefix, networks in self._networks.items():
            networks.load_state_dict(shared.section(state, f"{prefix}."))
        for prefix, (networks, optimizer) in self._optimizers.items():
            shared.load_optimizer_state(prefix, optimizer, networks.named_parameters(), state)
        self._epsilon.env_steps, steps, updated_at = state["counters"].tolist()
        self.critic.steps.fill_(steps)
        self.critic.target_updated_at.fill_(updated_at)
        self.explored.copy_(state["explored"])
        self.generator.set_state(state["generator"].cpu())
        self.test_generator.set_state(state["test_generator"].cpu())

    @property
    def _networks(self) -> dict[str, nn.Module]:
        return {"agent": self.agent, "critic": self.critic.networks, "target": self.critic.targets}

    @property
    def _optimizers(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        return {
            "optimizer.agent": (self.agent, self.optimizer),
            "optimizer.critic": (self.critic.networks, self.critic.optimizer),
        }


def actor_terms(
    logits: Tensor, q: Tensor, actions: Tensor, avail: Tensor, m: Tensor, floor: float | Tensor
) -> ActorTerms:
    """What eq. 12 averages: logits, q, avail ``[..., n, A]``, actions, m ``[..., n]`` -> ``[..., n]`` each."""
    log_prob, entropy, expected = ops.policy_terms(logits, actions, avail, q, floor=floor)
    assert expected is not None
    advantage = m * (pick(q, actions) - expected.detach())  # eq. 5
    return ActorTerms(advantage * log_prob, m * expected, entropy)


def _make_agent(config: EnsembleMixConfig, spec: EnvSpec, precision: Precision) -> nn.Module:
    return RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim, precision=precision)
