"""What `emix sc2 check` has the agents do: orders made of what the game shows, sent to the game and to the battle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_STOP, _NORTH, _SOUTH, _EAST, _WEST, _FIRST_TARGET = 1, 2, 3, 4, 5, 6
_CLOSE = 1.2  # cells between centres: about a zealot's reach


class View(NamedTuple):
    """What a script sees: agents n, enemies m."""

    allies: NDArray[np.float32]  # [n, 2]
    enemies: NDArray[np.float32]  # [m, 2]
    shields: NDArray[np.float32]  # [n]
    living: NDArray[np.bool_]  # [m]
    avail: NDArray[np.bool_]  # [n, A]


@dataclass(frozen=True)
class Script:
    """Orders on a map."""

    map: str
    what: str
    choose: Callable[[View, int], int]  # the action of an agent that lives
    most_steps: int = 60


def choose_all(script: Script, view: View) -> list[int]:
    """The agents' actions."""
    return [0 if may[0] else script.choose(view, agent) for agent, may in enumerate(view.avail)]


def _nearest(view: View, agent: int) -> int:
    """The nearest living enemy."""
    distance = np.linalg.norm(view.enemies - view.allies[agent], axis=1)  # [m]
    return int(np.where(view.living, distance, np.inf).argmin())


def _shoot(view: View, agent: int) -> int:
    """Attack the nearest enemy that may be attacked; else walk to the nearest."""
    distance = np.linalg.norm(view.enemies - view.allies[agent], axis=1)  # [m]
    may = view.avail[agent, _FIRST_TARGET : _FIRST_TARGET + len(distance)]
    if may.any():
        return _FIRST_TARGET + int(np.where(may, distance, np.inf).argmin())
    return _walk(view, agent, toward=True)


def _stand_and_shoot(view: View, agent: int) -> int:
    """Attack what comes."""
    action = _shoot(view, agent)
    return action if action >= _FIRST_TARGET else _STOP


def _walk(view: View, agent: int, *, toward: bool) -> int:
    """Go to the nearest enemy, or away from it, along the longer axis that is open."""
    east, north = (view.enemies[_nearest(view, agent)] - view.allies[agent]) * (1 if toward else -1)
    along_x, along_y = _EAST if east > 0 else _WEST, _NORTH if north > 0 else _SOUTH
    wishes = (along_x, along_y) if abs(east) > abs(north) else (along_y, along_x)
    return next((action for action in wishes if view.avail[agent, action]), _STOP)


def _run(view: View, agent: int) -> int:
    """The first agent shoots, and runs from what has reached it; the others stand and shoot."""
    gap = np.linalg.norm(view.enemies[_nearest(view, agent)] - view.allies[agent])
    return _walk(view, agent, toward=False) if agent == 0 and gap < _CLOSE else _stand_and_shoot(view, agent)


def _retreat(view: View, agent: int) -> int:
    """Fight with a shield, walk away without."""
    return _shoot(view, agent) if view.shields[agent] > 0 else _walk(view, agent, toward=False)


SCRIPTS = {
    "run": Script("2m_vs_1z", "a marine runs from a zealot, another one shoots", _run),
    "between": Script("2m_vs_1z", "a zealot between two marines that shoot", _stand_and_shoot),
    "retreat": Script("2s_vs_1sc", "a stalker retreats when its shield is gone", _retreat, most_steps=120),
    "shoot": Script("3m", "marines walk to marines and shoot the nearest", _shoot),
    "missiles": Script("3s_vs_3z", "stalkers shoot at zealots", _shoot),
    "mixed": Script("MMM", "marauders, marines and a medivac", _shoot, most_steps=80),
}
