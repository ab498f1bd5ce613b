"""The learners of a run that update together, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Group(Protocol):
    """What a learner's process asks of the others; every process of a group must ask the same in the same order."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes the run's folder."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes; no wait for the device."""
        ...

    def agree(self, value: int) -> int:
        """The largest of the processes' values: how many steps all must make, or 1 where one asks to stop."""
        ...


class Alone:
    """One process, which agrees with itself."""

    first = True

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are."""

    def agree(self, value: int) -> int:
        """The value."""
        return value
