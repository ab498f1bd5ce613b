"""The battle: SMAC's maps on tensors, thousands at once, on the CPU or a GPU.

``emix.make("battle/3m")`` builds the batch; ``StarCraft2Env`` is a drop-in for ``smac.env.StarCraft2Env`` over one
battle. Units are in ``balance/*.yaml``, maps in ``maps/*.yaml``; a user's own map is another such file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emix._lazy import lazy_names

if TYPE_CHECKING:
    from emix.envs.battle.env import BattleEnv
    from emix.envs.battle.maps import list_maps, load_map
    from emix.envs.battle.options import BattleOptions
    from emix.envs.battle.scenario import Scenario, make_scenario
    from emix.envs.battle.starcraft import StarCraft2Env
    from emix.envs.battle.units import load_balance

__all__ = [
    "BattleEnv",
    "BattleOptions",
    "Scenario",
    "StarCraft2Env",
    "list_maps",
    "load_balance",
    "load_map",
    "make_scenario",
]

_LAZY = {
    "BattleEnv": "emix.envs.battle.env",
    "BattleOptions": "emix.envs.battle.options",
    "Scenario": "emix.envs.battle.scenario",
    "StarCraft2Env": "emix.envs.battle.starcraft",
    "list_maps": "emix.envs.battle.maps",
    "load_balance": "emix.envs.battle.units",
    "load_map": "emix.envs.battle.maps",
    "make_scenario": "emix.envs.battle.scenario",
}

__getattr__ = lazy_names(__name__, _LAZY)
