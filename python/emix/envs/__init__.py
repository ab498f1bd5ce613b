"""Environments: ``make`` builds one by name, ``list_envs`` lists the names, ``register_env`` adds your own and
``check_env`` tests it.

Everything that needs torch or a simulator is imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emix._lazy import lazy_names
from emix.envs.core import Env, EnvSpec, Step, advance, episode_seed
from emix.envs.registry import EnvInfo, list_envs, make, register_env

if TYPE_CHECKING:
    from emix.envs.adapters import parallel_env, vector_env
    from emix.envs.checker import check_env
    from emix.envs.host import EnvWorkerError, HostEnv

__all__ = [
    "Env",
    "EnvInfo",
    "EnvSpec",
    "EnvWorkerError",
    "HostEnv",
    "Step",
    "advance",
    "check_env",
    "episode_seed",
    "list_envs",
    "make",
    "parallel_env",
    "register_env",
    "vector_env",
]

_LAZY = {
    "EnvWorkerError": "emix.envs.host",
    "HostEnv": "emix.envs.host",
    "check_env": "emix.envs.checker",
    "parallel_env": "emix.envs.adapters",
    "vector_env": "emix.envs.adapters",
}

__getattr__ = lazy_names(__name__, _LAZY)
