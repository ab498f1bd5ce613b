"""A ring of single transitions on the learner's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emix.data.episodes import Episodes
from emix.data.spec import EnvSpec, Field, fields
from emix.data.storage import Steps


class TransitionReplay:
    """The latest ``capacity`` transitions; uniform sampling with replacement from a generator of its own.

    Transitions are numbered in the order in which they came. The steps of an episode lie one behind the other in a
    ring, so that the observation a transition leads to is the step after it, stored once. An episode has a step more
    than transitions: in the worst case, episodes of one step, the ring is twice as long as ``capacity``.

    Args:
        capacity: transitions it holds.
        spec: the environment's sizes.
        record: what the actor adds to the fields of an episode.
        device: where it lives; samples come from there. See ``emix.data.storage`` for the memory it takes.
        seed: of the sampling.

    Raises:
        UsageError: there is no room for ``capacity`` transitions.
    """

    unit = "transition"

    def __init__(
        self, capacity: int, spec: EnvSpec, record: Sequence[Field] = (), *, device: torch.device | str, seed: int
    ) -> None:
        self.capacity = capacity
        self.device = torch.device(device)
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.added = 0
        self.rows = 2 * capacity
        self.next_row = 0
        what = f"buffer_size={capacity} transitions of {spec.name}"
        self.steps = Steps(fields(spec, record), self.rows, self.device, what)
        # Bookkeeping is done on the CPU: no sample waits for the device.
        self.row = torch.zeros(capacity, dtype=torch.int64, device="cpu")  # of transition k at k % capacity

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest transition still held."""
        return self.added - len(self)

    @property
    def bytes(self) -> int:
        """Memory it takes when all of it is in use."""
        return self.steps.bytes

    def add(self, episodes: Episodes, lengths: Tensor) -> None:
        """Store the transitions of B episodes, ``capacity`` at most, over the oldest ones.

        Args:
            episodes: B of them.
            lengths: int64 ``[B]`` on the CPU.
        """
        ends = (lengths + 1).cumsum(0)  # [B]: where each episode's entries end
        first = torch.ones(
            int(ends[-1]), dtype=torch.bool, device="cpu"
        )  # of each entry, whether a transition starts there
        first[ends - 1] = False
        self._store(first.nonzero()[:, 0], episodes.entries(lengths))

    def sample(self, batch: int) -> Episodes:
        """``batch`` transitions, drawn independently of each other, as episodes of one step.

        Raises:
            ValueError: none is held.
        """
        if not len(self):
            raise ValueError("sample expects a replay that holds a transition, got an empty one")
        number = self.oldest + torch.randint(len(self), (batch,), generator=self.generator, device="cpu")
        row = self.row[number % self.capacity]
        index = torch.stack([row, (row + 1) % self.rows], dim=1).to(self.device)  # [B, 2]
        return self.steps.episodes(index, torch.ones(batch, 1, dtype=torch.bool, device=self.device))

    def export(self, first: int, last: int) -> dict[str, Tensor]:
        """Transitions number ``first`` to ``last - 1`` on the CPU: which entries they begin at, and the entries."""
        row = self.row[torch.arange(first, last, device="cpu") % self.capacity]
        offsets = (row - row[0]) % self.rows  # [transitions]
        entries = (row[0] + torch.arange(int(offsets[-1]) + 2, device="cpu")) % self.rows
        return {"offsets": offsets, **self.steps.export(entries)}

    def restore(self, first: int, exported: dict[str, Tensor]) -> None:
        """Put back what ``export(first, ...)`` gave; parts must come in order.

        Raises:
            ValueError: it holds what no replay exports.
        """
        self.steps.check(exported)
        self.added = first
        self._store(exported["offsets"], exported)

    def _store(self, offsets: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add transitions that begin at the entries ``offsets`` of ``values`` ``[entries, ...]``."""
        count = len(values["obs"])
        if len(offsets) > self.capacity:
            raise ValueError(f"add expects at most {self.capacity} transitions at a time, got {len(offsets)}")
        self.steps.write((self.next_row + torch.arange(count, device="cpu")) % self.rows, values)
        number = torch.arange(self.added, self.added + len(offsets), device="cpu")
        self.row[number % self.capacity] = (self.next_row + offsets) % self.rows
        self.next_row = (self.next_row + count) % self.rows
        self.added += len(offsets)
