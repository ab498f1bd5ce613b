"""What a user may choose about ``sc2/<map>``: the battle's options that are not the simulator's, and the game's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emix.envs.battle.options import BattleOptions
from emix.envs.options import check_types, names_of, read_options, refuse_unknown
from emix.errors import UsageError, closest

_SIMULATORS = {"spawn_jitter", "retarget", "weapon_delay", "closing_step", "obs_closed", "checked"}
_DIFFICULTIES = "123456789A"


@dataclass(frozen=True)
class GameOptions:
    """What a user may choose about a game of StarCraft II."""

    difficulty: str = "7"
    """SMAC's: 1 to 9, or A. SMAC's maps give the enemies their orders themselves, so that it changes little."""
    build: int | None = None
    """Of StarCraft II, such as 75689 for 4.10; None: the newest that is installed."""
    answer_seconds: float = 30.0
    """After which a question that the game has not answered is given up, and the episode thrown away."""
    restart_every: int = 1000
    """Episodes of a game before another process takes its place."""
    most_failures: int = 10
    """Episodes in a row that may be thrown away before the environment gives up."""
    replay_dir: str = ""
    """Where replays are written."""
    replay_every: int = 0
    """Episodes of an environment between two replays, each with all that its game has played; 0: none."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.difficulty not in _DIFFICULTIES or len(self.difficulty) != 1:
            raise UsageError(f"unknown difficulty {self.difficulty!r}, {closest(self.difficulty, _DIFFICULTIES)}")
        for name, least in (("answer_seconds", 0.01), ("restart_every", 1), ("most_failures", 0), ("replay_every", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} expects a number of at least {least:g}, got {getattr(self, name):g}")


GAME_NAMES = names_of(GameOptions)
BATTLE_NAMES = tuple(name for name in names_of(BattleOptions) if name not in _SIMULATORS)


def read_both(name: str, options: Mapping[str, Any]) -> tuple[BattleOptions, GameOptions]:
    """The two halves of a caller's ``options``.

    Raises:
        UsageError: one is unknown, of the wrong type or out of range.
    """
    refuse_unknown(name, options, (*BATTLE_NAMES, *GAME_NAMES))
    own = {key: value for key, value in options.items() if key in GAME_NAMES}
    others = {key: value for key, value in options.items() if key not in GAME_NAMES}
    return read_options(name, BattleOptions, others), read_options(name, GameOptions, own)
