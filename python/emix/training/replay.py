"""A ring of whole episodes on the learner's device."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.envs.core import EnvSpec
from emix.errors import UsageError
from emix.learners.episodes import Episodes

FIELDS = ("obs", "state", "avail", "actions", "reward", "terminated", "truncated", "valid")


class Replay:
    """The latest ``capacity`` episodes; uniform sampling without replacement from a generator of its own.

    Episodes are numbered in the order in which they came: number k lies at ``k % capacity``. On the CPU the storage is
    virtual memory that the system hands out when it is written, so that a replay takes what its episodes need; on a GPU
    it is all taken at the start, so that one that does not fit fails there and not hours later.

    Args:
        capacity: episodes it holds.
        spec: the environment's sizes.
        device: where it lives; samples come from there.
        seed: of the sampling.

    Raises:
        UsageError: the full replay is larger than the memory of its device.
    """

    def __init__(self, capacity: int, spec: EnvSpec, *, device: torch.device | str, seed: int) -> None:
        self.capacity = capacity
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.added = 0
        b, t, n = capacity, spec.episode_limit, spec.n_agents
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "obs": ((b, t + 1, n, spec.obs_dim), np.float32),
            "state": ((b, t + 1, spec.state_dim), np.float32),
            "avail": ((b, t + 1, n, spec.n_actions), np.bool_),
            "actions": ((b, t + 1, n), np.int64),
            "reward": ((b, t), np.float32),
            "terminated": ((b, t), np.bool_),
            "truncated": ((b, t), np.bool_),
            "valid": ((b, t), np.bool_),
        }
        self.bytes = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
        if self.bytes > (available := _device_memory(self.device)):
            raise UsageError(
                f"buffer_episodes={capacity} episodes of {spec.name} need {self.bytes / 2**30:.1f} GiB, "
                f"but {self.device} has {available / 2**30:.1f} GiB: take fewer"
            )
        self.lengths = torch.zeros(capacity, dtype=torch.int64)  # on the CPU: trimming a sample waits for no device
        # numpy asks the system for zeroed pages, which cost nothing until written; torch.zeros writes them.
        zeros: dict[str, Any] = {
            name: torch.from_numpy(np.zeros(shape, dtype))
            if self.device.type == "cpu"
            else torch.zeros(shape, dtype=getattr(torch, np.dtype(dtype).name), device=self.device)
            for name, (shape, dtype) in shapes.items()
        }
        self.storage = Episodes(**zeros, batch_size=[capacity])

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest episode still held."""
        return self.added - len(self)

    def add(self, episodes: Episodes, lengths: Tensor) -> None:
        """Store B <= capacity episodes over the oldest ones. ``lengths``: int64 ``[B]`` on the CPU."""
        count = len(lengths)
        place = torch.arange(self.added, self.added + count) % self.capacity  # [B]
        used = int(self.lengths[place].max())  # what lies beyond the previous episodes' ends is still zero
        index = place.to(self.device)
        for name in FIELDS:
            stored, new = getattr(self.storage, name), getattr(episodes, name)
            width = new.shape[1]
            stored[index, :width] = new
            if width <= used:
                stored[index, width : used + 1] = 0
        self.lengths[place] = lengths
        self.added += count

    def sample(self, batch: int) -> Episodes:
        """``batch`` different episodes, each equally likely, trimmed to the longest of them.

        Raises:
            ValueError: fewer than ``batch`` are held.
        """
        if batch > len(self):
            raise ValueError(f"batch expects at most the {len(self)} episodes held, got {batch}")
        place = torch.randperm(len(self), generator=self.generator)[:batch]  # [B]
        longest = int(self.lengths[place].max())
        return self.storage.trim(longest)[place.to(self.device)]

    def export(self, first: int, last: int) -> dict[str, Tensor]:
        """Episodes number ``first`` to ``last - 1`` with their ``lengths``, on the CPU, trimmed to the longest."""
        place = torch.arange(first, last) % self.capacity
        lengths = self.lengths[place]
        episodes = self.storage.trim(int(lengths.max()))[place.to(self.device)]
        return {"lengths": lengths, **{name: getattr(episodes, name).cpu() for name in FIELDS}}

    def restore(self, first: int, exported: dict[str, Tensor]) -> None:
        """Put back what ``export(first, ...)`` gave; parts must come in order."""
        lengths = exported["lengths"]
        self.added = first
        fields: dict[str, Any] = {name: exported[name].to(self.device) for name in FIELDS}
        self.add(Episodes(**fields, batch_size=[len(lengths)]), lengths)


def _device_memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
