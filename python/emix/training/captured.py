"""A learner's update as the replay of a CUDA graph: one launch in place of hundreds."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from emix.errors import UsageError

Metrics = Mapping[str, Tensor]
Call = Callable[[], Metrics]


class Recorder(Protocol):
    """Turns calls into something that runs again on the same tensors."""

    def warm_up(self, call: Call) -> Metrics:
        """Run the call once, as it is."""

    def record(self, call: Call) -> Call:
        """Record the call without running it. What is returned runs it; its result lives until the next run."""


class CapturedUpdate:
    """``learner.update``, called like the method; its Python runs twice for batches of one shape, and then no more.

    Batches of one shape share static buffers and a graph. The first of them is an ordinary update, which warms up what
    torch and CUDA load and allocate on first use; the second is captured and replayed, and all that follow are
    replayed. The numbers are those of ordinary updates on the same batches. Pad them to few lengths
    (``Replay(multiple=...)``), so that there are few graphs.

    What ``update`` reads beside the batch must be constants, or tensors that keep their place; random numbers come from
    ``learner.generator``; nothing may wait for the device; optimisers need ``capturable=True``.

    Args:
        learner: has ``update(batch)``.
        recorder: of CUDA graphs; tests have another.
    """

    def __init__(self, learner: Any, recorder: Recorder | None = None) -> None:
        self.learner = learner
        self.recorder = recorder or _CudaGraphs(getattr(learner, "generator", None))
        self.buffers: dict[Any, Any] = {}  # batches, by the shapes of their tensors
        self.replays: dict[Any, Call] = {}

    def __call__(self, batch: Any) -> Metrics:
        """One update on a batch: ``Episodes``, or tuples of such.

        Raises:
            UsageError: the update cannot be captured; the message names the line that is in the way.
        """
        tensors = trees.tree_leaves(batch)
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self.buffers:
            static = self.buffers[shapes] = trees.tree_map(torch.clone, batch)
            return self._warm_up(static)
        static = self.buffers[shapes]
        for buffer, tensor in zip(trees.tree_leaves(static), tensors, strict=True):
            buffer.copy_(tensor)
        if shapes not in self.replays:
            self.replays[shapes] = self._record(static)
        return {name: value.clone() for name, value in self.replays[shapes]().items()}

    def _warm_up(self, static: Any) -> Metrics:
        before = _numbers(self.learner)
        metrics = self.recorder.warm_up(lambda: self.learner.update(static))
        changed = [name for name, value in _numbers(self.learner).items() if value != before.get(name)]
        if changed:
            raise UsageError(
                f"{type(self.learner).__name__}.update cannot be captured in a CUDA graph: it changes the attribute "
                f"{changed[0]}, which a replay would not; make it a tensor, or train with --no-graphs"
            )
        return metrics

    def _record(self, static: Any) -> Call:
        try:
            return self.recorder.record(lambda: self.learner.update(static))
        except RuntimeError as error:
            first = _first(error)
            raise UsageError(
                f"{type(self.learner).__name__}.update cannot be captured in a CUDA graph: {_place(first)}: "
                f"{str(first).splitlines()[0]}; let nothing there wait for the device, or train with --no-graphs"
            ) from error


class _CudaGraphs:
    """Graphs that share one pool of memory: none runs beside another, and no result outlives the next replay."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, call: Call) -> Metrics:
        """Run on a side stream, as torch asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            metrics = call()
        torch.cuda.current_stream().wait_stream(side)
        return metrics

    def record(self, call: Call) -> Call:
        graph = torch.cuda.CUDAGraph()
        if self.generator is not None and self.generator.device.type == "cuda":
            graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, pool=self.pool):
            metrics = call()

        def replay() -> Metrics:
            graph.replay()
            return metrics

        return replay


def _numbers(learner: Any) -> dict[str, Any]:
    """The attributes that are plain values."""
    return {name: value for name, value in vars(learner).items() if isinstance(value, int | float | str)}


def _first(error: BaseException) -> BaseException:
    """What went wrong in the call: ending a capture that failed raises a second error."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _place(error: BaseException) -> str:
    """``<file>:<line>: <source>`` of the last line outside torch that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
