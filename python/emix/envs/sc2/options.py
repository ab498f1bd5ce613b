"""What a user may choose about ``sc2/<map>`` and ``smac/<map>``: of the battle's options those that are not the
simulator's, or are SMAC's, and the game's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from emix.envs.battle.options import BattleOptions
from emix.envs.options import check_types, names_of, read_options, refuse_unknown
from emix.errors import UsageError, closest

Game = TypeVar("Game")

_SIMULATORS = {
    "spawn_jitter", "retarget", "weapon_delay", "closing_step", "obs_closed", "checked",
}  # fmt: skip
_NOT_SMACS = {"balance", "enemy_order", "episode_limit", "reward_absolute"}
_DIFFICULTIES = "123456789A"


@dataclass(frozen=True)
class _Games:
    """What a user may choose about games of StarCraft II, whoever plays them."""

    difficulty: str = "7"
    """SMAC's: 1 to 9, or A. SMAC's maps give the enemies their orders themselves, so that it changes little."""
    restart_every: int = 1000
    """Episodes of a game before another process takes its place."""
    most_failures: int = 10
    """Episodes in a row that may be thrown away before the environment gives up."""
    replay_dir: str = ""
    """Where replays are written; "" of smac/<map>: the game's own folder."""
    replay_every: int = 0
    """Episodes of an environment between two replays, each with all that its game has played; 0: none."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.difficulty not in _DIFFICULTIES or len(self.difficulty) != 1:
            raise UsageError(f"unknown difficulty {self.difficulty!r}, {closest(self.difficulty, _DIFFICULTIES)}")
        _check_least(self, restart_every=1, most_failures=0, replay_every=0)


@dataclass(frozen=True)
class GameOptions(_Games):
    """What a user may choose about a game that emix plays."""

    build: int | None = None
    """Of StarCraft II, such as 75689 for 4.10; None: the newest that is installed."""
    answer_seconds: float = 30.0
    """After which a question that the game has not answered is given up, and the episode thrown away."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, answer_seconds=0.01)


@dataclass(frozen=True)
class SmacOptions(_Games):
    """What a user may choose about a game that SMAC plays."""

    game_version: str | None = None
    """Of StarCraft II, such as "4.10"; None: the newest that is installed."""


GAME_NAMES = names_of(GameOptions)
BATTLE_NAMES = tuple(name for name in names_of(BattleOptions) if name not in _SIMULATORS)
SMAC_NAMES = (*(name for name in BATTLE_NAMES if name not in _NOT_SMACS), *names_of(SmacOptions))


def read_both(name: str, options: Mapping[str, Any]) -> tuple[BattleOptions, GameOptions]:
    """The two halves of what a caller chose about ``sc2/<map>``.

    Raises:
        UsageError: one is unknown, of the wrong type or out of range.
    """
    refuse_unknown(name, options, (*BATTLE_NAMES, *GAME_NAMES))
    return _halves(name, options, GameOptions)


def read_smac(name: str, options: Mapping[str, Any]) -> tuple[BattleOptions, SmacOptions]:
    """The two halves of what a caller chose about ``smac/<map>``.

    Raises:
        UsageError: one is unknown, of the wrong type or out of range.
    """
    refuse_unknown(name, options, SMAC_NAMES)
    return _halves(name, options, SmacOptions)


def _halves(name: str, options: Mapping[str, Any], kind: type[Game]) -> tuple[BattleOptions, Game]:
    own = {key: value for key, value in options.items() if key in names_of(kind)}
    others = {key: value for key, value in options.items() if key not in own}
    return read_options(name, BattleOptions, others), read_options(name, kind, own)


def _check_least(options: Any, **least: float) -> None:
    for name, value in least.items():
        if getattr(options, name) < value:
            raise UsageError(f"{name} expects a number of at least {value:g}, got {getattr(options, name):g}")
