"""What playing needs of an actor and training of a learner, and bases with what most of them have in common."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from emix.data import Episodes, Field, Step
from emix.learners.parts import Parts
from emix.learners.plan import Plan


class Acted(NamedTuple):
    """What an actor answers to a step of E environments."""

    actions: Tensor  # [E, n] int64, or [E, n, D] float32
    memory: Any  # what it wants to see again at the next step
    record: dict[str, Tensor] = {}  # noqa: RUF012 - what ``Actor.record`` names, [E, ...] each; nobody changes it


class Actor(Protocol):
    """All that a process needs that only plays."""

    @property
    def record(self) -> tuple[Field, ...]:
        """What each step of it adds to an episode: probability, log_prob, value."""
        ...

    def initial_memory(self, num_envs: int) -> Any:
        """What is carried from step to step, at the start of an episode in each of E environments."""
        ...

    def act(self, step: Step, memory: Any, *, explore: bool) -> Acted:
        """The actions and the next memory; what is random comes from the actor's own generators, and without
        ``explore`` training's are left alone."""
        ...

    def weights(self) -> Tensor:
        """All that acting reads and a learner changes, as one row of bytes: uint8 ``[bytes]``, on the CPU."""
        ...

    def load_weights(self, flat: Tensor, version: int) -> None:
        """Play as the actor that ``flat`` comes from; ``version`` says after how many of its updates."""
        ...


class BaseActor:
    """An actor whose weights are its ``parts``, that remembers and records nothing unless it says so itself."""

    record: tuple[Field, ...] = ()
    parts: Parts

    def initial_memory(self, num_envs: int) -> Any:
        """Nothing."""
        return None

    def weights(self) -> Tensor:
        """All parts as bytes."""
        return self.parts.pack()

    def load_weights(self, flat: Tensor, version: int) -> None:
        """Play as the actor that ``flat`` comes from."""
        self.parts.unpack(flat)


class EpisodeData(Protocol):
    """Where learners draw their batches from: a replay."""

    @property
    def added(self) -> int:
        """How many episodes came to it so far."""
        ...

    def sample(self, batch: int, *, newest: int | None = None) -> Episodes:
        """``batch`` different episodes, each equally likely, of all that are held or of the ``newest``."""
        ...

    def take(self, count: int) -> Episodes:
        """The oldest ``count`` episodes that were not taken before."""
        ...


class Learner(Protocol):
    """An algorithm on one environment; its class is called with (config, spec, device=..., seed=..., precision=...)."""

    device: torch.device  # where its networks and batches live
    capturable: bool  # whether ``act`` and ``update`` can be replayed as CUDA graphs: see ``emix.playing.graphs``

    @property
    def actor(self) -> Actor:
        """Plays with the present networks."""
        ...

    @property
    def plan(self) -> Plan:
        """When it is updated, and from what."""
        ...

    @property
    def parts(self) -> Parts:
        """Everything that decides what comes next: networks, optimisers, targets, schedules, generators."""
        ...

    def draw(self, data: Any) -> Any:
        """The batch that ``update`` wants, from data that holds ``plan.batch_size``: an ``EpisodeData`` or a
        ``emix.data.TransitionReplay``, as ``plan.unit`` says."""
        ...

    def update(self, batch: Any) -> dict[str, Tensor]:
        """One update: 0-dim tensors, with no wait for the device. It may take an ``emix.learners.loop.Loop``."""
        ...

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played: schedules, target copies."""
        ...


class BaseLearner:
    """A learner that draws its batches as its plan says, and follows no schedule unless it says so itself."""

    capturable = False
    plan: Plan

    def draw(self, data: Any) -> Any:
        """``plan.batch_size`` fresh episodes, or any of the replayed episodes or transitions."""
        size = self.plan.batch_size
        return data.take(size) if self.plan.source == "fresh" else data.sample(size)

    def advance(self, env_steps: int, episodes: int) -> None:
        """Nothing follows the steps played."""
