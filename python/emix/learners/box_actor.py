"""How agents whose actions are vectors act."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emix.data import EnvSpec, Step
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts
from emix.learners.shared import Memory, initial_memory, scaled
from emix.nn.box_agent import BoxAgent

Choose = Callable[[Tensor, "torch.Generator | None"], Tensor]


class BoxActor(BaseActor):
    """Makes actions of what its agent says of them.

    Args:
        agent: the policies.
        choose: makes numbers in [-1, 1] ``[E, n, D]`` of the agent's ``[E, n, outputs * D]``, at random from the
            generator, or without one the test's.
        generator: of the draws while exploring.
        spec: sizes of the environment.
    """

    def __init__(self, agent: BoxAgent, choose: Choose, generator: torch.Generator, spec: EnvSpec) -> None:
        self.agent, self.choose, self.generator, self.spec = agent, choose, generator, spec
        self.parts = Parts(agent=agent, generator=generator)

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode in each of E environments."""
        return initial_memory(num_envs, self.spec, self.agent.memory_dim, self.generator.device)

    @torch.no_grad()
    def act(self, step: Step, memory: Memory, *, explore: bool) -> Acted:
        """Actions float32 ``[E, n, D]`` within the bounds, and the next memory."""
        numbers, hidden = self.agent(step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        actions = scaled(self.choose(numbers.squeeze(1), self.generator if explore else None), self.spec)
        return Acted(actions, Memory(hidden, actions))


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
