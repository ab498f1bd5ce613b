"""Ensemble-MIX, and DOP beneath it: a decomposed critic of N members, and actors that follow their agents' values.

Danino and Shimkin, "Ensemble-MIX: Enhancing Sample Efficiency in Multi-Agent RL Using Ensemble Methods"; the numbers of
equations and algorithms below are this paper's. DOP (Wang et al. 2021, "DOP: Off-Policy Multi-Agent Decomposed Policy
Gradients") is one member, no bonus, c1 = c2 = 0, on-policy actors: the recipe ``dop``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Episodes, Field, Step
from emix.data.episodes import joined
from emix.learners.decomposed_critic import DecomposedCritic, make_optimiser
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.learner import Acted, EpisodeData
from emix.learners.parts import Parts, Schedule
from emix.learners.shared import Memory, greedy, initial_memory, masked_mean, pick, previous_actions
from emix.nn.agent import RecurrentAgent
from emix.nn.critic import EnsembleCritic


class Batch(NamedTuple):
    """What one update learns from."""

    critics: Episodes  # as many on-policy episodes as ``actors`` has, then the off-policy ones
    actors: Episodes  # for the actors' on-policy term


class ActorTerms(NamedTuple):
    """What eq. 12 averages over states, for each agent ``[..., n]``."""

    on: Tensor  # log pi_i(a_i) U_i(a_i)
    off: Tensor  # m_i E_pi Q_i, agent i's part of the mean of Q_tot over its own actions
    entropy: Tensor


class EnsembleMixActor:
    """Draws from the policies' softmax with the ensemble's bonus and the floor (algorithm 1).

    Args:
        agent: the policies.
        critic: whose members' disagreement is the bonus.
        epsilon: floor of the policies.
        config: hyperparameters.
        spec: sizes of the environment.
        seeds: of the draws while exploring and in tests.
    """

    def __init__(
        self,
        agent: nn.Module,
        critic: EnsembleCritic,
        epsilon: Schedule,
        config: EnsembleMixConfig,
        spec: EnvSpec,
        seeds: tuple[int, int],
    ) -> None:
        self.agent, self.critic, self.epsilon, self.config, self.spec = agent, critic, epsilon, config, spec
        self.device, self.version = epsilon.tensor.device, 0
        # What the behaviour policy gave each action, for off-policy corrections.
        self.record = (Field("probability", (spec.n_agents,), "float32", "observation"),)
        self.generator, self.test_generator = (torch.Generator(self.device).manual_seed(seed) for seed in seeds)
        self.explored = torch.zeros(2, dtype=torch.int64, device=self.device)  # open gates, actions since ``advance``
        self.parts = Parts(
            agent=agent,
            critic=critic,
            epsilon=epsilon,
            generator=self.generator,
            test_generator=self.test_generator,
        )

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode in each of E environments."""
        return initial_memory(num_envs, self.spec, self.config.hidden_dim, self.device)

    @torch.no_grad()
    def act(self, step: Step, memory: Memory, *, explore: bool) -> Acted:
        """Choose every agent's action: while exploring by algorithm 1, else the likeliest, or as ``test_sample`` says.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing is drawn from there.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), the next memory, and the actions'
            ``probability`` ``[E, n]`` under the behaviour policy; 0 without ``explore``.
        """
        assert step.avail is not None
        logits, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        logits = logits.squeeze(1)  # [E, n, A]
        if explore:
            action, probability, open_gate = self._explore(step, logits)
            playing = ~step.done.unsqueeze(-1)  # [E, 1]
            self.explored += torch.stack([(open_gate & playing).sum(), playing.expand_as(action).sum()])
            return Acted(action, Memory(hidden, action), {"probability": probability})
        if self.config.test_sample:
            action = ops.sample_actions(logits, step.avail, generator=self.test_generator)
        else:
            action = greedy(logits, step.avail)
        return Acted(action, Memory(hidden, action), {"probability": torch.zeros_like(action, dtype=torch.float32)})

    def weights(self) -> Tensor:
        """Policies, critics, floor and generators as bytes."""
        return self.parts.pack()

    def load_weights(self, flat: Tensor, version: int) -> None:
        """Play as the actor that ``flat`` comes from."""
        self.parts.unpack(flat)
        self.version = version

    def _explore(self, step: Step, logits: Tensor) -> ops.ExploreActions:
        """Draw from the softmax with the bonus and the floor (algorithm 1; eq. 13 and 14): each result [E, n]."""
        config, avail = self.config, step.avail
        assert avail is not None
        open_gate = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=self.device)
        if config.bonus != "none":
            q = self.critic(step.state, step.obs)  # [N, E, n, A]
            if config.bonus == "kurtosis" and config.gate_over == "available":
                return ops.explore_actions(
                    logits, q, avail, bonus=config.beta, floor=self.epsilon.tensor, generator=self.generator
                )
            moments = ops.ensemble_moments(q)  # eq. 6 and 7
            if config.bonus == "kurtosis":
                open_gate = (moments.kurtosis - 3).mean(-1) > 0  # eq. 13 over all actions
                bonus = moments.kurtosis * open_gate.unsqueeze(-1)  # [E, n, A], eq. 14
            else:
                open_gate = ~open_gate
                bonus = moments.variance
            logits = logits + config.beta * bonus * avail
        action = ops.sample_actions(logits, avail, floor=self.epsilon.tensor, generator=self.generator)
        probability = ops.policy_terms(logits, action, avail, floor=self.epsilon.tensor).log_prob.exp()
        return ops.ExploreActions(action, probability, open_gate)


class EnsembleMix:
    """Learns Q_tot = sum_i m_i(s) Q_i(s, o_i, a_i) by N critics, and one policy for all agents.

    ``update`` is a function of fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can
    capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of all draws; torch's global random state is neither used nor changed.
    """

    capturable = True

    def __init__(self, config: EnsembleMixConfig, spec: EnvSpec, *, device: torch.device | str, seed: int) -> None:
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            self.agent = _make_agent(config, spec).to(self.device)  # theta
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
        return Batch(joined(on, off), data.sample(count, newest=count))

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Train the critics by eq. 16, then the actors by eq. 12 (algorithm 2).

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
        off_pi = ops.masked_policy(off_logits.detach(), off.avail, self.epsilon.tensor)
        on_pi = None
        if config.on_target == "retrace":
            with torch.no_grad():
                on_pi = ops.masked_policy(self._logits(on), on.avail, self.epsilon.tensor)
        metrics = self.critic.update(rows, count, off_pi, on_pi) | self._update_actors(batch.actors, off, off_logits)
        explored, acted = self.actor.explored
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
        norm = self.optimiser.descend(loss)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy": entropy.detach()}

    def _actor_terms(self, episodes: Episodes, logits: Tensor) -> ActorTerms:
        """Eq. 12's terms ``[B, T, n]`` by the live critics; logits ``[B, T+1, n, A]``."""
        q, m = self.critic.agents_values(episodes)  # [B, T, n, A], [B, T, n]
        return actor_terms(logits[:, :-1], q, episodes.actions[:, :-1], episodes.avail[:, :-1], m, self.epsilon.tensor)

    def _mean(self, terms: Tensor, valid: Tensor) -> Tensor:
        """The mean over the valid steps of the sum over agents, or the mean over agents, too: ``[B, T, n]`` -> []."""
        total = masked_mean(terms.sum(-1), valid)
        return total if self.config.norm == "bt" else total / self.spec.n_agents

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
    log_prob, entropy, expected = ops.policy_terms(logits, actions, avail, q, floor=floor)
    assert expected is not None
    advantage = m * (pick(q, actions) - expected.detach())  # eq. 5
    return ActorTerms(advantage * log_prob, m * expected, entropy)


def _make_agent(config: EnsembleMixConfig, spec: EnvSpec) -> nn.Module:
    return RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim)
