"""An actor that knows nothing: what a run plays with before its learner has seen anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from emix.data import EnvSpec, Field, Step
from emix.learners.learner import Acted


class RandomActor:
    """Uniform actions, among those that are available.

    Args:
        spec: sizes of the environment.
        record: what the learner's actor declares; the episodes played here have zeros there.
        device: the environment's.
        seed: of a generator of its own.
    """

    def __init__(self, spec: EnvSpec, record: Sequence[Field] = (), *, device: torch.device | str, seed: int) -> None:
        self.spec, self.record = spec, tuple(record)
        self.generator = torch.Generator(device).manual_seed(seed)

    def initial_memory(self, num_envs: int) -> None:
        """Nothing is remembered."""
        return

    def act(self, step: Step, memory: None, *, explore: bool) -> Acted:
        """Draw every agent's action, with ``explore`` and without."""
        num_envs, n_agents, _ = step.obs.shape
        actions = self.spec.action.random((num_envs, n_agents), self.generator, step.avail)  # [E, n] or [E, n, D]
        record = {
            field.name: torch.zeros(num_envs, *field.shape, dtype=getattr(torch, field.dtype), device=step.obs.device)
            for field in self.record
        }
        return Acted(actions, None, record)
