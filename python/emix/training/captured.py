"""A learner's updates as replays of CUDA graphs: one launch in place of hundreds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils import _pytree as trees

from emix.playing.captured import Captured
from emix.playing.graphs import CudaGraphs, Recorder

Metrics = Mapping[str, Tensor]


class CapturedUpdate:
    """``learner.update``, called like the method; its Python runs twice for batches of one shape, and then no more.

    The first batch of a shape is an ordinary update, which warms up what torch and CUDA load and allocate on first use;
    the second is captured and replayed, and all that follow are replayed. The numbers are those of ordinary updates on
    the same batches. Pad them to few lengths (``Replay(multiple=...)``), so that there are few graphs. Batches of all
    shapes lie at the beginning of the same static buffers.

    What ``update`` reads beside the batch must be constants, or tensors that keep their place; random numbers come from
    the learner's own generators; nothing may wait for the device; optimisers need ``capturable=True``. An ``update``
    that takes the keyword ``loop`` (``emix.learners.loop``) has the bodies of its loops recorded once.

    Args:
        learner: has ``update(batch)`` and ``device``.
        recorder: of CUDA graphs; tests have another.
        longest: the most steps that a batch has; where not given, those of the first one.
    """

    def __init__(self, learner: Any, recorder: Recorder | None = None, *, longest: int | None = None) -> None:
        self.learner, self.longest = learner, longest
        self.recorder = recorder or CudaGraphs(learner, learner.device)
        self.buffers: list[Tensor] = []  # flat, one for each tensor of a batch
        self.batches: dict[Any, Any] = {}  # in the buffers, by the shapes of their tensors
        self.calls: dict[Any, Captured] = {}
        takes_loop = "loop" in inspect.signature(learner.update).parameters
        self.update = partial(learner.update, loop=self.recorder.loop) if takes_loop else learner.update

    def __call__(self, batch: Any) -> Metrics:
        """One update on a batch: ``Episodes``, or tuples of such.

        Raises:
            UsageError: the update cannot be captured; the message names the line that is in the way.
            ValueError: the batch has more than ``longest`` steps, or more episodes than the first one.
        """
        tensors = trees.tree_leaves(batch)
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self.batches:
            static = self.batches[shapes] = self._place(batch)
            name = f"{type(self.learner).__name__}.update"
            self.calls[shapes] = Captured(name, lambda: self.update(static), [self.learner], self.recorder)
        for place, tensor in zip(trees.tree_leaves(self.batches[shapes]), tensors, strict=True):
            place.copy_(tensor)
        return self.calls[shapes]()

    def _place(self, batch: Any) -> Any:
        """A batch of the same shape at the beginning of the buffers, which the first one makes."""
        tensors, structure = trees.tree_flatten(batch)  # [B, T, ...] or [B, T+1, ...] each
        if not self.buffers:
            if self.longest is None:
                self.longest = max(tensor.shape[1] for tensor in tensors) - 1
            sizes = [tensor.numel() // tensor.shape[1] * (self.longest + 1) for tensor in tensors]
            self.buffers = [tensor.new_empty(size) for tensor, size in zip(tensors, sizes, strict=True)]
        places = []
        for buffer, tensor in zip(self.buffers, tensors, strict=True):
            if tensor.numel() > buffer.numel():
                raise ValueError(
                    f"batch: expected at most as many episodes as in the first one, of at most longest={self.longest} "
                    f"steps, got a tensor of shape {list(tensor.shape)}; make CapturedUpdate with longest=<most steps>"
                )
            places.append(buffer[: tensor.numel()].view(tensor.shape))
        return trees.tree_unflatten(places, structure)
