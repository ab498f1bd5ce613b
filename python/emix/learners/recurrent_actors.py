"""How agents of discrete actions act that remember what they saw: by their values, or by policies with a floor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Step
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts, Schedule
from emix.learners.shared import Memory, greedy, initial_memory


class RecurrentActor(BaseActor):
    """Acts on the outputs of ``emix.nn.RecurrentAgent``: the likeliest actions, unless it explores.

    Args:
        agent: gives the agents' values or logits.
        epsilon: how much is explored; falls as training goes on.
        generator: of what is random.
        spec: sizes of the environment.
        hidden_dim: of the agents' memory.
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
        """Choose every agent's action.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing random is used.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory.
        """
        outputs, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        outputs = outputs.squeeze(1)  # [E, n, A]
        actions = self.explore(outputs, step.avail) if explore else greedy(outputs, step.avail)
        return Acted(actions, Memory(hidden, actions))

    def explore(self, outputs: Tensor, avail: Tensor | None) -> Tensor:
        """``[E, n, A]`` -> actions ``[E, n]``."""
        raise NotImplementedError


class EpsilonGreedyActor(RecurrentActor):
    """Each agent takes its likeliest action, or while exploring, with probability epsilon, any available one (SMIX,
    Algorithm 1, line 6)."""

    def explore(self, outputs: Tensor, avail: Tensor | None) -> Tensor:
        """By a coin for each agent."""
        actions = greedy(outputs, avail)
        random = self.spec.action.random(tuple(actions.shape), self.generator, avail)  # [E, n]
        coins = torch.rand(actions.shape, generator=self.generator, dtype=torch.float32, device=actions.device)
        return torch.where(coins < self.epsilon.tensor, random, actions)


class FloorActor(RecurrentActor):
    """Draws from the policies while exploring, whose floor is epsilon."""

    def explore(self, outputs: Tensor, avail: Tensor | None) -> Tensor:
        """From the softmax of the logits, with the floor."""
        return ops.sample_actions(outputs, avail, floor=self.epsilon.tensor, generator=self.generator)
