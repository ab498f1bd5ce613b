"""The units that StarCraft II reports, as the battle's arrays, from which the battle's own code makes observations,
state, available actions and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from s2clientprotocol import common_pb2, raw_pb2, sc2api_pb2

from emix import _host
from emix.envs.battle.fields import CELLS, CLOCK, MIND, RULE, STAT, STATUS, TRAIT, UNIT
from emix.envs.battle.scenario import Scenario
from emix.envs.sc2.connection import LostError
from emix.envs.sc2.game import ATTACK, HEAL, MOVE, STOP
from emix.errors import UsageError

OWN, OTHER = 1, 2  # players
_TARGET = 6  # the first action that has a target
_MOVES = {2: (0.0, 1.0), 3: (0.0, -1.0), 4: (1.0, 0.0), 5: (-1.0, 0.0)}  # action: east, north
_LARGEST_LEVEL = 4  # of heights, which the game gives from 0 to 255


class Score(NamedTuple):
    """What an environment step brought."""

    reward: float
    terminated: bool
    truncated: bool
    battle_won: bool
    dead_allies: int
    dead_enemies: int


class Units:
    """The battle of one episode after another; ``units``, ``minds`` and ``clock`` are as ``BattleEnv``'s of a battle.

    Args:
        scenario: what the map is known to have.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        slots = scenario.slots
        self.units = np.zeros((len(UNIT), slots), np.float32)  # [rows, slots]
        self.minds = np.full((len(MIND), slots), -1, np.int32)  # [rows, slots]
        self.clock = np.zeros(len(CLOCK), np.int64)  # [rows]
        self._stats, self._traits = scenario.stats.copy(), scenario.traits.copy()  # [rows, slots]
        self._rules = scenario.rules.copy()  # [rows]
        self._terrain = scenario.terrain.reshape(2 * CELLS, CELLS).copy()  # [2 * 32, 32]
        arrays = (self.units, self.minds, self.clock, self._stats, self._traits, self._rules, self._terrain)
        self._battle = _host.Battle(arrays, scenario.layout)
        first = scenario.enemy_slot
        self._own = range(len(scenario.allies))  # slots
        self._others = range(first, first + len(scenario.enemies))
        self.tags: dict[int, int] = {}  # slot of each unit of the episode

    def read_map(self, info: sc2api_pb2.ResponseGameInfo) -> None:
        """Take the map's size and terrain from the game.

        Raises:
            UsageError: the map is none of 32 x 32 cells.
        """
        start = info.start_raw
        if (start.map_size.x, start.map_size.y) != (CELLS, CELLS):
            raise UsageError(
                f"{self.scenario.spec.name}: expected a map of {CELLS} x {CELLS} cells, as all of SMAC's are, got "
                f"{start.map_size.x} x {start.map_size.y}"
            )
        area = start.playable_area
        self._rules[RULE["playable_width"]] = area.p1.x - area.p0.x
        self._rules[RULE["playable_height"]] = area.p1.y - area.p0.y
        terrain = read_terrain(start)  # [y, x]
        self._terrain[:CELLS], self._terrain[CELLS:] = terrain, terrain

    def complete(self, seen: Sequence[raw_pb2.Unit]) -> bool:
        """Whether both armies are there: the game makes their units one after the other."""
        counts = [sum(unit.owner == owner for unit in seen) for owner in (OWN, OTHER)]
        return counts == [len(self._own), len(self._others)]

    def begin(self, seen: Sequence[raw_pb2.Unit], generator: np.random.Generator) -> None:
        """Start an episode with both armies.

        Raises:
            UsageError: they are not those of the scenario.
        """
        allies = sorted((u for u in seen if u.owner == OWN), key=lambda u: (u.unit_type, u.pos.x, u.pos.y))
        enemies = self._in_order([unit for unit in seen if unit.owner == OTHER], generator)
        self._check_types(allies)
        self.units[:], self.minds[:], self.clock[:] = 0, -1, 0
        self.clock[CLOCK["status"]] = STATUS["running"]
        self.tags = {}
        for slot, unit in zip((*self._own, *self._others), (*allies, *enemies), strict=True):
            kind = slot if unit.owner == OWN else self._kind(unit)
            self._stats[:, slot], self._traits[:, slot] = self.scenario.stats[:, kind], self.scenario.traits[:, kind]
            self._stats[STAT["health"], slot] = unit.health_max
            self.minds[MIND["kind"], slot] = kind
            self.tags[unit.tag] = slot
        self._set_scale(enemies)
        self.update(seen)

    def update(self, seen: Sequence[raw_pb2.Unit]) -> None:
        """Take what the game shows now. Who is not among them is dead.

        Raises:
            LostError: a unit stands outside the map, or has a life that is no number.
        """
        health = np.zeros(self.scenario.slots, np.float32)  # [slots]
        for unit in seen:
            slot = self.tags.get(unit.tag)
            if slot is None:
                continue
            health[slot] = unit.health
            for row, value in (
                ("x", unit.pos.x),
                ("y", unit.pos.y),
                ("shield", unit.shield),
                ("energy", unit.energy),
                ("cooldown", unit.weapon_cooldown),
            ):
                self.units[UNIT[row], slot] = value
        self.units[UNIT["health"]] = health
        places = self.units[[UNIT["x"], UNIT["y"]]]  # [2, slots]
        if not (np.isfinite(self.units).all() and (places >= 0).all() and (places < CELLS).all()):
            raise LostError("the game reports a unit outside the map")

    def life(self) -> NDArray[np.float32]:
        """[slots]: health and shield, 0 of the dead."""
        health = self.units[UNIT["health"]]
        return np.where(health > 0, health + self.units[UNIT["shield"]], np.float32(0))

    def observe(self) -> dict[str, NDArray]:
        """obs [n, O], state [S] and avail [n, A]."""
        obs, state, avail = self._battle.observe()
        if self.scenario.options.obs_instead_of_state:
            state = obs.reshape(-1)
        return {"obs": obs, "state": state, "avail": avail}

    def score(self, before: NDArray[np.float32]) -> Score:
        """Count an environment step, at whose start the units' ``life`` was ``before``."""
        return Score(*self._battle.score(before))

    def orders(self, actions: Sequence[int]) -> list[raw_pb2.ActionRawUnitCommand]:
        """What the agents' actions tell the game; remembered as their last ones."""
        self.minds[MIND["last_action"], : len(actions)] = actions
        tag_of = {slot: tag for tag, slot in self.tags.items()}
        return [self._order(tag_of, slot, action) for slot, action in enumerate(actions) if action != 0]

    def _order(self, tag_of: dict[int, int], slot: int, action: int) -> raw_pb2.ActionRawUnitCommand:
        command = raw_pb2.ActionRawUnitCommand(unit_tags=[tag_of[slot]], queue_command=False)
        if action in _MOVES:
            amount = self.scenario.options.move_amount
            x, y = (float(self.units[UNIT[axis], slot]) for axis in ("x", "y"))
            east, north = _MOVES[action]
            command.ability_id = MOVE
            command.target_world_space_pos.CopyFrom(common_pb2.Point2D(x=x + amount * east, y=y + amount * north))
        elif action >= _TARGET:
            heals = self._stats[STAT["heal"], slot] > 0
            command.ability_id = HEAL if heals else ATTACK
            command.target_unit_tag = tag_of[action - _TARGET + (0 if heals else self._others.start)]
        else:
            command.ability_id = STOP
        return command

    def _in_order(self, enemies: list[raw_pb2.Unit], generator: np.random.Generator) -> list[raw_pb2.Unit]:
        order = self.scenario.options.enemy_order
        if order == "sorted":
            return sorted(enemies, key=lambda u: (u.unit_type, u.pos.x, u.pos.y))
        return [enemies[int(i)] for i in generator.permutation(len(enemies))] if order == "shuffled" else enemies

    def _kind(self, unit: raw_pb2.Unit) -> int:
        """An enemy's row of the scenario's tables."""
        for slot in self._others:
            if self.scenario.traits[TRAIT["type"], slot] == unit.unit_type:
                return slot
        raise UsageError(
            f"{self.scenario.spec.name}: the game's map has an enemy of type {unit.unit_type}, which "
            f"{self.scenario.map.source} has not: choose the map that this file describes"
        )

    def _check_types(self, allies: list[raw_pb2.Unit]) -> None:
        """SMAC's maps have types of their own for the allies, whose numbers rise in the order of the one-hot."""
        ids = sorted({unit.unit_type for unit in allies})
        known = [start.unit.name for start in self.scenario.allies]
        names = list(dict.fromkeys(known))
        if [ids.index(unit.unit_type) for unit in allies] != [names.index(name) for name in known]:
            raise UsageError(
                f"{self.scenario.spec.name}: the game's map has allies of types {[u.unit_type for u in allies]}, which "
                f"does not fit {self.scenario.map.source}: choose the map that this file describes"
            )

    def _set_scale(self, enemies: list[raw_pb2.Unit]) -> None:
        """The reward is scaled by the life that the enemies have in the game."""
        options = self.scenario.options
        if options.reward_scale and options.reward != "sparse_deaths":
            life = sum(unit.health_max + unit.shield_max for unit in enemies)
            most = len(enemies) * options.reward_death_value + options.reward_win + life
            self._rules[RULE["reward_divisor"]] = most / options.reward_scale_rate


def read_terrain(start: raw_pb2.StartRaw) -> NDArray[np.uint8]:
    """The battle's terrain [y, x], 0 blocked, else 1 + height, of the game's pathing grid and heights.

    Newer games give a bit a cell, older ones a byte that is 0 where it is open, from the north to the south. Heights
    are in quarters of their range, as the battle's.
    """
    grid = np.frombuffer(start.pathing_grid.data, np.uint8)
    heights = np.frombuffer(start.terrain_height.data, np.uint8).reshape(CELLS, CELLS)
    if start.pathing_grid.bits_per_pixel == 1:
        walkable = np.unpackbits(grid).reshape(CELLS, CELLS) != 0
    else:
        walkable, heights = np.flipud(grid.reshape(CELLS, CELLS)) == 0, np.flipud(heights)
    levels = np.rint(heights * (_LARGEST_LEVEL / 255)).astype(np.uint8)
    return np.where(walkable, 1 + levels, 0).astype(np.uint8)
