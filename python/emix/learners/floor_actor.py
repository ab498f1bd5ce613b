"""How agents act whose policies of discrete actions have a floor: COMA's and ADER's."""

from __future__ import annotations

import torch
from torch import nn

from emix import ops
from emix.data import EnvSpec, Step
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts, Schedule
from emix.learners.shared import Memory, greedy, initial_memory


class FloorActor(BaseActor):
    """Draws from the policies with their floor while exploring; in tests takes the likeliest actions.

    Args:
        agent: the policies.
        epsilon: their floor.
        generator: of the draws.
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
        """Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory."""
        logits, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        logits = logits.squeeze(1)  # [E, n, A]
        if explore:
            actions = ops.sample_actions(logits, step.avail, floor=self.epsilon.tensor, generator=self.generator)
        else:
            actions = greedy(logits, step.avail)
        return Acted(actions, Memory(hidden, actions))
