"""Options of environments, as ``emix.make`` takes them besides its own arguments: a dataclass for each family.

The battle's are in ``emix.envs.battle.options``. Nothing here imports torch: ``list_envs`` reads the names.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

from emix.errors import UsageError, closest

Options = TypeVar("Options")

LARGEST = 1e6
"""The size of a number that is no count: rewards and observations made of such numbers are finite in float32."""
LEAST = 1e-3
"""Of a number that something is divided by."""
_MOST = 1 << 53  # counts that float64 can tell apart


@dataclass(frozen=True)
class StagHuntOptions:
    """What a user may choose about ``prey/stag-hunt``."""

    punishment: float = 0.0
    """Added to the reward when one agent alone tries to catch: at most 0."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.punishment > 0:
            raise UsageError(
                f"punishment is added to the reward when one agent alone tries to catch: "
                f"expected a number of at most 0, got {self.punishment!r}"
            )


@dataclass(frozen=True)
class PenaltyOptions:
    """What ``matrix/penalty-<n>x<A>`` pays."""

    best: float = 8.0
    """When all agents choose action 0."""
    penalty: float = -12.0
    """When some do, but not all."""
    otherwise: float = 0.0
    """When none does."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class ForagingOptions:
    """What a user may choose about level-based foraging besides what its id says."""

    episode_limit: int = 50
    """Environment steps of an episode; lbforaging's ids have 50."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.episode_limit < 1:
            raise UsageError(f"episode_limit expects an integer of at least 1, got {self.episode_limit}")


@dataclass(frozen=True)
class MujocoOptions:
    """What a user may choose about multi-agent MuJoCo."""

    obs_k: int = 1
    """Agents see the joints so many away from their own, besides these: 0 their own alone."""
    global_categories: str = ""
    """What all agents see of the whole body, such as "qpos,qvel", gymnasium-robotics' own default; FACMAC's and ADER's
    agents see nothing of it."""
    version: str = "v5"
    """Of gymnasium's body: v5 or v4. The papers' v2 needs the old mujoco-py."""
    episode_limit: int | None = None
    """Environment steps of an episode; None: gymnasium's, 1000, of Reacher 50, of Pusher 100."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.obs_k < 0:
            raise UsageError(f"obs_k expects an integer of at least 0, got {self.obs_k}")
        if self.version not in ("v4", "v5"):
            raise UsageError(f"version expects v5 or v4, got {self.version!r}")
        if self.episode_limit is not None and self.episode_limit < 1:
            raise UsageError(f"episode_limit expects an integer of at least 1, got {self.episode_limit}")
        for category in self.categories:
            if category not in _CATEGORIES:
                raise UsageError(
                    f"global_categories expects some of {', '.join(_CATEGORIES)} with commas between them, "
                    f"got {self.global_categories!r}"
                )

    @property
    def categories(self) -> tuple[str, ...]:
        """The ``global_categories``."""
        return tuple(self.global_categories.split(",")) if self.global_categories else ()


_CATEGORIES = ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")


@dataclass(frozen=True)
class GymOptions:
    """What a user may choose about an environment of gymnasium's."""

    episode_limit: int | None = None
    """Environment steps of an episode; None: the id's own."""
    arguments: dict | None = None
    """Keyword arguments of gymnasium.make, such as {"is_slippery": False}."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_foreign(self.episode_limit, self.arguments, ("id", "max_episode_steps", "disable_env_checker"))


@dataclass(frozen=True)
class PettingZooOptions:
    """What a user may choose about an environment of PettingZoo's."""

    episode_limit: int | None = None
    """Environment steps of an episode; None: the environment's own (max_cycles)."""
    reward: str = "sum"
    """The team's reward: the sum of the agents' rewards, or their mean."""
    arguments: dict | None = None
    """Keyword arguments of parallel_env, such as {"N": 5}."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_foreign(self.episode_limit, self.arguments, ())
        if self.reward not in ("sum", "mean"):
            raise UsageError(f"reward expects sum or mean, got {self.reward!r}")


def _check_foreign(limit: int | None, arguments: Mapping[Any, Any] | None, taken: tuple[str, ...]) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"episode_limit expects an integer of at least 1, got {limit}")
    for name in arguments or {}:
        if not isinstance(name, str) or name in taken:
            raise UsageError(f"arguments expects names of keyword arguments other than emix's own, got {name!r}")


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
    rim: float | None = None
    """Share of goal_reward that the goal pays at its rim; it falls linearly from the centre. The paper does not say how
    much, but that the reward grows along the path up to the centre; None: what the path pays where it ends."""
    penalty: float = 1.0
    """Off path and goal the reward is -penalty times the distance from (0, 0). The paper says that it grows with it."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("bound", "corner", "path_end", "half_width", "goal", "goal_radius", "goal_reward"):
            if not getattr(self, name) >= LEAST:
                raise UsageError(f"{name} expects a number of at least {LEAST:g}, got {getattr(self, name)!r}")
        if not self.penalty >= 0:
            raise UsageError(f"penalty expects a number of at least 0, got {self.penalty!r}")
        if self.rim is not None and not 0 <= self.rim <= 1:
            raise UsageError(f"rim expects a share from 0 to 1, got {self.rim!r}")
        if not max(self.corner, self.goal) <= self.bound:
            raise UsageError(f"corner and goal expect at most bound={self.bound:g}, got {self.corner:g}, {self.goal:g}")
        if not self.path_end <= self.goal:
            raise UsageError(f"path_end expects at most goal={self.goal:g}, got {self.path_end:g}")


class OptionInfo(NamedTuple):
    """An option: its default, and what it does."""

    default: Any
    text: str


def described(kind: type[Any]) -> dict[str, OptionInfo]:
    """The options of a dataclass by their names, with the strings that stand below its fields."""
    classes = [each for each in reversed(kind.__mro__) if each is not object]  # what it inherits first
    texts: dict[str, str] = {}
    for name, below in chain.from_iterable(pairwise(_body(each)) for each in classes):
        if isinstance(name, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[ast.unparse(name.target)] = " ".join(ast.literal_eval(below.value).split())
    return {field.name: OptionInfo(field.default, texts.get(field.name, "")) for field in fields(kind)}


def _body(kind: type[Any]) -> list[Any]:
    """The statements of a class."""
    body: list[Any] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return body


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


def check_types(options: Any) -> None:
    """Raise UsageError unless every field of the frozen dataclass ``options`` has the type that it was declared with,
    which is made of None, bool, int, float, str and dict. NumPy's scalars become Python's; numbers must be finite,
    floats at most 1e6 in size."""
    for field in fields(options):
        value, kinds = getattr(options, field.name), str(field.type).split(" | ")
        plain = _plain(value, kinds)
        if plain is None and not (value is None and "None" in kinds):
            raise UsageError(f"{field.name} expects {' or '.join(kinds)}, got {value!r}")
        if isinstance(plain, float) and not abs(plain) <= LARGEST:
            raise UsageError(f"{field.name} expects a finite number of at most {LARGEST:g} in size, got {value!r}")
        if isinstance(plain, int) and abs(plain) > _MOST:
            raise UsageError(f"{field.name} expects an integer of at most 2^53 in size, got {value!r}")
        object.__setattr__(options, field.name, plain)


def _plain(value: Any, kinds: list[str]) -> bool | int | float | str | dict[Any, Any] | None:
    """``value`` as one of the Python types ``kinds``; None where it is of none of them."""
    if isinstance(value, Mapping):
        return dict(value) if "dict" in kinds else None
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value) if "bool" in kinds else None
    if isinstance(value, Integral) and "int" in kinds:
        return int(value)
    if isinstance(value, Real) and "float" in kinds:
        return _as_float(value)
    return value if isinstance(value, str) and "str" in kinds else None


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer
        return math.inf
