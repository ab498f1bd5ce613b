"""Level-based foraging through the package ``lbforaging``; workers import this file, so it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.foraging_task import read_task
from emix.envs.options import ForagingOptions, read_options
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.host import HostEnv


class Foraging(gymnasium.Env):
    """One ``lbforaging`` environment with the observation that ``emix.envs.HostEnv`` reads.

    obs: each agent's own view, 3 numbers (row, column, level) for each food and each player, the agent itself first;
    -1, -1, 0 for what is out of sight. state: all agents' observations one after another, as in EPyMARL. Every action
    (none, north, south, west, east, load) is available, as in EPyMARL: an impossible one does nothing. reward: the
    sum of the agents' rewards, at most 1 over an episode. No food left is ``terminated``; the time limit is
    ``truncated``: lbforaging itself reports both as done.
    """

    def __init__(self, **settings: Any) -> None:
        from lbforaging.foraging import ForagingEnv

        self._env = ForagingEnv(**settings)
        agents, size = self._env.n_agents, self._env.observation_space[0].shape[0]
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (agents, size), np.float32),
            state=spaces.Box(-np.inf, np.inf, (agents * size,), np.float32),
            avail=spaces.MultiBinary((agents, 6)),
        )
        self.action_space = spaces.MultiDiscrete([6] * agents)
        self._avail = np.ones((agents, 6), np.int8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode that depends on ``seed`` alone."""
        for player in self._env.players:
            # lbforaging keeps players off the places where the last episode left them
            player.position = None
        obs, info = self._env.reset(seed=seed)
        return self._observe(obs), info

    def step(self, action: list[int]) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take one action per agent."""
        obs, rewards, done, _, info = self._env.step(action)
        terminated = not self._env.field.any()
        return self._observe(obs), sum(rewards), terminated, done and not terminated, info

    def _observe(self, obs: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        views = np.array(obs)  # [n, O]
        return {"obs": views, "state": views.reshape(-1), "avail": self._avail}


def foraging_settings(name: str, episode_limit: int = ForagingOptions.episode_limit) -> dict[str, Any]:
    """Return the arguments of ``lbforaging.foraging.ForagingEnv`` for ``name``: those that lbforaging 2.0.0 registers.

    Ids beyond the registered range (fields 5 to 19, players 2 to 9, foods 1 to 4, sight 2) work too: 10x10-3p-5f.
    """
    task = read_task(name)
    if task.version != 3:
        raise UsageError(
            f"{name}: lbforaging 2 has v3 tasks only (v2 has other levels), got v{task.version}: use -v3, or "
            f"foraging/..., which has both"
        )
    return {
        "players": task.players,
        "min_player_level": 1,
        "max_player_level": 2,
        "field_size": (task.size, task.size),
        "min_food_level": 1,
        "max_food_level": None,
        "max_num_food": task.foods,
        "sight": task.sight,
        "max_episode_steps": episode_limit,
        "force_coop": task.coop,
        "grid_observation": False,
        "penalty": 0.0,
    }


def make_foraging(name: str, options: Mapping[str, Any], **batch: Any) -> HostEnv:
    """Build the environments ``name`` in worker processes."""
    from emix.envs.host import HostEnv

    limit = read_options(name, ForagingOptions, options).episode_limit
    return HostEnv(name, partial(Foraging, **foraging_settings(name, limit)), episode_limit=limit, **batch)
