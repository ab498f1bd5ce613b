"""One game of the stand-in: what StarCraft II would answer, of a battle of the simulator."""

from __future__ import annotations

from itertools import count
from pathlib import PurePath

import numpy as np
import torch
from s2clientprotocol import common_pb2, data_pb2, error_pb2, raw_pb2, sc2api_pb2

import emix
from emix.envs.battle.fields import CELLS, MIND, STAT, TAG, TRAIT, UNIT

ALLY_TYPES = 2001  # the maps' own types of the allies' units rise from here, in the order of the one-hot
STOP, MOVE, ATTACK, HEAL = 4, 16, 23, 386
FASTER = 1.4
ATTRIBUTES = {"light": data_pb2.Light, "armored": data_pb2.Armored}  # that weapons have a bonus against
DIRECTIONS = {(0, 1): 2, (0, -1): 3, (1, 0): 4, (-1, 0): 5}


class Game:
    """Answers to requests; ``env`` is the battle, from ``create_game`` on.

    The armies appear one after the other, as SMAC's maps make them: the enemies a loop later than the allies.

    Args:
        options: of ``emix.make``.
        old: whether the terrain is as older games have it: a byte a cell, from the north to the south.
    """

    def __init__(self, options: dict, old: bool = False) -> None:
        self.options, self.old = options, old
        self.env = None
        self.now = None  # the battle's last step
        self.length, self.total = 0, 0.0  # environment steps and reward of the episode
        self.loops = None  # that were played since the armies were made, before the first environment step
        self.killed = False  # all units, so that the map is to make new ones
        self.actions: dict[int, int] = {}  # by tag
        self.tags = count(1)
        self.replays = 0

    @staticmethod
    def kind(data: bytes) -> str:
        """What a serialised request asks for."""
        return sc2api_pb2.Request.FromString(data).WhichOneof("request")

    def answer(self, data: bytes) -> bytes | None:
        """Of a serialised request; None where the game is to quit."""
        request = sc2api_pb2.Request.FromString(data)
        kind = request.WhichOneof("request")
        if kind == "quit":
            return None
        response = sc2api_pb2.Response(id=request.id, status=sc2api_pb2.in_game)
        getattr(response, kind).SetInParent()
        getattr(self, kind)(getattr(request, kind), response)
        return response.SerializeToString()

    def ping(self, request, response) -> None:
        response.status = sc2api_pb2.launched
        response.ping.game_version = "4.10.0.75689"

    def create_game(self, request, response) -> None:
        response.status = sc2api_pb2.init_game
        name = PurePath(request.local_map.map_path).stem
        self.env = emix.make(f"battle/{name}", seed=request.random_seed, spawn_jitter=0.0, **self.options)
        self.now = self.env.reset()
        self.begin()

    def join_game(self, request, response) -> None:
        response.join_game.player_id = 1

    def begin(self) -> None:
        n, first = self.env.spec.n_agents, self.env.scenario.enemy_slot
        slots = [*range(n), *range(first, first + len(self.env.scenario.enemies))]
        self.tag_of = {slot: next(self.tags) for slot in slots}
        self.slot_of = {tag: slot for slot, tag in self.tag_of.items()}
        self.loops = 0
        self.length, self.total = 0, 0.0

    def game_info(self, request, response) -> None:
        start = response.game_info.start_raw
        start.map_size.CopyFrom(common_pb2.Size2DI(x=CELLS, y=CELLS))
        start.playable_area.p1.CopyFrom(common_pb2.PointI(x=CELLS, y=CELLS))
        terrain = self.env.scenario.terrain[0]  # [y, x]
        heights = np.rint(np.maximum(terrain.astype(float) - 1, 0) * 255 / 4).astype(np.uint8)
        size = common_pb2.Size2DI(x=CELLS, y=CELLS)
        if self.old:
            bits, grid, heights = 8, np.where(terrain > 0, 0, 255).astype(np.uint8)[::-1], heights[::-1]
        else:
            bits, grid = 1, np.packbits(terrain > 0, axis=1)
        start.pathing_grid.CopyFrom(common_pb2.ImageData(bits_per_pixel=bits, size=size, data=grid.tobytes()))
        start.terrain_height.CopyFrom(common_pb2.ImageData(bits_per_pixel=8, size=size, data=heights.tobytes()))

    def data(self, request, response) -> None:
        """The allies' types are the map's own. Times are those of the speed "faster", as the game's may be."""
        assert request.unit_type_id
        scenario, known = self.env.scenario, {}
        for slot in self.tag_of:
            row = {name: float(scenario.stats[k, slot]) for name, k in STAT.items()}
            trait = {name: int(scenario.traits[k, slot]) for name, k in TRAIT.items()}
            ally = slot < scenario.enemy_slot
            kind = ALLY_TYPES + max(0, trait["type_bit"]) if ally else trait["type"]
            unit = data_pb2.UnitTypeData(unit_id=kind, armor=row["armor"], movement_speed=row["speed"] * 16 * FASTER)
            if row["damage"] > 0:
                weapon = unit.weapons.add(type=data_pb2.Weapon.Ground, damage=row["damage"], attacks=int(row["hits"]))
                weapon.range, weapon.speed = row["range"], row["period"] / 16 / FASTER
                for tag, attribute in ATTRIBUTES.items():
                    if trait["bonus_tags"] & TAG[tag]:
                        weapon.damage_bonus.add(attribute=attribute, bonus=row["bonus"])
            known[kind] = unit
        response.data.units.extend(known.values())

    def observation(self, request, response) -> None:
        seen = response.observation.observation
        seen.game_loop = 1
        units, first = self.env.units[0].numpy(), self.env.scenario.enemy_slot
        for slot, tag in self.tag_of.items():
            if units[UNIT["health"], slot] > 0 and not (self.loops == 2 and slot >= first):
                seen.raw_data.units.append(self.unit(units[:, slot], slot, tag))

    def unit(self, rows, slot: int, tag: int) -> raw_pb2.Unit:
        scenario = self.env.scenario
        kind, ally = int(self.env.minds[0, MIND["kind"], slot]), slot < scenario.enemy_slot
        bit = max(0, int(scenario.traits[TRAIT["type_bit"], kind]))
        return raw_pb2.Unit(
            tag=tag,
            owner=1 if ally else 2,
            alliance=raw_pb2.Self if ally else raw_pb2.Enemy,
            display_type=raw_pb2.Visible,
            unit_type=ALLY_TYPES + bit if ally else int(scenario.traits[TRAIT["type"], kind]),
            pos=common_pb2.Point(x=rows[UNIT["x"]], y=rows[UNIT["y"]]),
            health=rows[UNIT["health"]],
            shield=rows[UNIT["shield"]],
            energy=rows[UNIT["energy"]],
            weapon_cooldown=max(0.0, float(rows[UNIT["cooldown"]])),
            health_max=scenario.stats[STAT["health"], kind],
            shield_max=scenario.stats[STAT["shield"], kind],
            energy_max=scenario.stats[STAT["energy_limit"], kind],
        )

    def action(self, request, response) -> None:
        for action in request.actions:
            command = action.action_raw.unit_command
            (tag,) = command.unit_tags
            slot = self.slot_of.get(tag)
            known = slot is not None and bool(self.env.units[0, UNIT["health"], slot] > 0)
            response.action.result.append(error_pb2.Success if known else error_pb2.Error)
            if known:
                self.actions[slot] = self.chosen(command, slot)

    def chosen(self, command, slot: int) -> int:
        """The battle's action of an order."""
        if command.ability_id == STOP:
            return 1
        if command.ability_id == MOVE:
            x, y = (float(self.env.units[0, UNIT[axis], slot]) for axis in ("x", "y"))
            point, amount = command.target_world_space_pos, self.env.scenario.options.move_amount
            return DIRECTIONS[round((point.x - x) / amount), round((point.y - y) / amount)]
        target = self.slot_of[command.target_unit_tag]
        assert (command.ability_id == HEAL) == (target < self.env.scenario.enemy_slot), command
        return 6 + target - (0 if command.ability_id == HEAL else self.env.scenario.enemy_slot)

    def step(self, request, response) -> None:
        loops, waiting = request.count, self.loops is not None
        if waiting and loops != 8:
            if self.killed:
                self.now, self.killed = self.env.reset(), False
                self.begin()
            self.loops += loops
            return
        assert loops == 8, loops
        self.loops = None
        actions = [self.actions.get(agent, 0) for agent in range(self.env.spec.n_agents)]
        self.actions = {}
        self.now = self.env.step(torch.tensor([actions]))
        self.length, self.total = self.length + 1, self.total + float(self.now.reward)

    def debug(self, request, response) -> None:
        (command,) = request.debug
        units = self.env.units[0]
        alive = {tag for slot, tag in self.tag_of.items() if units[UNIT["health"], slot] > 0}
        assert set(command.kill_unit.tag) == alive, "all units must be killed, for the map to make new ones"
        self.killed, self.loops = True, 0

    def save_replay(self, request, response) -> None:
        self.replays += 1
        response.save_replay.data = b"a replay of the stand-in"
