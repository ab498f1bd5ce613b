"""The environments behind other libraries' interfaces: PettingZoo's ``ParallelEnv`` and gymnasium's ``VectorEnv``."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from emix.data import Discrete, Step
from emix.envs.core import Env
from emix.envs.registry import make
from emix.errors import UsageError


def vector_env(
    name: str, *, num_envs: int = 1, device: str | torch.device = "cpu", seed: int = 0, **options: Any
) -> VectorAdapter:
    """Build ``emix.make(...)`` as a ``gymnasium.vector.VectorEnv``: NumPy in and out, next-step autoreset."""
    return VectorAdapter(name, num_envs, device, seed, options)


def parallel_env(name: str, seed: int = 0, **options: Any) -> Any:
    """Build one ``name`` as a PettingZoo ``ParallelEnv`` with agents ``agent_0``, ``agent_1``, ...

    Each agent gets the team's reward. An observation is a dict of ``observation`` and, where actions are discrete,
    ``action_mask``; ``state()`` is the state. Raises UsageError where PettingZoo is not installed.
    """
    if find_spec("pettingzoo") is None:
        raise UsageError(
            f'parallel_env({name!r}) needs PettingZoo, which is not installed: pip install "emix[pettingzoo]"'
        )
    from emix.envs.parallel import ParallelAdapter

    return ParallelAdapter(name, seed, options)


class VectorAdapter(gymnasium.vector.VectorEnv):
    """What ``vector_env`` builds.

    ``reset(seed=s)`` starts over as ``emix.make(..., seed=s)`` would; without a seed the next episodes begin. A
    finished environment is reset by the next step, which ignores its action and returns reward 0 and the first
    observation.
    """

    def __init__(
        self, name: str, num_envs: int, device: str | torch.device, seed: int, options: dict[str, Any]
    ) -> None:
        self._make = partial(make, name, num_envs=num_envs, device=device, **options)
        self._env: Env = self._make(seed=seed)
        spec = self._env.spec
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        seen: dict[str, spaces.Space] = {
            "obs": spaces.Box(-np.inf, np.inf, (spec.n_agents, spec.obs_dim), np.float32),
            "state": spaces.Box(-np.inf, np.inf, (spec.state_dim,), np.float32),
        }
        if isinstance(spec.action, Discrete):
            seen["avail"] = spaces.MultiBinary((spec.n_agents, spec.action.n))
        self.single_observation_space = spaces.Dict(seen)
        self.single_action_space = spec.action.joint_space(spec.n_agents)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._finished = torch.zeros(num_envs, dtype=torch.bool, device=self._env.device)  # [E]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode in every environment."""
        if seed is not None:
            self._env.close()
            self._env = self._make(seed=seed)
        return self._observe(self._env.reset()), {}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        """Take the joint ``actions`` where an episode is running, and start one where it is not: [E, n] integers, or
        [E, n, D] numbers where the action space is a Box."""
        spec = self._env.spec
        step = self._env.step(spec.action.tensor(spec.name, actions, self._env.device))
        reward = step.reward.double().cpu().numpy()  # [E]; 0 in an environment that is reset now
        if self._finished.any():
            step = self._env.reset(self._finished)
        return self._observe(step), reward, step.terminated.cpu().numpy(), step.truncated.cpu().numpy(), {}

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, step: Step) -> dict[str, np.ndarray]:
        self._finished = step.done
        seen = {"obs": step.obs.cpu().numpy(), "state": step.state.cpu().numpy()}
        if step.avail is not None:
            seen["avail"] = step.avail.to(torch.int8).cpu().numpy()
        return seen
