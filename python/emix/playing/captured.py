"""Rollouts as replays of CUDA graphs: a block of steps is one launch in place of hundreds."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from emix.envs.core import Env, capturable
from emix.errors import UsageError
from emix.playing.graphs import Call, CudaGraphs, Recorder, values_within
from emix.playing.rollout import Play, Policy, Rollout, all_done, as_rollout, play_out, stacked
from emix.playing.stopwatch import Stopwatch


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
        self.blocks: dict[int, Captured] = {}  # by their steps

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
                    self.blocks[steps] = Captured(self.name, lambda: self._go_on(steps), owners, self.recorder)
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


class Captured:
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
        before = [values_within(owner, int | float | str) for owner in self.owners]
        results = self.recorder.warm_up(self.call)
        for owner, numbers in zip(self.owners, before, strict=True):
            now = values_within(owner, int | float | str)
            if changed := [name for name, value in now.items() if value != numbers.get(name)]:
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


def _first(error: BaseException) -> BaseException:
    """What went wrong in the call: ending a capture that failed raises a second error."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _place(error: BaseException) -> str:
    """``<file>:<line>: <source>`` of the last line outside torch that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
