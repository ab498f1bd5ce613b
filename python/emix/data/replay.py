"""A ring of whole episodes on the learner's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emix.data.episodes import Episodes
from emix.data.spec import EnvSpec, Field, fields
from emix.data.storage import Steps
from emix.errors import UsageError

_MOST_STEPS = torch.iinfo(torch.int32).max  # what the table can name


class Replay:
    """The latest ``capacity`` episodes: drawn uniformly from a generator of its own, or taken once each, in order.

    Episodes are numbered in the order in which they came: number k lies at ``k % capacity``. What is stored are single
    steps, and a table says which steps an episode has: an episode takes as much memory as it is long, and what another
    leaves is used again. All padding of a sample is step 0 of the storage, which stays zero. What can be computed
    (``valid``, the agents' last actions) is not stored.

    Args:
        capacity: episodes it holds.
        spec: the environment's sizes.
        record: what the actor adds to the fields of an episode.
        device: where it lives; samples come from there. See ``emix.data.storage`` for the memory it takes.
        seed: of the sampling.
        multiple: samples are padded to a multiple of so many steps, so that they have few shapes.

    Raises:
        UsageError: there is no room for ``capacity`` episodes of full length.
    """

    unit = "episode"

    def __init__(
        self,
        capacity: int,
        spec: EnvSpec,
        record: Sequence[Field] = (),
        *,
        device: torch.device | str,
        seed: int,
        multiple: int = 1,
    ) -> None:
        self.capacity = capacity
        self.limit = spec.episode_limit
        self.multiple = multiple
        self.device = torch.device(device)
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.added = 0
        self.taken = 0  # episodes that ``take`` gave out, or passed over when they were overwritten
        count = capacity * (self.limit + 1) + 1
        what = f"buffer_size={capacity} episodes of {spec.name}"
        self.steps = Steps(fields(spec, record), count, self.device, what)
        if count > _MOST_STEPS:
            raise UsageError(f"{what} are {count:,} steps of full length, expected at most {_MOST_STEPS:,}: take fewer")
        # Bookkeeping is done on the CPU: no sample waits for the device.
        self.lengths = torch.zeros(capacity, dtype=torch.int64, device="cpu")
        self.table = torch.zeros(
            capacity, self.limit + 1, dtype=torch.int32, device="cpu"
        )  # the steps of each episode, then 0
        self.free = torch.arange(
            count - 1, 0, -1, dtype=torch.int32, device="cpu"
        )  # a stack, of which num_free are left
        self.num_free = len(self.free)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest episode still held."""
        return self.added - len(self)

    @property
    def bytes(self) -> int:
        """Memory it takes when all episodes have full length."""
        return self.steps.bytes

    @property
    def fresh(self) -> int:
        """Episodes that ``take`` has not given out yet."""
        return self.added - max(self.taken, self.oldest)

    def add(self, episodes: Episodes, lengths: Tensor) -> None:
        """Store B episodes, ``capacity`` at most, over the oldest ones. ``lengths``: int64 ``[B]`` on the CPU."""
        self._store(lengths, episodes.entries(lengths))

    def sample(self, batch: int, *, newest: int | None = None) -> Episodes:
        """``batch`` different episodes, each equally likely, trimmed to the longest of them.

        Args:
            batch: how many.
            newest: draw from so many of the newest episodes, as far as they are held; from all where not given.

        Raises:
            ValueError: fewer than ``batch`` are held, or among the ``newest``.
        """
        held = len(self) if newest is None else min(newest, len(self))
        if batch > held:
            raise ValueError(f"batch expects at most the {held} episodes held, got {batch}")
        first = 0 if newest is None else self.added - held
        return self._episodes(
            (first + torch.randperm(held, generator=self.generator, device="cpu")[:batch]) % self.capacity
        )

    def take(self, count: int) -> Episodes:
        """The oldest ``count`` episodes that were not taken before, in their order: fresh data is used once.

        Raises:
            ValueError: fewer are fresh.
        """
        if count > self.fresh:
            raise ValueError(f"count expects at most the {self.fresh} fresh episodes, got {count}")
        first = max(self.taken, self.oldest)
        self.taken = first + count
        return self._episodes(torch.arange(first, first + count, device="cpu") % self.capacity)

    def export(self, first: int, last: int) -> dict[str, Tensor]:
        """Episodes number ``first`` to ``last - 1`` on the CPU: their ``lengths``, and their steps back to back."""
        place = torch.arange(first, last, device="cpu") % self.capacity
        steps = self.table[place]
        return {"lengths": self.lengths[place], **self.steps.export(steps[steps > 0])}

    def restore(self, first: int, exported: dict[str, Tensor]) -> None:
        """Put back what ``export(first, ...)`` gave; parts must come in order.

        Raises:
            ValueError: it holds what no replay exports.
        """
        lengths = exported["lengths"]
        if len(lengths) and not 0 < lengths.min() <= lengths.max() <= self.limit:
            raise ValueError(f"lengths expects 1 to {self.limit} steps, got {lengths.min()} to {lengths.max()}")
        self.steps.check(exported)
        self.added = first
        self._store(exported["lengths"], exported)

    def _store(self, lengths: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Add episodes whose steps, L + 1 of each, lie back to back in ``rows``."""
        if len(lengths) > self.capacity:
            raise ValueError(f"add expects at most {self.capacity} episodes at a time, got {len(lengths)}")
        place = torch.arange(self.added, self.added + len(lengths), device="cpu") % self.capacity  # [B]
        left = self.table[place]  # [B, limit + 1]
        self._release(left[left > 0])
        taken = self._take(int((lengths + 1).sum()))
        table = torch.zeros_like(left)
        table[torch.arange(self.limit + 1, device="cpu") <= lengths[:, None]] = taken
        self.table[place], self.lengths[place] = table, lengths
        self.steps.write(taken, rows)
        self.added += len(lengths)

    def _release(self, steps: Tensor) -> None:
        self.free[self.num_free : self.num_free + len(steps)] = steps.flip(0)
        self.num_free += len(steps)

    def _take(self, count: int) -> Tensor:
        """Numbers of free steps, those first that were in use last: memory that was never written stays so."""
        self.num_free -= count
        return self.free[self.num_free : self.num_free + count].flip(0)

    def _episodes(self, place: Tensor) -> Episodes:
        """The episodes that lie at ``place`` ``[B]``, padded to one length."""
        longest = int(self.lengths[place].max())
        width = min(self.limit, -(-longest // self.multiple) * self.multiple)
        index = self.table[place, : width + 1].to(self.device)  # [B, T+1]
        valid = torch.arange(width, device="cpu") < self.lengths[place, None]  # [B, T]
        return self.steps.episodes(index, valid.to(self.device))
