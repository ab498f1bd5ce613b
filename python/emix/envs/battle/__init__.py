"""The battle: SMAC's maps on tensors, thousands at once, on the CPU or a GPU.

``emix.make("battle/3m")`` builds the batch; ``StarCraft2Env`` is a drop-in for ``smac.env.StarCraft2Env`` over one
battle. Units are in ``balance/*.yaml``, maps in ``maps/*.yaml``; a user's own map is another such file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "BattleEnv": "env",
    "BattleOptions": "options",
    "Scenario": "scenario",
    "StarCraft2Env": "starcraft",
    "list_maps": "maps",
    "load_balance": "units",
    "load_map": "maps",
    "make_scenario": "scenario",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
