"""CUDA graphs of calls, on one device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emix.learners.loop import run_loop

Call = Callable[[], Mapping[str, Tensor]]


class Recorder(Protocol):
    """Turns calls into something that runs again on the same tensors."""

    def warm_up(self, call: Call) -> Mapping[str, Tensor]:
        """Run the call once, as it is."""

    def record(self, call: Call) -> Call:
        """Record the call without running it. What is returned runs it; its result lives until the next run."""

    def loop(self, body: Callable[[], None], times: int) -> None:
        """``emix.learners.loop.run_loop`` for what is recorded: the body is recorded once and run so many times."""


class CudaGraphs:
    """Graphs that share one pool of memory: none runs beside another, and no result outlives the next replay.

    Args:
        learner: whose generators' numbers go on from replay to replay.
        device: where everything runs, whatever the current device is.
    """

    def __init__(self, learner: Any, device: torch.device) -> None:
        generators = values_within(learner, torch.Generator).values()
        self.generators = [generator for generator in generators if generator.device.type == "cuda"]
        self.device = device
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            # Not torch.cuda.graph's own, which lies on the device of the process's first capture.
            self.stream = torch.cuda.Stream()
        self.recording: _Recording | None = None

    def warm_up(self, call: Call) -> Mapping[str, Tensor]:
        """Run on a side stream, as torch asks for."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                results = call()
            current.wait_stream(self.stream)
        return results

    def record(self, call: Call) -> Call:
        """The call as graphs that follow each other: a loop's body is one, and what lies before and after it."""
        recording = _Recording(self)
        # The stream is set here, too: a capture that fails does not set back the one before it.
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream), no_garbage(), recording:
            recording.begin(times=1)
            self.recording = recording
            try:
                results = call()
            finally:
                self.recording = None
        with torch.cuda.device(self.device):
            # On its stream a capture puts zero where graphs read how far the generators are; replays run on this one.
            torch.cuda.current_stream().wait_stream(self.stream)

        def replay() -> Mapping[str, Tensor]:
            with torch.cuda.device(self.device):
                for graph, times in recording.graphs:
                    for _ in range(times):
                        graph.replay()
            return results

        return replay

    def loop(self, body: Callable[[], None], times: int) -> None:
        """See ``Recorder``. What the body reads of what was made before the loop must be held until its end."""
        if (recording := self.recording) is None:
            run_loop(body, times)
            return
        self.recording = None  # a loop inside the body is recorded as often as it runs
        recording.begin(times)
        body()
        recording.begin(times=1)
        self.recording = recording


class _Recording(ExitStack):
    """Captures that follow each other; leaving it ends the last one."""

    def __init__(self, owner: CudaGraphs) -> None:
        super().__init__()
        self.owner = owner
        self.graphs: list[tuple[torch.cuda.CUDAGraph, int]] = []  # each with how many times it is replayed

    def begin(self, times: int) -> None:
        """End the capture that is under way, and begin the next one."""
        self.close()
        graph = torch.cuda.CUDAGraph()
        for generator in self.owner.generators:
            graph.register_generator_state(generator)
        self.graphs.append((graph, times))
        self.enter_context(torch.cuda.graph(graph, pool=self.owner.pool, stream=self.owner.stream))


@contextmanager
def no_garbage() -> Iterator[None]:
    """No collection of garbage meanwhile: it may find another learner's graphs, and to free one breaks a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def values_within(owner: Any, kind: Any) -> dict[str, Any]:
    """Every value of a type inside an object and all that it is made of, by its path, such as ``critic.steps``.

    Looked into are mappings, lists and tuples, modules, and objects of classes that are not torch's.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def look(value: Any, path: str) -> None:
        if isinstance(value, kind):
            if id(value) not in seen or isinstance(value, int | float | str):
                found[path] = value
            seen.add(id(value))
            return
        if id(value) in seen or isinstance(value, Tensor | type):
            return
        seen.add(id(value))
        if isinstance(value, Mapping):
            inside = value.items()
        elif isinstance(value, list | tuple):
            inside = enumerate(value)  # type: ignore[assignment]
        elif isinstance(value, nn.Module) or not type(value).__module__.startswith(("torch.", "builtins")):
            inside = getattr(value, "__dict__", {}).items()
        else:
            return
        for name, each in list(inside):
            look(each, f"{path}.{name}" if path else str(name))

    look(owner, "")
    return found
