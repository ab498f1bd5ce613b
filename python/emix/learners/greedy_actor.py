"""How agents act that learn values: the value learner's and QTRAN's."""

from __future__ import annotations

import torch
from torch import nn

from emix.data import EnvSpec, Step
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts, Schedule
from emix.learners.shared import Memory, greedy, initial_memory


class EpsilonGreedyActor(BaseActor):
    """Each agent takes its likeliest action, or while exploring, with probability epsilon, any available one.

    Args:
        agent: gives the agents' values.
        epsilon: falls as training goes on.
        generator: of what is random.
        spec: sizes of the environment.
        hidden_dim: of the agent's memory.
    """

    def __init__(
        self, agent: nn.Module, epsilon: Schedule, generator: torch.Generator, spec: EnvSpec, hidden_dim: int
    ) -> None:
        self.agent, self.epsilon, self.generator = agent, epsilon, generator
        self.spec, self.hidden_dim = spec, hidden_dim
        self.parts = Parts(agent=agent, epsilon=epsilon, generator=generator)

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode in each of E environments."""
        return initial_memory(num_envs, self.spec, self.hidden_dim, self.generator.device)

    @torch.no_grad()
    def act(self, step: Step, memory: Memory, *, explore: bool) -> Acted:
        """Choose every agent's action: epsilon-greedy while exploring (SMIX, Algorithm 1, line 6), else greedy.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing random is used.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory.
        """
        q, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        actions = greedy(q.squeeze(1), step.avail)  # [E, n]
        if explore:
            random = self.spec.action.random(tuple(actions.shape), self.generator, step.avail)  # [E, n]
            coins = torch.rand(actions.shape, generator=self.generator, dtype=torch.float32, device=actions.device)
            actions = torch.where(coins < self.epsilon.tensor, random, actions)
        return Acted(actions, Memory(hidden, actions))
