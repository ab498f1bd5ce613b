"""emix: fused CPU and CUDA ops, environments and learners for multi-agent reinforcement learning.

``emix.ops`` are the fused ops; ``emix.make`` builds an environment, ``emix.list_envs`` lists all of them,
``emix.register_env`` adds one;
``emix.train`` trains a learner on one, and ``emix.load`` gives a trained policy back. What is heavy is imported when it
is first used: the worker processes of an environment import this package without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emix._version import __version__

if TYPE_CHECKING:
    from emix import data, envs, learners, nn, ops, playing, training
    from emix.envs import list_envs, make, register_env
    from emix.learners import register_learner
    from emix.training import load, train

__all__ = [
    "__version__",
    "data",
    "envs",
    "learners",
    "list_envs",
    "load",
    "make",
    "nn",
    "ops",
    "playing",
    "register_env",
    "register_learner",
    "train",
    "training",
]

_MODULES = {"data", "envs", "learners", "nn", "ops", "playing", "training"}
_LAZY = {
    "list_envs": "emix.envs",
    "load": "emix.training",
    "make": "emix.envs",
    "register_env": "emix.envs",
    "register_learner": "emix.learners",
    "train": "emix.training",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"emix.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'emix' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What is for users: the functions, and the modules beside them."""
    return sorted(__all__)
