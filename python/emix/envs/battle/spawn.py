"""Where the units of a map start: the engine spreads an army that is created at one point, and so does this.

Each type has a square lattice of places around its group's point, twice its separation radius apart. A unit gets the
nearest place that is free, of equally near ones the first counterclockwise from south, on either side of a battle; a
place is free where inner radii do not overlap. Bodies may: units part when they begin to walk.

So it is in recordings of StarCraft II on SMAC's maps: the marines of 3m stand at the point, south and east of it; four
banelings of bane_vs_bane leave the west free, its twenty zerglings the place (-1, -2); the eight zealots of 6h_vs_8z
leave the south-west, and are pushed out of their lattice at once; the seven marines of MMM leave the two corners in the
west, which its two marauders then take; the three zealots of 2s3z stand south-east, north-east and north-west of the
stalker at the point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emix.envs.battle.fields import CELLS, LAYER
from emix.envs.battle.maps import BattleMap, Group
from emix.envs.battle.units import Balance, UnitType
from emix.errors import UsageError, closest

_REACH = 10.0  # cells from a group's point that are searched
_MARGIN = 0.25  # cells that a place keeps from walls and cliffs


@dataclass(frozen=True)
class Start:
    """A unit and where it starts."""

    unit: UnitType
    x: float
    y: float


def place_units(battle_map: BattleMap, balance: Balance) -> tuple[list[Start], list[Start]]:
    """The allies and the enemies of a map, in the order of its groups, which is that of their creation.

    Raises:
        UsageError: a unit's type is unknown to the balance, a group's point lies in a wall, or there is no room.
    """
    placed: list[Start] = []
    for side, groups in (("ally", battle_map.ally), ("enemy", battle_map.enemy)):
        for index, group in enumerate(groups):
            where = f"{battle_map.source}: {side}[{index}]"
            if group.unit not in balance.units:
                known = closest(group.unit, balance.units)
                raise UsageError(f"{where}.unit: {group.unit!r} is not in {balance.source}, {known}")
            unit = balance.units[group.unit]
            places = _open_places(battle_map, group, unit, where)
            for _ in range(group.count):
                free = _first_free(places, unit, placed)
                if free is None:
                    what = (
                        f"no room for {group.count} {group.unit} within {_REACH:g} cells of [{group.x:g}, {group.y:g}]"
                    )
                    raise UsageError(f"{where}.count: {what}")
                placed.append(Start(unit, *map(float, places[free])))
    allies = sum(group.count for group in battle_map.ally)
    return placed[:allies], placed[allies:]


def _offsets(step: float) -> NDArray[np.float64]:
    """[places, 2]: a lattice around a point, the nearest first, of those equally far counterclockwise from south."""
    steps = np.arange(-(_REACH // step), _REACH // step + 1)
    x, y = (grid.ravel() for grid in np.meshgrid(steps, steps))
    distance, angle = x**2 + y**2, np.arctan2(x, -y) % (2 * np.pi)  # exact, as integers; 0 is south
    order = np.lexsort((angle, distance))
    return np.stack([x[order], y[order]], -1) * step


def _open_places(battle_map: BattleMap, group: Group, unit: UnitType, where: str) -> NDArray[np.float64]:
    """[places, 2]: those of a group's units that lie inside the map, and on the ground of its point unless they fly."""
    places = np.array([group.x, group.y]) + _offsets(2 * unit.separation_radius)
    inside = ((places >= _MARGIN) & (places < CELLS - _MARGIN)).all(1)
    places = places[inside]
    if unit.layer == LAYER["air"]:
        return places
    ground = battle_map.terrain.min(0)  # [y, x]: what is open in both variants
    level = ground[int(group.y), int(group.x)]
    if level == 0:
        raise UsageError(f"{where}.at: [{group.x:g}, {group.y:g}] lies in a wall")
    fits = np.ones(len(places), np.bool_)
    for dx in (-_MARGIN, _MARGIN):
        for dy in (-_MARGIN, _MARGIN):
            fits &= ground[(places[:, 1] + dy).astype(int), (places[:, 0] + dx).astype(int)] == level
    return places[fits]


def _first_free(places: NDArray[np.float64], unit: UnitType, placed: list[Start]) -> int | None:
    """The first place where the unit's inner radius overlaps that of nobody of its own layer."""
    free = np.ones(len(places), np.bool_)
    for other in placed:
        if other.unit.layer == unit.layer:
            apart = unit.inner_radius + other.unit.inner_radius
            free &= (places[:, 0] - other.x) ** 2 + (places[:, 1] - other.y) ** 2 >= apart**2 - 1e-9
    first = np.flatnonzero(free)
    return int(first[0]) if len(first) else None
