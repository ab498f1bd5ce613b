"""One environment as a PettingZoo ``ParallelEnv``: what ``emix.envs.parallel_env`` builds."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from emix.data import Discrete, Step
from emix.data.integers import check_seed
from emix.envs.core import Env
from emix.envs.registry import make
from emix.errors import UsageError


class ParallelAdapter(ParallelEnv):
    """What ``parallel_env`` builds.

    ``reset(seed=s)`` starts over as ``emix.make(..., seed=s)`` would; without a seed the next episode begins.
    """

    def __init__(self, name: str, seed: int, options: dict[str, Any]) -> None:
        self._make = partial(make, name, **options)
        self._env: Env = self._make(seed=seed)
        spec = self._env.spec
        self.metadata = {"name": name, "render_modes": []}
        self.render_mode = None
        self.possible_agents = [f"agent_{i}" for i in range(spec.n_agents)]
        self.agents: list[str] = []
        self.state_space = spaces.Box(-np.inf, np.inf, (spec.state_dim,), np.float32)
        observation: dict[str, spaces.Space] = {"observation": spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)}
        if isinstance(spec.action, Discrete):
            observation["action_mask"] = spaces.MultiBinary(spec.action.n)
        self._observation_spaces = {agent: spaces.Dict(observation) for agent in self.possible_agents}
        self._action_spaces = {agent: spec.action.space() for agent in self.possible_agents}
        self._state = np.zeros(spec.state_dim, np.float32)

    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the space of ``agent``'s observations."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Return the space of ``agent``'s actions."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, dict]]:
        """Start an episode: observations and infos by agent."""
        if seed is not None:
            seed = check_seed(f"{self._env.spec.name}: seed", seed)  # before the old one is gone
            self._env.close()
            self._env = self._make(seed=seed)
        self.agents = list(self.possible_agents)
        step = self._env.reset()
        return self._observe(step), {agent: _info(step) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Take one action per agent: observations, rewards, terminations, truncations and infos by agent."""
        agents, spec = self.agents, self._env.spec
        if not agents:
            raise UsageError(
                f"{spec.name}: step was called before reset, or after the episode's end: call reset() first"
            )
        if set(actions) != set(agents):
            raise UsageError(f"{spec.name}: step expects an action of each of {agents}, got those of {list(actions)}")
        joint = [[np.asarray(actions[agent]) for agent in agents]]  # [1, n] or [1, n, D]
        step = self._env.step(spec.action.tensor(spec.name, joint, self._env.device))
        observations = self._observe(step)
        reward, terminated, truncated = float(step.reward), bool(step.terminated), bool(step.truncated)
        if terminated or truncated:
            self.agents = []
        return (
            observations,
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            {agent: _info(step) for agent in agents},
        )

    def state(self) -> np.ndarray:
        """Return the state [S]."""
        return self._state

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._env.__reduce_ex__(protocol)  # raises where the environment cannot be copied, before anything is made
        return super().__reduce_ex__(protocol)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, step: Step) -> dict[str, Any]:
        seen = {"observation": step.obs[0].cpu().numpy()}  # [n, O]
        if step.avail is not None:
            seen["action_mask"] = step.avail[0].to(torch.int8).cpu().numpy()  # [n, A]
        self._state = step.state[0].cpu().numpy()  # [S]
        return {agent: {key: value[i] for key, value in seen.items()} for i, agent in enumerate(self.possible_agents)}


def _info(step: Step) -> dict[str, Any]:
    """The infos of the one environment: numbers, without those that it does not give."""
    infos = {name: column[0].tolist() for name, column in step.info.items()}
    return {name: value for name, value in infos.items() if value == value}
