"""A ring of whole episodes on the learner's device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emix.envs.core import EnvSpec
from emix.errors import UsageError
from emix.learners.episodes import Episodes
from emix.training.storage import Shape, size_of, zeros

FIELDS = ("obs", "state", "avail", "actions", "reward", "terminated", "truncated", "probability")


class Replay:
    """The latest ``capacity`` episodes; uniform sampling without replacement from a generator of its own.

    Episodes are numbered in the order in which they came: number k lies at ``k % capacity``. What is stored are single
    steps, and a table says which steps an episode has: an episode takes as much memory as it is long, and what another
    leaves is used again. All padding of a sample is step 0 of the storage, which stays zero. Actions are stored in a
    byte each where they fit, what can be computed (``valid``, the agents' last actions) not at all.

    Args:
        capacity: episodes it holds.
        spec: the environment's sizes.
        device: where it lives; samples come from there. See ``emix.training.storage`` for the memory it takes.
        seed: of the sampling.
        multiple: samples are padded to a multiple of so many steps, so that they have few shapes.

    Raises:
        UsageError: there is no room for ``capacity`` episodes of full length.
    """

    def __init__(
        self, capacity: int, spec: EnvSpec, *, device: torch.device | str, seed: int, multiple: int = 1
    ) -> None:
        self.capacity = capacity
        self.limit = spec.episode_limit
        self.multiple = multiple
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.added = 0
        count, n = capacity * (self.limit + 1) + 1, spec.n_agents
        shapes: dict[str, Shape] = {
            "obs": ((count, n, spec.obs_dim), np.float32),
            "state": ((count, spec.state_dim), np.float32),
            "avail": ((count, n, spec.n_actions), np.bool_),
            "actions": ((count, n), np.uint8 if spec.n_actions <= 256 else np.int16),
            "reward": ((count,), np.float32),
            "terminated": ((count,), np.bool_),
            "truncated": ((count,), np.bool_),
            "probability": ((count, n), np.float32),
        }
        self.bytes = sum(map(size_of, shapes.values()))
        try:
            self.steps = zeros(shapes, self.device)  # [steps, ...] each
        except MemoryError as error:
            raise UsageError(
                f"buffer_episodes={capacity} episodes of {spec.name} need {self.bytes / 2**30:.1f} GiB, "
                f"but {error}: take fewer"
            ) from error
        # Bookkeeping is done on the CPU: no sample waits for the device.
        self.lengths = torch.zeros(capacity, dtype=torch.int64)
        self.table = torch.zeros(capacity, self.limit + 1, dtype=torch.int32)  # the steps of each episode, then 0
        self.free = torch.arange(count - 1, 0, -1, dtype=torch.int32)  # a stack, of which num_free are left
        self.num_free = len(self.free)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest episode still held."""
        return self.added - len(self)

    def add(self, episodes: Episodes, lengths: Tensor) -> None:
        """Store B <= capacity episodes over the oldest ones. ``lengths``: int64 ``[B]`` on the CPU."""
        width = episodes.obs.shape[1]
        real = (torch.arange(width) <= lengths[:, None]).flatten().nonzero()[:, 0].to(self.device)  # [steps]
        rows = {}
        for name in FIELDS:
            field = getattr(episodes, name)
            if field.shape[1] < width:  # [B, T]: the last observation has no reward and no flags
                field = torch.nn.functional.pad(field, (0, 1))
            rows[name] = field.flatten(0, 1).index_select(0, real)  # [steps, ...]
        self._store(lengths, rows)

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
        return self._episodes((first + torch.randperm(held, generator=self.generator)[:batch]) % self.capacity)

    def export(self, first: int, last: int) -> dict[str, Tensor]:
        """Episodes number ``first`` to ``last - 1`` on the CPU: their ``lengths``, and their steps back to back."""
        place = torch.arange(first, last) % self.capacity
        steps = self.table[place]
        steps = steps[steps > 0].to(self.device)
        return {
            "lengths": self.lengths[place],
            **{name: stored.index_select(0, steps).cpu() for name, stored in self.steps.items()},
        }

    def restore(self, first: int, exported: dict[str, Tensor]) -> None:
        """Put back what ``export(first, ...)`` gave; parts must come in order."""
        self.added = first
        self._store(exported["lengths"], {name: exported[name].to(self.device) for name in FIELDS})

    def _store(self, lengths: Tensor, rows: dict[str, Tensor]) -> None:
        """Add episodes whose steps, L + 1 of each, lie back to back in ``rows``."""
        place = torch.arange(self.added, self.added + len(lengths)) % self.capacity  # [B]
        left = self.table[place]  # [B, limit + 1]
        self._release(left[left > 0])
        taken = self._take(int((lengths + 1).sum()))
        table = torch.zeros_like(left)
        table[torch.arange(self.limit + 1) <= lengths[:, None]] = taken
        self.table[place], self.lengths[place] = table, lengths
        index = taken.to(self.device, torch.int64)
        for name, stored in self.steps.items():
            stored.index_copy_(0, index, rows[name].to(stored.dtype))
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
        valid = torch.arange(width) < self.lengths[place, None]  # [B, T]

        def entries(name: str, index: Tensor) -> Tensor:
            return self.steps[name].index_select(0, index.flatten()).unflatten(0, index.shape)

        return Episodes(
            obs=entries("obs", index),
            state=entries("state", index),
            avail=entries("avail", index),
            actions=entries("actions", index).long(),
            reward=entries("reward", index[:, :-1]),
            terminated=entries("terminated", index[:, :-1]),
            truncated=entries("truncated", index[:, :-1]),
            valid=valid.to(self.device),
            probability=entries("probability", index),
            batch_size=[len(place)],
        )
