"""What the course of a battle tells of its rules, and what differs between the game and the battle.

An environment step has 8 game loops, and the game shows its units at the end of each, so times within a step come from
the weapons' cooldowns, and others are means over the shots of a battle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emix.envs.battle.fields import LOOPS

Value = float | str


class Difference(NamedTuple):
    """What the game has and the battle has not."""

    where: str  # a script or "data"
    what: str
    whose: str  # a type of unit, or "" for the whole battle
    game: Value
    battle: Value


class Measure(NamedTuple):
    """A quantity, and by how much it may differ where no rule does: weapons wait up to 2 loops longer by chance."""

    what: str
    tolerance: float


WALK = Measure("cells walked in a step, at most", 0.03)
INTERVAL = Measure("loops between two shots, median", 1.5)
COOLDOWN = Measure("largest cooldown after a shot, loops", 2.5)
REST = Measure("loops of standing after a shot, at least (backswing)", 1.5)
FLIGHT = Measure("steps from a shot to the loss of life, at most (missile)", 0.5)
DAMAGE = Measure("life that the other side lost for each shot", 2.0)
HIT = Measure("agents that lost life, in their order", 0.0)
REWARD = Measure("sum of rewards", 0.5)
LENGTH = Measure("environment steps", 3.0)

_NEAR, _LIFE = 0.25, 0.5  # cells and points that a step may differ by


@dataclass(frozen=True)
class Course:
    """A battle that was played; t = 0 is its start. ``kinds`` names the type of unit of each slot that has one."""

    places: NDArray[np.float64]  # [T + 1, slots, 2]
    life: NDArray[np.float64]  # [T + 1, slots]: health and shield
    cooldown: NDArray[np.float64]  # [T + 1, slots], loops
    rewards: NDArray[np.float64]  # [T]
    kinds: Mapping[int, str]
    enemy_slot: int

    def side(self, enemies: bool) -> list[int]:
        """The slots of one side."""
        return [slot for slot in self.kinds if (slot >= self.enemy_slot) == enemies]

    def shots(self, slot: int) -> list[int]:
        """Steps in which a unit has shot: its cooldown is longer at their end than the time would have left of it."""
        left = np.maximum(self.cooldown[:-1, slot] - LOOPS, 0)  # [T]
        shot = (self.cooldown[1:, slot] > left + 0.5) & (self.life[1:, slot] > 0)  # [T]
        return [int(t) for t in 1 + np.flatnonzero(shot)]

    def walked(self, slot: int) -> NDArray[np.float64]:
        """[T]: cells that a unit has walked in each step; NaN once it is dead."""
        cells = np.linalg.norm(np.diff(self.places[:, slot], axis=0), axis=1)
        return np.where(self.life[1:, slot] > 0, cells, np.nan)

    def lost(self, slots: Iterable[int]) -> NDArray[np.float64]:
        """[T]: the life that units have lost together in each step."""
        return np.maximum(-np.diff(self.life[:, list(slots)], axis=0), 0).sum(1)


def compare(script: str, game: Course, battle: Course) -> list[Difference]:
    """All that differs by more than its tolerance; the first step that does comes last."""
    ours, theirs = measure(battle), measure(game)
    found = [
        Difference(script, what.what, whose, theirs.get((what, whose), "none"), ours.get((what, whose), "none"))
        for what, whose in dict.fromkeys([*theirs, *ours])
        if not _alike(theirs.get((what, whose)), ours.get((what, whose)), what.tolerance)
    ]
    return found + _first_step(script, game, battle)


def measure(course: Course) -> dict[tuple[Measure, str], Value]:
    """The measures of a battle, by what they measure and whose they are."""
    found: dict[tuple[Measure, str], Value] = {}
    for enemies in (False, True):
        for kind in dict.fromkeys(course.kinds[slot] for slot in course.side(enemies)):
            slots = [slot for slot in course.side(enemies) if course.kinds[slot] == kind]
            whose = f"{'enemy' if enemies else 'allied'} {kind}"
            found |= {(what, whose): value for what, value in _of_units(course, slots, enemies).items()}
    found[HIT, ""] = _in_order(course)
    found[REWARD, ""], found[LENGTH, ""] = float(course.rewards.sum()), float(len(course.rewards))
    return found


def _of_units(course: Course, slots: list[int], enemies: bool) -> dict[Measure, float]:
    """The measures of the units of a side that are of one type."""
    walked = {slot: course.walked(slot) for slot in slots}
    shots = {slot: course.shots(slot) for slot in slots}
    count = sum(map(len, shots.values()))
    found: dict[Measure, float] = {WALK: _largest(walked.values())}
    if not count:
        return found
    ready = {slot: [LOOPS * t + course.cooldown[t, slot] for t in shots[slot]] for slot in slots}
    gaps = [gap for times in ready.values() for gap in np.diff(times)]
    lost = course.lost(course.side(not enemies))
    found[COOLDOWN] = max(float(course.cooldown[t, slot]) for slot in slots for t in shots[slot])
    if gaps:
        found[INTERVAL] = float(np.median(gaps))
    found[DAMAGE] = float(lost.sum()) / count
    volleys = {t for slot in course.side(enemies) for t in course.shots(slot)}
    first = {t for own in shots.values() for t in own if not volleys & {t - 1, t - 2}}  # whose hits are no others'
    flights = [int(np.flatnonzero(lost[t - 1 :] > 0)[0]) for t in first if lost[t - 1 :].any()]
    if flights:
        found[FLIGHT] = float(max(flights))
    if enemies and gaps:  # allies walk by order
        rests = [rest for slot in slots for rest in _rests(course, slot, found[WALK] / LOOPS, found[INTERVAL])]
        if rests:
            found[REST] = min(rests)
    return found


def _rests(course: Course, slot: int, speed: float, period: float) -> list[float]:
    """Loops from each shot until the unit walks, where it does in the next step: it may stand for other reasons, too.

    Args:
        course: the battle.
        slot: the unit's.
        speed: cells a loop.
        period: loops from a shot to the next, which with the cooldown says when in its step a shot was.
    """
    walked = course.walked(slot)
    since = {t: period - course.cooldown[t, slot] for t in course.shots(slot) if t < len(walked)}  # at the step's end
    return [loops + LOOPS - walked[t] / speed for t, loops in since.items() if walked[t] > 0.1]


def _in_order(course: Course) -> str:
    """Who lost life, step after step, each once until it is another's turn."""
    agents = course.side(enemies=False)
    order: list[str] = []
    for step in range(len(course.rewards)):
        hit = [str(slot) for slot in agents if course.life[step + 1, slot] < course.life[step, slot]]
        if hit and order[-1:] != ["+".join(hit)]:
            order.append("+".join(hit))
    return " ".join(order)


def _first_step(script: str, game: Course, battle: Course) -> list[Difference]:
    """Where the two courses part."""
    for t in range(min(len(game.rewards), len(battle.rewards)) + 1):
        for slot, kind in game.kinds.items():
            far = np.abs(game.places[t, slot] - battle.places[t, slot]).max() > _NEAR
            if (far and game.life[t, slot] > 0) or abs(game.life[t, slot] - battle.life[t, slot]) > _LIFE:
                whose = f"{'enemy' if slot >= game.enemy_slot else 'allied'} {kind}"
                states = (_state(course, t, slot) for course in (game, battle))
                return [Difference(script, f"first step that differs: {t}", whose, *states)]
    return []


def _state(course: Course, t: int, slot: int) -> str:
    x, y = course.places[t, slot]
    return f"at ({x:.2f}, {y:.2f}), life {course.life[t, slot]:.1f}" if course.life[t, slot] > 0 else "dead"


def _alike(one: Value | None, other: Value | None, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance
    return one == other


def _largest(rows: Iterable[NDArray[np.float64]]) -> float:
    cells = np.concatenate([row[np.isfinite(row)] for row in rows])
    return float(cells.max()) if len(cells) else 0.0
