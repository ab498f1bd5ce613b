"""Steps of episodes in tensors of any size, of which only what is written takes memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data.episodes import Episodes
from emix.data.spec import Field
from emix.errors import UsageError

Shape = tuple[tuple[int, ...], str]  # sizes and dtype

# Of a machine's memory, how much storage may promise to hold: networks, batches and the system need the rest.
SHARE = 0.75


class Steps:
    """``count`` steps of episodes, each a row ``[count, ...]`` of every field; all zero at first.

    Args:
        table: the fields, as ``emix.data.fields`` gives them.
        count: rows.
        device: where they live.
        what: for the message.

    Raises:
        UsageError: there is no room.
    """

    def __init__(self, table: Sequence[Field], count: int, device: torch.device, what: str) -> None:
        self.table, self.device = table, device
        shapes: dict[str, Shape] = {field.name: ((count, *field.shape), field.stored) for field in table}
        self.bytes = sum(map(size_of, shapes.values()))
        try:
            self.tensors = zeros(shapes, device)
        except MemoryError as error:
            raise UsageError(f"{what} need {self.bytes / 2**30:.1f} GiB, but {error}: take fewer") from error

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Put ``values`` ``[R, ...]`` of each field at ``rows`` ``[R]``."""
        index = rows.to(self.device, torch.int64)
        for name, stored in self.tensors.items():
            stored.index_copy_(0, index, values[name].to(self.device, stored.dtype))

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Raise ValueError where ``values`` ``[R, ...]`` on the CPU, which a file holds, have an index out of range."""
        for field in self.table:
            given = values[field.name]
            if field.choices is None or not given.numel():
                continue
            low, high = int(given.min()), int(given.max())  # as tensors, their small dtype might not have the bound
            if low < 0 or high >= field.choices:
                raise ValueError(f"{field.name} expects numbers from 0 to {field.choices - 1}, got {low} to {high}")

    def episodes(self, index: Tensor, valid: Tensor) -> Episodes:
        """The rows ``[B, T+1]`` as B episodes, ``valid`` ``[B, T]`` of them."""

        def read(field: Field) -> Tensor:
            entries = index if field.at == "observation" else index[:, :-1]
            values = self.tensors[field.name].index_select(0, entries.flatten()).unflatten(0, entries.shape)
            return values.to(getattr(torch, field.dtype))

        return Episodes.of({field.name: read(field) for field in self.table}, valid)

    def export(self, rows: Tensor) -> dict[str, Tensor]:
        """The rows ``[R]`` of each field as they are stored, on the CPU."""
        index = rows.to(self.device)
        return {name: stored.index_select(0, index).cpu() for name, stored in self.tensors.items()}


def size_of(shape: Shape) -> int:
    """Bytes of a tensor of that shape."""
    sizes, dtype = shape
    return int(np.prod(sizes, dtype=object)) * np.dtype(dtype).itemsize


def zeros(shapes: Mapping[str, Shape], device: torch.device) -> dict[str, Tensor]:
    """A zeroed tensor of each shape, written row by row later.

    On a GPU all memory is taken at once, so that what does not fit fails now and not hours later. On the CPU the system
    hands memory out when it is written. Where the whole would not fit into memory it lies in a file without a name
    under ``TMPDIR`` (``/var/tmp``), which the system keeps in memory as far as there is room; the process's end
    removes it.

    Raises:
        MemoryError: neither memory nor disk has the room; the message says how much there is.
    """
    needed, memory = sum(map(size_of, shapes.values())), memory_of(device)
    if device.type != "cpu":
        if needed > memory:
            raise MemoryError(f"{device} has {_gib(memory)}")
        return {
            name: torch.zeros(sizes, dtype=getattr(torch, np.dtype(dtype).name), device=device)
            for name, (sizes, dtype) in shapes.items()
        }
    if needed <= SHARE * memory:
        return {name: torch.from_numpy(_fresh_pages(shape)) for name, shape in shapes.items()}
    return {name: torch.from_numpy(array) for name, array in _in_a_file(shapes, needed, memory).items()}


def _fresh_pages(shape: Shape) -> np.ndarray[Any, Any]:
    """Pages of the system's own: torch.zeros would write them, and NumPy those that lie in memory freed before."""
    sizes, dtype = shape
    pages = mmap.mmap(-1, max(1, size_of(shape)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype, count=int(np.prod(sizes))).reshape(sizes)


def _in_a_file(shapes: Mapping[str, Shape], needed: int, memory: int) -> dict[str, np.ndarray[Any, Any]]:
    folder = os.environ.get("TMPDIR", "/var/tmp")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, needed)  # a disk that fills up later cannot hurt
            arrays: dict[str, np.ndarray[Any, Any]] = {}
            offset = 0
            for name, (sizes, dtype) in sorted(shapes.items(), key=lambda item: -np.dtype(item[1][1]).itemsize):
                arrays[name] = np.memmap(file, dtype, "r+", offset, sizes)
                offset += size_of((sizes, dtype))
            return arrays
    except (OSError, OverflowError) as error:
        raise MemoryError(f"cpu has {_gib(memory)} and no file of that size fits into {folder} ({error})") from error


def memory_of(device: torch.device) -> int:
    """Bytes of memory that the device has in all, or that this process may use of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:  # a container's limit, or "max"
            return min(physical, int(file.read()))
    except (OSError, ValueError):
        return physical


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
