"""The real game beside the battle: what the game says of its units, and scripts that both play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emix.envs.battle.fields import MIND, STAT, TAG, TRAIT, UNIT
from emix.envs.battle.scenario import Scenario
from emix.envs.registry import make
from emix.envs.sc2.connection import LostError
from emix.envs.sc2.env import SC2Battle, read_task
from emix.envs.sc2.measures import Course, Difference, compare
from emix.envs.sc2.scripts import Script, View, choose_all

if TYPE_CHECKING:
    from s2clientprotocol import data_pb2, raw_pb2

    from emix.envs.battle.env import BattleEnv

_SECOND = 16.0  # game loops, of the speed "normal" that the data's files have; the API may say those of "faster"
_FASTER = 1.4
_PART = 0.01  # by which a number of the data may differ: the API rounds
_GROUND, _ANY = 1, 3  # kinds of weapon
_ATTRIBUTES = {1: "light", 2: "armored", 3: "biological", 4: "mechanical", 7: "massive", 8: "structure"}


def check_script(name: str, script: Script, *, seed: int, build: int | None) -> list[Difference]:
    """Play a script in StarCraft II and in the battle, and compare its course and what the game says of the units.

    The battle starts with the places of the game's units, and gets the same orders, which are made of what the game
    shows; the random numbers are each one's own.

    Raises:
        UsageError: StarCraft II or the map is not there.
        RuntimeError: the game was lost.
    """
    scenario, _, make_env = read_task(f"sc2/{script.map}", {"build": build})
    game = make_env()
    battle: Any = make(f"battle/{script.map}", seed=seed, spawn_jitter=0.0, checked=False)
    try:
        seen, _ = game.reset(seed=seed)
        data = compare_data(script.map, scenario, _by_kind(game))
        battle.reset()
        _start_alike(game, battle)
        return data + compare(name, *_play(script, seen, game, battle))
    except LostError as error:
        raise RuntimeError(f"sc2/{script.map}: {error}: try again, or see `emix doctor`") from error
    finally:
        game.close()
        battle.close()


def compare_data(
    map_name: str, scenario: Scenario, units: Mapping[int, tuple[raw_pb2.Unit, data_pb2.UnitTypeData]]
) -> list[Difference]:
    """Compare what the game says of the units on the map with the balance.

    Args:
        map_name: for the differences.
        scenario: the battle's.
        units: the game's units and data, by the slot in whose columns the balance has them.
    """
    kinds: dict[str, tuple[int, raw_pb2.Unit, data_pb2.UnitTypeData]] = {}  # a unit of each type and side
    for slot, (unit, data) in units.items():
        side = "enemy" if slot >= scenario.enemy_slot else "allied"
        kinds.setdefault(f"{side} {_kind(scenario, slot)}", (slot, unit, data))
    by_clock = [
        [
            Difference(f"data of {map_name}", what, whose, theirs, ours)
            for whose, (slot, unit, data) in kinds.items()
            for what, theirs, ours in _numbers(scenario, slot, unit, data, clock)
            if abs(theirs - ours) > _PART * max(abs(ours), 1.0)
        ]
        for clock in (1.0, _FASTER)
    ]
    return min(by_clock, key=len)


def _numbers(
    scenario: Scenario, slot: int, unit: raw_pb2.Unit, data: data_pb2.UnitTypeData, clock: float
) -> list[tuple[str, float, float]]:
    """What is compared of a type of unit: its name, the game's value and the battle's. Times are seconds of the speed
    "normal"; the game's are of one that is ``clock`` times as fast."""
    row = {name: float(scenario.stats[k, slot]) for name, k in STAT.items()}
    trait = {name: int(scenario.traits[k, slot]) for name, k in TRAIT.items()}
    found = [
        ("health", unit.health_max, row["health"]),
        ("shield", unit.shield_max, row["shield"]),
        ("armour", data.armor, row["armor"]),
        ("speed, cells a second", data.movement_speed / clock, row["speed"] * _SECOND),
    ]
    if row["damage"] == 0:
        return found
    weapon = next((weapon for weapon in data.weapons if weapon.type in (_GROUND, _ANY)), None)
    if weapon is None:
        return [*found, ("weapons", 0.0, 1.0)]
    against = {_ATTRIBUTES.get(bonus.attribute, ""): bonus.bonus for bonus in weapon.damage_bonus}
    tags = [tag for tag, bit in TAG.items() if trait["bonus_tags"] & bit]
    return [
        *found,
        ("weapon: damage", weapon.damage, row["damage"]),
        *((f"weapon: bonus against {tag}", against.get(tag, 0.0), row["bonus"]) for tag in tags),
        *((f"weapon: bonus against {tag}", bonus, 0.0) for tag, bonus in against.items() if tag not in tags),
        ("weapon: hits of a shot", weapon.attacks, row["hits"]),
        ("weapon: range", weapon.range, row["range"]),
        ("weapon: period, seconds", weapon.speed * clock, row["period"] / _SECOND),
    ]


def _by_kind(game: SC2Battle) -> dict[int, tuple[raw_pb2.Unit, data_pb2.UnitTypeData]]:
    """A unit of each type and its data; enemies of several types may stand in any order."""
    return {int(game.units.minds[MIND["kind"], slot]): known for slot, known in game.unit_data().items()}


def _start_alike(game: SC2Battle, battle: BattleEnv) -> None:
    """Put the battle's units where the game's are."""
    for row in ("x", "y"):
        battle.units[0, UNIT[row]] = torch.from_numpy(game.units.units[UNIT[row]])
    battle.minds[0, MIND["kind"]] = torch.from_numpy(game.units.minds[MIND["kind"]])


def _play(script: Script, seen: Mapping[str, np.ndarray], game: SC2Battle, battle: BattleEnv) -> tuple[Course, Course]:
    """The two courses, up to the game's end."""
    scenario = game.units.scenario
    real, simulated = [game.units.units.copy()], [battle.units[0].numpy().copy()]  # [rows, slots] each
    paid: list[float] = []
    simulated_paid: list[float] = []
    over = simulated_over = False
    while not over and len(paid) < script.most_steps:
        actions = choose_all(script, _view(seen, game))
        seen, reward, terminated, truncated, info = game.step(actions)
        if info["simulator_lost"]:
            raise LostError("the game was lost")
        real.append(game.units.units.copy())
        paid.append(reward)
        over = terminated or truncated
        if not simulated_over:
            step = battle.step(torch.tensor([actions]))
            simulated.append(battle.units[0].numpy().copy())
            simulated_paid.append(float(step.reward))
            simulated_over = bool(step.done)
    slots = [*range(len(scenario.allies)), *(scenario.enemy_slot + k for k in range(len(scenario.enemies)))]
    kinds = {slot: _kind(scenario, int(game.units.minds[MIND["kind"], slot])) for slot in slots}
    first = scenario.enemy_slot
    return _course(real, paid, kinds, first), _course(simulated, simulated_paid, kinds, first)


def _course(frames: list[np.ndarray], rewards: list[float], kinds: Mapping[int, str], enemy_slot: int) -> Course:
    rows = np.stack(frames).astype(np.float64)  # [T + 1, rows, slots]
    health, shield = rows[:, UNIT["health"]], rows[:, UNIT["shield"]]
    return Course(
        places=np.stack([rows[:, UNIT["x"]], rows[:, UNIT["y"]]], axis=2),
        life=np.where(health > 0, health + shield, 0),
        cooldown=np.maximum(rows[:, UNIT["cooldown"]], 0),
        rewards=np.array(rewards),
        kinds=kinds,
        enemy_slot=enemy_slot,
    )


def _view(seen: Mapping[str, np.ndarray], game: SC2Battle) -> View:
    scenario, rows = game.units.scenario, game.units.units
    allies = slice(len(scenario.allies))
    enemies = slice(scenario.enemy_slot, scenario.enemy_slot + len(scenario.enemies))
    places = np.stack([rows[UNIT["x"]], rows[UNIT["y"]]], axis=1)  # [slots, 2]
    return View(
        places[allies],
        places[enemies],
        rows[UNIT["shield"], allies],
        rows[UNIT["health"], enemies] > 0,
        seen["avail"].astype(bool),
    )


def _kind(scenario: Scenario, slot: int) -> str:
    """The name of the type of unit whose statistics stand at ``slot``."""
    first = scenario.enemy_slot
    return (scenario.allies[slot] if slot < first else scenario.enemies[slot - first]).unit.name
