"""Times, launches and bytes of a call, measured the same way for every candidate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from emix.playing.graphs import no_garbage

Call = Callable[[], Any]
CALLS = 20  # of a CUDA graph: launching it takes microseconds, as long as a small op
_LONG = 1e-3  # seconds of a call that hides the launch of a graph of its own
_PATIENCE = 60.0  # seconds


def median_times(
    candidates: Mapping[str, Call], device: torch.device, *, rounds: int = 15, slice_: float = 0.01
) -> dict[str, float]:
    """Median seconds of a call of each candidate.

    The candidates take turns, a slice of at least ``slice_`` seconds each, so that whatever else the machine does hits
    all of them alike. Two calls before each slice are not timed: they pay for what the candidate before left behind,
    memory given back to the system and caches full of its own. A call of more than 0.2 seconds hardly notices and is
    spared them; and after a minute three rounds are enough. On CUDA the time is between two events, host time included
    where the host is the slower side; ``device_times`` has device time alone.
    """
    repeats = {name: _repeats(call, device, slice_) for name, call in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - start > _PATIENCE:
            break
        for name, call in candidates.items():
            if not seconds[name] or seconds[name][-1] < 0.2:
                call()
                call()
            seconds[name].append(_seconds(call, repeats[name], device) / repeats[name])
    return {name: statistics.median(found) for name, found in seconds.items()}


def device_times(
    candidates: Mapping[str, Call], device: torch.device, *, rounds: int = 15, slice_: float = 0.01
) -> dict[str, float]:
    """Median seconds of a call of each candidate on the device alone, by ``median_times``.

    On CUDA they are a graph's of 20 calls, or of one where that takes a millisecond: neither Python nor a launch counts
    but what a GPU needs between two kernels. On the CPU a call is a call.
    """
    if device.type != "cuda":
        return median_times(candidates, device, rounds=rounds, slice_=slice_)
    graphs = {name: repeated(call, device) for name, call in candidates.items()}
    seconds = median_times({name: replay for name, (replay, _) in graphs.items()}, device, rounds=rounds, slice_=slice_)
    return {name: found / graphs[name][1] for name, found in seconds.items()}


def repeated(call: Call, device: torch.device) -> tuple[Call, int]:
    """On CUDA the replay of a graph of 20 calls, or of one where that takes a millisecond, and how many they are."""
    calls = 1 if _seconds(graphed(call, 1), 1, device) > _LONG else CALLS
    return graphed(call, calls), calls


def graphed(call: Call, calls: int) -> Call:
    """The replay of a CUDA graph of so many calls."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # torch asks for a warm-up on a side stream
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with no_garbage(), torch.cuda.graph(graph, stream=side):
        for _ in range(calls):
            call()
    return graph.replay


def launches(call: Call, device: torch.device) -> int:
    """Kernels that one call launches on CUDA; ops that it dispatches on the CPU, views not counted."""
    if device.type == "cuda":
        call()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
        return sum(event.count for event in profile.key_averages() if not event.key.startswith("Memset"))
    with _CountOps() as counter:
        call()
    return counter.count


def size_in_bytes(values: Any) -> int:
    """Bytes of all tensors in a nested tuple, list or dict."""
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, Mapping):
        values = values.values()
    return sum(size_in_bytes(value) for value in values) if isinstance(values, (tuple, list, type({}.values()))) else 0


def copy_of(size: int, device: torch.device) -> Call:
    """The floor of a call that moves ``size`` bytes: a copy that reads half of them and writes the other half."""
    source = torch.ones(max(1, size // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


class _CountOps(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _repeats(call: Call, device: torch.device, slice_: float) -> int:
    call()
    once = max(_seconds(call, 1, device), 1e-7)
    return max(1, round(slice_ / once))


def _seconds(call: Call, repeats: int, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - begin
