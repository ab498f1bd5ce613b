"""The rows of a battle's tensors and its constants, as csrc/battle/fields.h names them.

``UNIT["health"]`` is the row of the units' health, ``ORDER["attack_move"]`` the number of that order.
"""

from __future__ import annotations

from emix import _host


def _rows(tensor: str) -> dict[str, int]:
    return {name: row for row, name in enumerate(_host.battle_fields()[tensor])}


UNIT, MIND, CLOCK = _rows("unit"), _rows("mind"), _rows("clock")
STAT, TRAIT, RULE = _rows("stat"), _rows("trait"), _rows("rule")

_CONSTANTS = _host.battle_constants()
LANES: int = _CONSTANTS["lanes"]
CELLS: int = _CONSTANTS["map"]  # along either axis
LOOPS: int = _CONSTANTS["loops"]  # in an environment step
MAX_SLOTS: int = _CONSTANTS["max_slots"]
ORDER: dict[str, int] = _CONSTANTS["Order"]
STATUS: dict[str, int] = _CONSTANTS["Status"]
TAG: dict[str, int] = _CONSTANTS["Tag"]
LAYER: dict[str, int] = _CONSTANTS["Layer"]
WEAPON: dict[str, int] = _CONSTANTS["Weapon"]
ENEMY_ORDER: dict[str, int] = _CONSTANTS["EnemyOrder"]
RETARGET: dict[str, int] = _CONSTANTS["Retarget"]
REWARD: dict[str, int] = _CONSTANTS["Reward"]
FEATURE: dict[str, int] = _CONSTANTS["Feature"]


def sizes(layout: tuple[int, ...]) -> tuple[int, int, int]:
    """Numbers in an observation and in the state, and actions; SMAC's: table A7 in docs/environments.md."""
    observation, state, actions = _host.battle_sizes(*layout)
    return observation, state, actions
