"""How Ensemble-MIX's and DOP's agents act; the numbers of equations are those of ``emix.learners.ensemble_mix``."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Field, Step
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts, Schedule
from emix.learners.shared import Memory, greedy, initial_memory
from emix.nn.critic import EnsembleCritic


class EnsembleMixActor(BaseActor):
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
        self.device = epsilon.tensor.device
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
            action = greedy(logits, cast("Tensor", step.avail))
        return Acted(action, Memory(hidden, action), {"probability": torch.zeros_like(action, dtype=torch.float32)})

    def _explore(self, step: Step, logits: Tensor) -> ops.ExploreActions:
        """Draw from the softmax with the bonus and the floor (algorithm 1; eq. 13 and 14): each result [E, n]."""
        config, avail = self.config, cast("Tensor", step.avail)
        open_gate = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=self.device)
        if config.bonus != "none":
            q = self.critic(step.state, step.obs)  # [N, E, n, A]
            if config.bonus == "kurtosis" and config.gate_over == "available" and config.bonus_limit is None:
                return ops.explore_actions(
                    logits, q, avail, bonus=config.beta, floor=self.epsilon.tensor, generator=self.generator
                )
            moments = ops.ensemble_moments(q)  # eq. 6 and 7
            if config.bonus == "kurtosis":
                excess = moments.kurtosis - 3  # [E, n, A]
                # Eq. 13: only the sign of the mean matters.
                open_gate = (excess if config.gate_over == "all" else excess * avail).sum(-1) > 0
                bonus = moments.kurtosis * open_gate.unsqueeze(-1)  # [E, n, A], eq. 14
            else:
                open_gate = ~open_gate
                bonus = moments.variance
            bonus = config.beta * bonus
            if config.bonus_limit is not None:
                bonus = bonus.clamp(-config.bonus_limit, config.bonus_limit)
            logits = logits + bonus * avail
        action = ops.sample_actions(logits, avail, floor=self.epsilon.tensor, generator=self.generator)
        probability = ops.policy_terms(logits, action, avail, floor=self.epsilon.tensor).log_prob.exp()
        return ops.ExploreActions(action, probability, open_gate)
