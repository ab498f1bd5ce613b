"""Level-based foraging through the package ``lbforaging``; workers import this file, so it does not import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.options import ForagingOptions, read_options
from emix.envs.registry import unknown_name
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.host import HostEnv

_ID = re.compile(
    r"lbf/Foraging(?:-(?P<sight>\d+)s)?-(?P<rows>\d+)x(?P<cols>\d+)-(?P<players>\d+)p-(?P<foods>\d+)f(?P<coop>-coop)?"
    r"-v(?P<version>\d+)"
)


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
    match = _ID.fullmatch(name)
    if match is None:
        raise unknown_name(name)
    if match["version"] != "3":
        raise UsageError(
            f"{name}: lbforaging 2 has v3 tasks only (v2 has other levels), got v{match['version']}: use -v3"
        )
    rows, cols, players, foods = (int(match[key]) for key in ("rows", "cols", "players", "foods"))
    sight = int(match["sight"] or rows)
    if rows != cols or rows < 5:
        raise UsageError(f"{name}: the field must be square with sides of at least 5, got {rows}x{cols}")
    most = rows * rows // 4
    if not (2 <= players <= 2 * most and 1 <= foods <= most and 1 <= sight <= rows):
        raise UsageError(
            f"{name}: this field takes 2 to {2 * most} players, 1 to {most} foods and a sight of 1 to {rows}, "
            f"got {players}, {foods} and {sight}"
        )
    return {
        "players": players,
        "min_player_level": 1,
        "max_player_level": 2,
        "field_size": (rows, cols),
        "min_food_level": 1,
        "max_food_level": None,
        "max_num_food": foods,
        "sight": sight,
        "max_episode_steps": episode_limit,
        "force_coop": match["coop"] is not None,
        "grid_observation": False,
        "penalty": 0.0,
    }


def make_foraging(name: str, options: Mapping[str, Any], **batch: Any) -> HostEnv:
    """Build the environments ``name`` in worker processes."""
    from emix.envs.host import HostEnv

    limit = read_options(name, ForagingOptions, options).episode_limit
    return HostEnv(name, partial(Foraging, **foraging_settings(name, limit)), episode_limit=limit, **batch)
