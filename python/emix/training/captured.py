"""A learner's updates and rollouts as replays of CUDA graphs: one launch in place of hundreds."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from emix.envs.core import Env, capturable
from emix.errors import UsageError
from emix.playing.rollout import Play, Policy, Rollout, all_done, as_rollout, play_out, stacked
from emix.playing.stopwatch import Stopwatch
from emix.training.graphs import Call, CudaGraphs, Recorder

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
        self.calls: dict[Any, _Captured] = {}
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
            self.calls[shapes] = _Captured(name, lambda: self.update(static), [self.learner], self.recorder)
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


class CapturedRollout:
    """``collect`` for one environment and one policy, without its Python: steps are replayed in blocks.

    A block is as many steps as ``collect`` plays between two questions whether all episodes have ended. The first one
    is played as ``collect`` would, the second is captured; where the episode limit is no multiple, the last block is
    shorter, and a graph of its own. The reset and the first action are ordinary. The numbers are those of ``collect``.

    What ``act`` reads beside its arguments must be constants, or tensors that keep their place; random numbers come
    from the policy's own generators; the memory holds tensors; nothing may wait for the device.

    Args:
        env: E environments whose ``step`` can be captured (``emix.envs.core.capturable``).
        policy: an actor on their device.
        explore: take the behaviour policy, else the greedy one.
        recorder: of CUDA graphs; tests have another.

    Raises:
        UsageError: the environment cannot be captured.
    """

    def __init__(self, env: Env, policy: Policy, *, explore: bool, recorder: Recorder | None = None) -> None:
        self.name = f"A rollout of {type(policy).__name__} in {env.spec.name}"
        if not capturable(env):
            raise UsageError(
                f"{self.name} cannot be captured in a CUDA graph: expected an environment whose tensors a step changes "
                f"in place without waiting for the device, such as an unchecked battle; use collect, or train with "
                f"--no-graphs"
            )
        self.env, self.policy = env, policy
        self.recorder = recorder or CudaGraphs(policy, env.device)
        self.play = Play(env, policy, explore=explore, watch=Stopwatch())
        self.carried: Any = None  # action and memory, from block to block
        self.blocks: dict[int, _Captured] = {}  # by their steps

    @torch.no_grad()
    def __call__(self, *, stopwatch: Stopwatch | None = None) -> Rollout:
        """Reset every environment and play until all have finished.

        Args:
            stopwatch: gets the phase ``env``, for acting, too.

        Raises:
            RuntimeError: an environment did not finish within its ``spec.episode_limit``.
            UsageError: a step or the acting cannot be captured; the message names the line that is in the way.
        """
        with (stopwatch or Stopwatch())("env"):
            parts = [stacked([self.play.begin()])]  # [E, 1, ...] each, and then blocks
            self._carry()

            def go_on(steps: int) -> Tensor:
                if steps not in self.blocks:
                    owners = [self.policy, self.env]
                    self.blocks[steps] = _Captured(self.name, lambda: self._go_on(steps), owners, self.recorder)
                block = self.blocks[steps]()
                ended = block.pop("ended")
                parts.append(block)
                return ended

            play_out(self.env, go_on)
            entries = {name: torch.cat([part[name] for part in parts if name in part], dim=1) for name in parts[-1]}
            return as_rollout(entries, self.env.spec, self.policy.record)

    def _go_on(self, steps: int) -> dict[str, Tensor]:
        """What is captured: from what is carried to what is carried, and the entries ``[E, steps, ...]`` between."""
        self.play.action, self.play.memory = self.carried
        entries = self.play.go_on(steps)
        self._carry()
        return stacked(entries) | {"ended": all_done(entries[-1])}

    def _carry(self) -> None:
        """Put the action and the memory where the next block finds them."""
        new = (self.play.action, self.play.memory)
        leaves = [leaf for leaf in trees.tree_leaves(new) if leaf is not None]
        if wrong := [leaf for leaf in leaves if not isinstance(leaf, Tensor)]:
            raise UsageError(
                f"{self.name} cannot be captured in a CUDA graph: the memory has the {type(wrong[0]).__name__} "
                f"{wrong[0]!r}, which a replay would not change; make it a tensor, or train with --no-graphs"
            )
        if self.carried is None:
            self.carried = trees.tree_map_only(Tensor, torch.clone, new)
        else:
            for buffer, leaf in zip(trees.tree_leaves(self.carried), trees.tree_leaves(new), strict=True):
                if leaf is not None:
                    buffer.copy_(leaf)


class _Captured:
    """A call of which the first is ordinary, the second recorded and replayed, and all that follow are replayed.

    Args:
        name: for messages.
        call: what to run.
        owners: whose plain values a call must leave alone.
        recorder: of the call.
    """

    def __init__(self, name: str, call: Call, owners: list[Any], recorder: Recorder) -> None:
        self.name, self.call, self.owners, self.recorder = name, call, owners, recorder
        self.warm = False
        self.replay: Call | None = None

    def __call__(self) -> dict[str, Tensor]:
        """The call's results, copied: they outlive the next replay."""
        if not self.warm:
            results = self._warm_up()
            self.warm = True
        else:
            self.replay = self.replay or self._record()
            results = self.replay()
        return {name: value.clone() for name, value in results.items()}

    def _warm_up(self) -> Mapping[str, Tensor]:
        before = [_numbers(owner) for owner in self.owners]
        results = self.recorder.warm_up(self.call)
        for owner, numbers in zip(self.owners, before, strict=True):
            changed = [name for name, value in _numbers(owner).items() if value != numbers.get(name)]
            if changed:
                raise UsageError(
                    f"{self.name} cannot be captured in a CUDA graph: it changes the attribute {changed[0]} of "
                    f"{type(owner).__name__}, which a replay would not; make it a tensor, or train with --no-graphs"
                )
        return results

    def _record(self) -> Call:
        try:
            return self.recorder.record(self.call)
        except RuntimeError as error:
            first = _first(error)
            raise UsageError(
                f"{self.name} cannot be captured in a CUDA graph: {_place(first)}: {str(first).splitlines()[0]}; "
                f"let nothing there wait for the device, or train with --no-graphs"
            ) from error


def _numbers(owner: Any) -> dict[str, Any]:
    """The attributes that are plain values."""
    return {name: value for name, value in vars(owner).items() if isinstance(value, int | float | str)}


def _first(error: BaseException) -> BaseException:
    """What went wrong in the call: ending a capture that failed raises a second error."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _place(error: BaseException) -> str:
    """``<file>:<line>: <source>`` of the last line outside torch that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
