"""Spaces of other libraries as ``emix.envs.HostEnv`` reads them; workers import this, so it does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.errors import UsageError


class JointActions:
    """The actions of n agents, each of which has a space of its own, behind one space that all share.

    Discrete: ``space`` has the largest count A, and ``avail`` [n, A] says which of them an agent has. Box: ``space`` is
    [n, D] in [-1, 1], which mean an agent's own bounds; what is after its own numbers is padding, where both are 0.

    Raises:
        UsageError: an agent has another kind of space than these, or not all have the same kind.
    """

    def __init__(self, name: str, own: Sequence[Any]) -> None:
        self._own = own
        self.avail: np.ndarray | None = None
        if all(isinstance(each, spaces.Discrete) for each in own):
            counts = [int(each.n) for each in own]
            self.space: Any = spaces.MultiDiscrete([max(counts)] * len(counts))
            self.avail = np.array([[a < count for a in range(max(counts))] for count in counts], np.int8)  # [n, A]
            return
        for each in own:
            floats = isinstance(each, spaces.Box) and np.issubdtype(each.dtype, np.floating)
            if not floats or not (np.isfinite(each.low).all() and np.isfinite(each.high).all()) or not each.low.size:
                raise UsageError(
                    f"{name}: actions expect a Discrete space for every agent, or for every agent a Box of numbers "
                    f"with finite bounds, got {', '.join(dict.fromkeys(map(str, own)))}: wrap the environment, and "
                    f"register it with emix.register_env"
                )
        self._sizes = [each.low.size for each in own]
        bounds = np.zeros((len(own), max(self._sizes)), np.float32)  # [n, D]
        for row, size in zip(bounds, self._sizes, strict=True):
            row[:size] = 1
        self.space = spaces.Box(-bounds, bounds, dtype=np.float32)

    def of(self, agent: int, action: Any) -> Any:
        """What agent number ``agent`` takes, as its own space has it, of a row of the joint action."""
        own = self._own[agent]
        if self.avail is not None:
            return own.start + own.dtype.type(min(action, own.n - 1))
        unit = np.asarray(action[: self._sizes[agent]], np.float64).reshape(own.shape)
        middle, half = (own.high + own.low) / 2, (own.high - own.low) / 2
        return np.clip(middle + half * unit, own.low, own.high).astype(own.dtype)


def flat_size(name: str, what: str, space: spaces.Space[Any]) -> int:
    """How many numbers ``gymnasium.spaces.flatten`` makes of a value of ``space``: a Discrete is one-hot.

    Raises:
        UsageError: their count is not fixed.
    """
    size = spaces.flatdim(space) if space.is_np_flattenable else 0
    if size < 1:
        raise UsageError(f"{name}: {what} expects a space of a fixed number of numbers, got {space}")
    return size


def flattened(space: spaces.Space[Any], value: Any) -> np.ndarray:
    """The numbers of a value of ``space``, float32."""
    numbers: Any = spaces.flatten(space, value)
    return np.asarray(numbers, np.float32)


def observation_space(agents: int, obs: int, state: int, actions: JointActions) -> spaces.Dict:
    """What ``HostEnv`` expects of n agents with so many numbers each."""
    seen: dict[str, spaces.Space[Any]] = {
        "obs": spaces.Box(-np.inf, np.inf, (agents, obs), np.float32),
        "state": spaces.Box(-np.inf, np.inf, (state,), np.float32),
    }
    if actions.avail is not None:
        seen["avail"] = spaces.MultiBinary(actions.avail.shape)
    return spaces.Dict(seen)


def built(name: str, make: Any, arguments: dict[str, Any] | None) -> Any:
    """``make(**arguments)``; whatever it raises is said of ``name``.

    Raises:
        UsageError: it cannot be made here, or not with these arguments.
    """
    try:
        return make(**(arguments or {}))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise UsageError(f"{name} needs a package that is not installed: {' '.join(str(error).split())}") from error
    except Exception as error:
        raise UsageError(
            f"{name} cannot be made with arguments={arguments or {}}: {type(error).__name__}: {error}"
        ) from error
