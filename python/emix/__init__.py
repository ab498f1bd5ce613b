"""emix: fused CPU and CUDA ops, environments and learners for multi-agent reinforcement learning.

``emix.ops`` are the fused ops, ``emix.make`` an environment, ``emix.list_envs`` all of them, ``emix.register_env`` adds
one. What is heavy is imported when it is first used: the worker processes of an environment import this package without
torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emix import envs, learners, nn, ops, training
    from emix.envs import list_envs, make, register_env

try:
    __version__ = version("emix")
except PackageNotFoundError:  # used from a folder of sources
    __version__ = "unknown"

__all__ = ["envs", "learners", "list_envs", "make", "nn", "ops", "register_env", "training"]

_MODULES = {"envs", "learners", "nn", "ops", "training"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"emix.{name}")
    if name in ("make", "list_envs", "register_env"):
        return getattr(importlib.import_module("emix.envs"), name)
    raise AttributeError(f"module 'emix' has no attribute '{name}'")
