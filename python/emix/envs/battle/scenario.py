"""A map, a balance and the user's options, as the tensors that the simulator reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emix.data import Discrete, EnvSpec
from emix.envs.battle import fields as rows
from emix.envs.battle.maps import BattleMap, load_map
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.spawn import Start, place_units
from emix.envs.battle.terrain import waypoints
from emix.envs.battle.units import Balance, load_balance
from emix.envs.options import LEAST
from emix.errors import UsageError

SIGHT, SHOOT_RANGE = 9.0, 6.0  # SMAC's, of every unit


@dataclass(frozen=True)
class Scenario:
    """A battle's sizes and tables; csrc/battle/fields.h says what the tables' rows are."""

    map: BattleMap
    balance: Balance
    options: BattleOptions
    allies: tuple[Start, ...]  # by agent: sorted by type, x and y, as SMAC does
    enemies: tuple[Start, ...]  # in the order of the map's file
    spec: EnvSpec
    layout: tuple[int, ...]  # allies, enemies, type bits, shields of either side, features
    max_reward: float  # SMAC's: of a clean win, before it is scaled
    stats: NDArray[np.float32]  # [stat rows, slots]
    traits: NDArray[np.int32]  # [trait rows, slots]
    rules: NDArray[np.float64]  # [rule rows]
    terrain: NDArray[np.uint8]  # [2, 32, 32]
    waypoints: NDArray[np.int16]  # [2, 1024, 1024] or [0, 0, 0]

    @property
    def enemy_slot(self) -> int:
        """Slot of the first enemy."""
        return _padded(len(self.allies))

    @property
    def slots(self) -> int:
        """Places for units, padding included."""
        return self.enemy_slot + _padded(len(self.enemies))


def make_scenario(name: str, map_name: str, options: BattleOptions) -> Scenario:
    """Read the map ``map_name``, a name or the path of a YAML file; ``name`` is what the environment is called.

    Raises:
        UsageError: a mistake in a file or an option, one clear sentence.
    """
    battle_map, balance = load_map(map_name), load_balance(options.balance)
    for option in ("closing_step", "obs_closed"):
        if getattr(options, option) not in (None, False) and not battle_map.can_close:
            raise UsageError(f"{name}: {option} needs a map that can close, such as 2_corridors")
    _refuse_too_many(battle_map)
    allies, enemies = place_units(battle_map, balance)
    types = battle_map.ally_types
    allies.sort(key=lambda start: (types.index(start.unit.name) if types else 0, start.x, start.y))
    life = sum(start.unit.life for start in enemies)
    max_reward = len(enemies) * options.reward_death_value + options.reward_win + life
    if _is_scaled(options) and max_reward < LEAST:
        raise UsageError(
            f"{name}: reward_scale divides by the reward of a clean win, which expects at least {LEAST:g}, got "
            f"{max_reward:g}: the enemies' life is {life:g}, reward_win {options.reward_win:g} and reward_death_value "
            f"{options.reward_death_value:g}; raise them, or set reward_scale=False"
        )
    shields = tuple(int(any(start.unit.stats["shield"] > 0 for start in side)) for side in (allies, enemies))
    limit = options.episode_limit or battle_map.limit
    layout = (len(allies), len(enemies), len(types), *shields, options.features)
    obs, state, actions = rows.sizes(layout)
    if options.obs_instead_of_state:
        state = len(allies) * obs
    return Scenario(
        map=battle_map,
        balance=balance,
        options=options,
        allies=tuple(allies),
        enemies=tuple(enemies),
        spec=EnvSpec(name, len(allies), Discrete(actions), obs, state, limit),
        layout=layout,
        max_reward=max_reward,
        stats=_stats(allies, enemies),
        traits=_traits(battle_map, allies, enemies),
        rules=_rules(battle_map, balance, options, limit, max_reward),
        terrain=battle_map.terrain,
        waypoints=waypoints(battle_map.terrain),
    )


def _is_scaled(options: BattleOptions) -> bool:
    return options.reward_scale and options.reward != "sparse_deaths"


def _refuse_too_many(battle_map: BattleMap) -> None:
    allies, enemies = (sum(group.count for group in side) for side in (battle_map.ally, battle_map.enemy))
    slots = _padded(allies) + _padded(enemies)
    if slots > rows.MAX_SLOTS:
        raise UsageError(
            f"{battle_map.source}: too many units: {allies} allies and {enemies} enemies need {slots} slots "
            f"(each side padded to a multiple of {rows.LANES}), at most {rows.MAX_SLOTS} are there"
        )


def _padded(units: int) -> int:
    return -(-units // rows.LANES) * rows.LANES


def _stats(allies: list[Start], enemies: list[Start]) -> NDArray[np.float32]:
    table = np.zeros((len(rows.STAT), _padded(len(allies)) + _padded(len(enemies))), np.float32)  # [rows, slots]
    for slot, start in _by_slot(allies, enemies):
        for row, value in {**start.unit.stats, "spawn_x": start.x, "spawn_y": start.y}.items():
            table[rows.STAT[row], slot] = value
    return table


def _traits(battle_map: BattleMap, allies: list[Start], enemies: list[Start]) -> NDArray[np.int32]:
    first_enemy = _padded(len(allies))
    slots = first_enemy + _padded(len(enemies))
    table = np.zeros((len(rows.TRAIT), slots), np.int32)  # [rows, slots]
    table[rows.TRAIT["type_bit"]] = -1
    table[rows.TRAIT["place"]] = np.arange(slots)
    for slot, start in _by_slot(allies, enemies):
        unit, types = start.unit, battle_map.ally_types if slot < first_enemy else battle_map.enemy_types
        values = {
            "type": unit.id,
            "type_bit": types.index(unit.name) if types else -1,
            "tags": unit.tags,
            "bonus_tags": unit.bonus_tags,
            "layer": unit.layer,
            "weapon": unit.weapon,
            "reach": unit.reach,
            "order": rows.ORDER["stop" if slot < first_enemy else battle_map.enemy_order],
        }
        for row, value in values.items():
            table[rows.TRAIT[row], slot] = value
    ranked = sorted(range(len(enemies)), key=lambda j: (enemies[j].unit.id, enemies[j].x, enemies[j].y))
    table[rows.TRAIT["place"], first_enemy : first_enemy + len(enemies)] = first_enemy + np.array(ranked)
    return table


def _by_slot(allies: list[Start], enemies: list[Start]) -> list[tuple[int, Start]]:
    return [*enumerate(allies), *enumerate(enemies, start=_padded(len(allies)))]


def _rules(
    battle_map: BattleMap, balance: Balance, options: BattleOptions, limit: int, max_reward: float
) -> NDArray[np.float64]:
    (goal_x, goal_y), (other_goal_x, other_goal_y) = battle_map.goals
    values = {
        **balance.rules,
        "episode_limit": limit,
        "sight": SIGHT,
        "shoot_range": SHOOT_RANGE,
        "move_amount": options.move_amount,
        "map_width": rows.CELLS,
        "map_height": rows.CELLS,
        "playable_width": rows.CELLS,
        "playable_height": rows.CELLS,
        "spawn_jitter": options.spawn_jitter,
        "enemy_order": rows.ENEMY_ORDER[options.enemy_order],
        "retarget": rows.RETARGET[options.retarget],
        "goal_x": goal_x,
        "goal_y": goal_y,
        "other_goal_x": other_goal_x,
        "other_goal_y": other_goal_y,
        "reward": rows.REWARD[options.reward],
        "reward_only_positive": options.reward_only_positive,
        "reward_absolute": options.reward_absolute,
        "reward_death_value": options.reward_death_value,
        "reward_negative_scale": options.reward_negative_scale,
        "reward_win": options.reward_win,
        "reward_defeat": options.reward_defeat,
        "reward_divisor": max_reward / options.reward_scale_rate if _is_scaled(options) else 1.0,
    }
    if not options.weapon_delay:
        values |= {"cooldown_low": 0.0, "cooldown_high": 0.0}
    return np.array([values[row] for row in rows.RULE], np.float64)
