"""Options of environments, as ``emix.make`` takes them besides its own arguments: a dataclass for each family.

The battle's are in ``emix.envs.battle.options``. Nothing here imports torch: ``list_envs`` reads the names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from emix.errors import UsageError

Options = TypeVar("Options")


@dataclass(frozen=True)
class StagHuntOptions:
    """What a user may choose about ``prey/stag-hunt``."""

    punishment: float = 0.0
    """Added to the reward when one agent alone tries to catch: at most 0."""

    def __post_init__(self) -> None:
        check_types(self)
        if not -math.inf < self.punishment <= 0:
            raise UsageError(
                f"punishment is added to the reward when one agent alone tries to catch: "
                f"expected a number of at most 0, got {self.punishment!r}"
            )


@dataclass(frozen=True)
class ContinuousOptions:
    """What ADER's figure of ``matrix/continuous`` leaves open, and what it says. Lengths are in units of an action."""

    bound: float = 1.0
    """Actions are from -bound to bound."""
    corner: float = 0.6
    """The path leads from (0, 0) to (corner, 0) and on to (corner, path_end)."""
    path_end: float = 0.55
    half_width: float = 0.05
    """How far from its middle the path reaches. The paper calls it narrow."""
    goal: float = 0.6
    """The goal is a disc around (corner, goal)."""
    goal_radius: float = 0.05
    goal_reward: float = 5.0
    """Of the goal's centre. The path pays its share of the way there: goal_reward * length / (corner + goal)."""
    rim: float = 0.9
    """Share of goal_reward that the goal pays at its rim; it falls linearly from the centre. The paper does not say."""
    penalty: float = 1.0
    """Off path and goal the reward is -penalty times the distance from (0, 0). The paper says that it grows with it."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("bound", "corner", "path_end", "half_width", "goal", "goal_radius", "goal_reward"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} expects a number above 0, got {getattr(self, name)!r}")
        if not 0 <= self.penalty < math.inf:
            raise UsageError(f"penalty expects a number of at least 0, got {self.penalty!r}")
        if not 0 <= self.rim <= 1:
            raise UsageError(f"rim expects a share from 0 to 1, got {self.rim!r}")
        if not max(self.corner, self.goal) <= self.bound:
            raise UsageError(f"corner and goal expect at most bound={self.bound:g}, got {self.corner:g}, {self.goal:g}")
        if not self.path_end <= self.goal:
            raise UsageError(f"path_end expects at most goal={self.goal:g}, got {self.path_end:g}")


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of the options of a dataclass."""
    return tuple(field.name for field in fields(kind))


def read_options(name: str, kind: type[Options], values: Mapping[str, Any]) -> Options:
    """The options ``kind`` of environment ``name`` with ``values`` set.

    Raises:
        UsageError: one is unknown, of the wrong type or out of range; the message begins with the name.
    """
    refuse_unknown(name, values, names_of(kind))
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def refuse_unknown(name: str, values: Iterable[str], known: Collection[str]) -> None:
    """Raise UsageError for an option of environment ``name`` that is not among the ``known`` ones."""
    for value in values:
        if value not in known:
            hint = closest(value, known) if len(known) > 1 else f"the only one is {next(iter(known), 'none')}"
            raise UsageError(f"{name}: unknown option {value!r}, {hint if known else 'it has none'}")


def closest(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"


def check_types(options: Any) -> None:
    """Raise UsageError unless every field of the dataclass ``options`` has the type that it was declared with, which is
    made of None, bool, int, float and str."""
    for field in fields(options):
        value, kinds = getattr(options, field.name), str(field.type).split(" | ")
        fits = (
            ("None" in kinds and value is None)
            or ("bool" in kinds and isinstance(value, bool))
            or ("str" in kinds and isinstance(value, str))
            or ("int" in kinds and isinstance(value, int) and not isinstance(value, bool))
            or ("float" in kinds and isinstance(value, int | float) and not isinstance(value, bool))
        )
        if not fits:
            raise UsageError(f"{field.name} expects {' or '.join(kinds)}, got {value!r}")
