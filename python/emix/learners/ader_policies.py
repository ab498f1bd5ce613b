"""What ADER's update asks of its policies, whatever actions are: ``ader_discrete`` and ``ader_gaussian`` answer."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from emix.data import Episodes
from emix.learners.ader_critics import Critics, TwinCritic
from emix.learners.learner import Actor
from emix.learners.parts import Schedule


class Improvement(NamedTuple):
    """What the policies are to maximise, at every step of a batch."""

    gain: Tensor  # [B, T], with the gradient of ``value`` by the policies
    value: Tensor  # [B, T], without: what eq. 12 says of the step
    slope: Tensor  # [B, T, n]: the metric of eq. 14


class Policies(Protocol):
    """The policies of all agents, and the shape of their utilities."""

    @property
    def agent(self) -> nn.Module:
        """The policies' network."""
        ...

    def make_utilities(self) -> nn.Module:
        """Two members of what a critic is made of."""
        ...

    def make_actor(self, epsilon: Schedule, generator: torch.Generator) -> Actor:
        """What plays; it draws from ``generator``, and ``policies`` may, too."""
        ...

    def policies(self, batch: Episodes) -> Any:
        """The policies at every observation; ``.entropy`` ``[B, T+1, n]`` is theirs, or a sample of it, detached."""
        ...

    def expected(self, critic: TwinCritic, batch: Episodes, policies: Any) -> Tensor:
        """The agents' values under the policies, ``[2, B, T+1, n]``, no gradient wanted."""
        ...

    def taken(self, critic: TwinCritic, batch: Episodes) -> Tensor:
        """The agents' values of the actions that were taken, ``[2, B, T, n]``."""
        ...

    def active(self, batch: Episodes) -> Tensor:
        """Where an agent can choose, bool ``[B, T, n]``."""
        ...

    def improve(self, critics: Critics, batch: Episodes, policies: Any, alpha: Tensor) -> Improvement:
        """Eq. 12, with the metric; alpha ``[n]``."""
        ...
