"""``pettingzoo/<module>``: a parallel environment of PettingZoo's; workers import this, so it does not import torch."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.foreign import JointActions, built, flat_size, flattened, observation_space
from emix.envs.options import PettingZooOptions, read_options
from emix.errors import UsageError, closest

if TYPE_CHECKING:
    from emix.envs.host import HostEnv

PACKAGES = ("mpe2",)  # of PettingZoo's makers, besides itself: a name in a stranger's run imports nothing else


class Parallel(gymnasium.Env):
    """One ``parallel_env(**arguments)`` with the observation that ``emix.envs.HostEnv`` reads.

    obs: each agent's own, flattened, zeros after it where another agent's is longer, and all zeros once the agent has
    left. state: the environment's where it has a ``state_space``, else all observations one after another. avail: the
    ``action_mask`` where the observation is a dict of ``observation`` and that, and an agent's own count of actions; of
    one that has left, action 0, which nobody is told of. reward: the sum of the agents', or their mean. The episode
    ends when all agents have left: ``terminated``, unless one of the last was truncated.
    """

    def __init__(self, name: str, make: Callable[..., Any], options: PettingZooOptions) -> None:
        self._env = built(name, make, options.arguments)
        self._agents = list(getattr(self._env, "possible_agents", []))
        if not self._agents:
            raise UsageError(f"{name}: expected an environment with possible_agents, all that an episode may have")
        views = [self._env.observation_space(agent) for agent in self._agents]
        self._masked = [
            isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", "action_mask"} for space in views
        ]
        self._views: list[Any] = [s["observation"] if m else s for s, m in zip(views, self._masked, strict=True)]
        self._actions = JointActions(name, [self._env.action_space(agent) for agent in self._agents])
        if any(self._masked) and self._actions.avail is None:
            raise UsageError(f"{name}: an action_mask expects discrete actions")
        sizes = [
            flat_size(name, f"{agent}'s observation", s) for agent, s in zip(self._agents, self._views, strict=True)
        ]
        state = getattr(self._env, "state_space", None)
        self._state: Any = state if isinstance(state, spaces.Space) else None
        self._shape = len(self._agents), max(sizes)
        state_size = self._shape[0] * self._shape[1] if self._state is None else flat_size(name, "state", self._state)
        self.action_space = self._actions.space
        self.observation_space = observation_space(*self._shape, state_size, self._actions)
        self._limit, self._time, self._mean = options.episode_limit, 0, options.reward == "mean"

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode from ``seed``."""
        self._time = 0
        obs, infos = self._env.reset(seed=seed)
        return self._observe(obs), _first(infos)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take one action of each agent that is there."""
        living = set(self._env.agents)
        joint = {
            agent: self._actions.of(i, row)
            for i, (agent, row) in enumerate(zip(self._agents, action, strict=True))
            if agent in living
        }
        obs, rewards, terminations, truncations, infos = self._env.step(joint)
        self._time += 1
        left = [agent for agent in self._env.agents if not (terminations.get(agent) or truncations.get(agent))]
        terminated = not left and all(terminations.values())
        late = self._limit is not None and self._time >= self._limit
        reward = float(sum(rewards.values())) / (len(self._agents) if self._mean else 1)
        return self._observe(obs), reward, terminated, not terminated and (not left or late), _first(infos)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    def max_cycles(self) -> int | None:
        """The environment's own time limit, as PettingZoo's have it."""
        limit = getattr(getattr(self._env, "unwrapped", self._env), "max_cycles", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    def _observe(self, obs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        views = np.zeros(self._shape, np.float32)  # [n, O]
        avail = None if self._actions.avail is None else self._actions.avail.copy()  # [n, A]
        for i, agent in enumerate(self._agents):
            if agent in obs:
                own = obs[agent]["observation"] if self._masked[i] else obs[agent]
                numbers = flattened(self._views[i], own)
                views[i, : len(numbers)] = numbers
            if avail is not None:
                if agent not in obs:
                    avail[i] = 0
                elif self._masked[i]:
                    mask = np.asarray(obs[agent]["action_mask"])
                    avail[i, : len(mask)] &= mask.astype(np.int8)
                if not avail[i].any():
                    avail[i, 0] = 1
        state = views.reshape(-1) if self._state is None else flattened(self._state, self._env.state())
        seen = {"obs": views, "state": state}
        return seen if avail is None else seen | {"avail": avail}


def _first(infos: Mapping[str, Any]) -> dict[str, Any]:
    """The infos of the first agent that has any."""
    return next((dict(own) for own in infos.values() if own), {})


def make_pettingzoo(name: str, options: Mapping[str, Any], **batch: Any) -> HostEnv:
    """Build the environments ``name`` in worker processes."""
    from emix.envs.host import HostEnv

    chosen, make = read_options(name, PettingZooOptions, options), _maker(name)
    one = Parallel(name, make, chosen)
    limit = chosen.episode_limit or one.max_cycles
    one.close()
    if limit is None:
        raise UsageError(f"{name} does not tell its time limit (max_cycles): give one, such as episode_limit=500")
    return HostEnv(name, partial(Parallel, name, make, chosen), episode_limit=limit, **batch)


def _maker(name: str) -> Callable[..., Any]:
    """The function ``parallel_env`` of the module that ``name`` says."""
    said = name.removeprefix("pettingzoo/")
    known = said in sys.modules or said.partition(".")[0] in PACKAGES
    place = said if known else f"pettingzoo.{said}"
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (place == missing or place.startswith(f"{missing}.")):  # something that the module itself imports
            raise UsageError(
                f"{name} needs the package {missing}, which is not installed: pip install {missing}"
            ) from error
        hint = f"pip install {missing}" if missing in PACKAGES else closest(said, _modules(), most=20)
        raise UsageError(
            f"{name}: there is no module {place}: {hint}; a module or .py file of yours is found after --import"
        ) from error
    except Exception as error:  # PettingZoo's own words where a part of it is gone
        raise UsageError(f"{name}: {place} cannot be imported ({' '.join(str(error).split())})") from error
    if not hasattr(module, "parallel_env"):
        turns = "it plays turns (AEC), which emix does not" if hasattr(module, "env") else "it has none"
        raise UsageError(f"{name}: expected a module with a function parallel_env: {turns}")
    return module.parallel_env


def _modules() -> list[str]:
    """Those of PettingZoo's folders that are named after an environment: ``butterfly.pistonball_v6``."""
    spec: Any = find_spec("pettingzoo")
    found = []
    for folder in pkgutil.iter_modules(spec.submodule_search_locations):
        if folder.ispkg:
            inner = [f"{place}/{folder.name}" for place in spec.submodule_search_locations]
            found += [f"{folder.name}.{each.name}" for each in pkgutil.iter_modules(inner) if "_v" in each.name]
    return found
