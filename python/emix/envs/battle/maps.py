"""Maps: armies, terrain and orders, read from YAML. Units are names here; what those can do is a matter of balance."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emix.envs.battle.fields import CELLS
from emix.envs.battle.reading import Section, packaged, read_yaml
from emix.reading import short

ALIASES = {"MMM3": "MMM2_7m2M1M_vs_9m3M1M"}
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Group:
    """Units of a type that start around a point."""

    unit: str
    count: int
    x: float
    y: float


@dataclass(frozen=True)
class BattleMap:
    """A map file's contents."""

    source: str  # file that it was read from
    limit: int  # environment steps of an episode
    ally: tuple[Group, ...]
    enemy: tuple[Group, ...]
    ally_types: tuple[str, ...]  # of the one-hot in observations and state; empty where a side has a single type
    enemy_types: tuple[str, ...]
    enemy_order: str  # attack_move, guard or chase
    goals: tuple[tuple[float, float], tuple[float, float]]  # of attack_move: a point between the two
    terrain: NDArray[np.uint8]  # [2, 32, 32] by closed, y, x: 0 blocked, else 1 + height

    @property
    def can_close(self) -> bool:
        """Whether the map has a closed variant."""
        return bool((self.terrain[0] != self.terrain[1]).any())


def list_maps() -> list[str]:
    """The names of the maps of this package, aliases included."""
    return sorted([*packaged("maps"), *ALIASES])


def load_map(name: str) -> BattleMap:
    """Read a map: a name of ``list_maps()``, or the path of a YAML file.

    Raises:
        UsageError: no such map, or a mistake in its file, named with file and key.
    """
    file, source = read_yaml(ALIASES.get(name, name), "maps", "map")
    file.expect(("limit", "ally", "enemy", "enemy_order", "terrain"), ("one_hot",))
    ally, enemy = (_read_groups(file, side) for side in ("ally", "enemy"))
    ally_types, enemy_types = _read_types(file, ally, enemy)
    order, goals = _read_order(file)
    return BattleMap(
        source=source,
        limit=file.integer("limit"),
        ally=ally,
        enemy=enemy,
        ally_types=ally_types,
        enemy_types=enemy_types,
        enemy_order=order,
        goals=goals,
        terrain=_read_terrain(file.section("terrain")),
    )


def _read_groups(file: Section, side: str) -> tuple[Group, ...]:
    groups = []
    for item in file.list_of_sections(side):
        item.expect(("unit", "count", "at"))
        x, y = _inside(item, "at", item["at"])
        groups.append(Group(item.word("unit"), item.integer("count"), x, y))
    return tuple(groups)


def _read_types(
    file: Section, ally: tuple[Group, ...], enemy: tuple[Group, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sides = {"ally": {group.unit for group in ally}, "enemy": {group.unit for group in enemy}}
    if "one_hot" not in file:
        if any(len(types) > 1 for types in sides.values()):
            raise file.error("", "the key 'one_hot' is missing: a side has several types of units")
        return (), ()
    part = file.section("one_hot")
    part.expect(("ally", "enemy"))
    for side, types in sides.items():
        if missing := sorted(types - set(part.words(side))):
            raise part.error(side, f"{missing[0]} is missing, which that side has")
    if len(part.words("ally")) != len(part.words("enemy")):
        raise part.error("enemy", "expected as many types as ally has")
    return tuple(part.words("ally")), tuple(part.words("enemy"))


def _read_order(file: Section) -> tuple[str, tuple[tuple[float, float], tuple[float, float]]]:
    value = file["enemy_order"]
    if value in ("guard", "chase"):
        return value, ((0.0, 0.0), (0.0, 0.0))
    if not isinstance(value, dict) or list(value) != ["attack_move"]:
        raise file.error("enemy_order", f"expected guard, chase or attack_move: [[x, y]], got {short(value)}")
    points = value["attack_move"]
    if not isinstance(points, list) or len(points) not in (1, 2):
        raise file.error("enemy_order.attack_move", f"expected a list of one or two points [x, y], got {short(points)}")
    goals = [_inside(file, "enemy_order.attack_move", point) for point in points]
    return "attack_move", (goals[0], goals[-1])


def _read_terrain(part: Section) -> NDArray[np.uint8]:
    part.expect(("walkable",), ("heights", "closed"))
    terrain = np.zeros((CELLS, CELLS), np.uint8)  # [y, x]
    for rows, columns in part.section("walkable").items():
        where = f"walkable.{rows}"
        for y in _cells(part, where, rows):
            terrain[y, _cells(part, where, columns)] = 1
    if not terrain.any():
        raise part.error("walkable", "no cell is walkable")
    for item in part.list_of_sections("heights") if "heights" in part else []:
        item.expect(("x", "y", "level"))
        level = item.integer("level", least=0, most=254)
        area = _area(item)
        terrain[area] = np.where(terrain[area] > 0, 1 + level, 0)
    closed = terrain.copy()
    for item in part.list_of_sections("closed") if "closed" in part else []:
        item.expect(("x", "y"))
        closed[_area(item)] = 0
    return np.stack([terrain, closed])


def _area(item: Section) -> Any:
    return np.ix_(_cells(item, "y", item["y"]), _cells(item, "x", item["x"]))


def _cells(part: Section, key: str, text: Any) -> list[int]:
    """``"2-4, 7"`` as [2, 3, 4, 7]."""
    cells: list[int] = []
    for piece in str(text).split(","):
        match = _RANGE.fullmatch(piece.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < CELLS:
            raise part.error(key, f"expected cells such as 7, 2-29 or 2-11, 18-29 below {CELLS}, got {short(text)}")
        cells += range(first, last + 1)
    return cells


def _inside(part: Section, key: str, value: Any) -> tuple[float, float]:
    x, y = part.as_point(key, value)
    if not (0 <= x < CELLS and 0 <= y < CELLS):
        raise part.error(key, f"expected a point inside the map of {CELLS} x {CELLS} cells, got {short(value)}")
    return x, y
