"""What the training loop needs of a learner, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from emix.learners.episodes import EpisodeSource

if TYPE_CHECKING:
    from emix.envs.core import Step


class Learner(Protocol):
    """An algorithm on one environment; its class is called with (config, spec, device=..., seed=..., precision=...)."""

    device: torch.device  # where its networks and batches live
    capturable: bool  # whether ``act`` and ``update`` can be replayed as CUDA graphs: see ``emix.training.captured``

    @property
    def epsilon(self) -> float:
        """What the log shows of the exploration."""
        ...

    def initial_memory(self, num_envs: int) -> Any:
        """What the agents carry, at the start of an episode in each of E environments: any object."""
        ...

    def act(self, step: Step, memory: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Actions int64 [E, n] and the next memory; what is random comes from the learner's own generators."""
        ...

    def draw(self, replay: EpisodeSource, episodes: int) -> Any:
        """The batch that ``update`` wants, from a replay that holds at least ``episodes``."""
        ...

    def update(self, batch: Any) -> dict[str, Tensor]:
        """One update: 0-dim tensors, with no wait for the device. It may take an ``emix.learners.loop.Loop``."""
        ...

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played: schedules, target copies."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides what comes next, flat."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state_dict`` bit for bit; ``UsageError`` where it is another's."""
        ...
