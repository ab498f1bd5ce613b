"""``gym/<id>``: an environment of gymnasium's, by its id, with one agent; workers import this, so without torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from emix.envs.foreign import JointActions, built, flat_size, flattened, observation_space
from emix.envs.options import GymOptions, read_options
from emix.errors import UsageError, closest

if TYPE_CHECKING:
    from emix.envs.host import HostEnv


class SingleAgent(gymnasium.Env):
    """One ``gymnasium.make(id, **arguments)`` with the observation that ``emix.envs.HostEnv`` reads: one agent, whose
    observation, flattened, is the state, too.

    ``gymnasium.make`` keeps the time limit; where an episode ends by its rules in its last step, it is terminated.
    """

    def __init__(self, name: str, spec: EnvSpec, options: GymOptions) -> None:
        make = partial(gymnasium.make, spec, max_episode_steps=options.episode_limit, disable_env_checker=True)
        self._env = built(name, make, options.arguments)
        self._actions = JointActions(name, [self._env.action_space])
        self.action_space = self._actions.space
        size = flat_size(name, "the observation", self._env.observation_space)
        self.observation_space = observation_space(1, size, size, self._actions)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode from ``seed``."""
        obs, info = self._env.reset(seed=seed)
        return self._observe(obs), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take the one agent's action."""
        obs, reward, terminated, truncated, info = self._env.step(self._actions.of(0, action[0]))
        return self._observe(obs), float(reward), bool(terminated), bool(truncated and not terminated), info

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, obs: Any) -> dict[str, np.ndarray]:
        numbers = flattened(self._env.observation_space, obs)  # [O]
        seen = {"obs": numbers[None], "state": numbers}
        return seen if self._actions.avail is None else seen | {"avail": self._actions.avail}


def make_gym(name: str, options: Mapping[str, Any], **batch: Any) -> HostEnv:
    """Build the environments ``name`` in worker processes."""
    from emix.envs.host import HostEnv

    chosen, spec = read_options(name, GymOptions, options), _spec(name)
    limit = chosen.episode_limit or spec.max_episode_steps
    if limit is None:
        raise UsageError(f"{name} has no time limit of its own: give one, such as episode_limit=1000")
    return HostEnv(name, partial(SingleAgent, name, spec, chosen), episode_limit=limit, **batch)


def _spec(name: str) -> EnvSpec:
    """What gymnasium has registered by that id; workers get it, as they have not imported what registers an id of a
    user's. An id of the form ``module:id`` would import the module, which may be a stranger's."""
    found = name.removeprefix("gym/")
    if ":" in found:
        module, _, found = found.partition(":")
        raise UsageError(f"{name}: expected an id alone, gym/{found}; import what registers it with --import {module}")
    if found not in gymnasium.registry:
        raise UsageError(
            f"{name}: gymnasium knows no {found!r}, {closest(found, gymnasium.registry, most=20)}; what a package or a "
            f"file of yours registers is there after --import"
        )
    return gymnasium.spec(found)
