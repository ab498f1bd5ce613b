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
from torch import Tensor

from emix.data import Discrete, Step
from emix.data.integers import check_seed
from emix.envs.core import Env
from emix.envs.registry import make
from emix.errors import UsageError


def vector_env(
    name: str,
    *,
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    seed: int = 0,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    **options: Any,
) -> VectorAdapter:
    """Build ``emix.make(...)`` as a ``gymnasium.vector.VectorEnv``: NumPy in and out.

    ``autoreset_mode``, which the environment tells as gymnasium's do, is one of gymnasium's three. With "NextStep", its
    default, a finished environment is reset by the next step, which ignores its action and returns reward 0 and the
    first observation. With "SameStep" the step that ends an episode resets it, too: it returns the first observation
    and infos of the next one, and the last ones as ``info["final_obs"]`` [E], a dict where an episode has ended and
    None elsewhere, and ``info["final_info"]``. With "Disabled", which TorchRL prefers, it stays finished until
    ``reset(options={"reset_mask": mask})``.

    Each info of the environment, such as ``battle_won``, comes as gymnasium's vector environments give one: an array
    ``info["battle_won"]`` [E], and ``info["_battle_won"]`` [E] bool, which says where it is there.
    """
    try:
        mode = AutoresetMode(autoreset_mode)
    except ValueError:
        known = ", ".join(repr(each.value) for each in AutoresetMode)
        raise UsageError(f"{name}: autoreset_mode expects one of {known}, got {autoreset_mode!r}") from None
    return VectorAdapter(name, num_envs, device, seed, mode, options)


def parallel_env(name: str, seed: int = 0, **options: Any) -> Any:
    """Build one ``name`` as a PettingZoo ``ParallelEnv`` with agents ``agent_0``, ``agent_1``, ...

    Each agent gets the team's reward and every info of the environment, such as ``battle_won``. An observation is a
    dict of ``observation`` and, where actions are discrete, ``action_mask``; ``state()`` is the state. Raises
    UsageError where PettingZoo is not installed.
    """
    if find_spec("pettingzoo") is None:
        raise UsageError(
            f'parallel_env({name!r}) needs PettingZoo, which is not installed: pip install "emix[pettingzoo]"'
        )
    from emix.envs.parallel import ParallelAdapter

    return ParallelAdapter(name, seed, options)


class VectorAdapter(gymnasium.vector.VectorEnv):
    """What ``vector_env`` builds.

    ``reset(seed=s)`` starts over as ``emix.make(..., seed=s)`` would; without a seed the next episodes begin, in all
    environments or where ``options["reset_mask"]`` [E] is True.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        device: str | torch.device,
        seed: int,
        mode: AutoresetMode,
        options: dict[str, Any],
    ) -> None:
        self._make = partial(make, name, num_envs=num_envs, device=device, **options)
        self._env: Env = self._make(seed=seed)
        spec = self._env.spec
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.autoreset_mode, self.num_envs = mode, num_envs
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
        self._finished: Tensor | None = None  # [E], before the first reset None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode in every environment, or where ``options["reset_mask"]`` [E] is True."""
        mask = (options or {}).get("reset_mask")
        where = None if mask is None else torch.tensor(np.asarray(mask), device=self._env.device)
        if seed is not None:
            seed = check_seed(f"{self._env.spec.name}: seed", seed)  # before the old one is gone
            self._env.close()
            self._env = self._make(seed=seed)
        step = self._env.reset(where)
        return self._observe(step), _infos(step)

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        """Take the joint ``actions`` where an episode is running, and start one where it is not: [E, n] integers, or
        [E, n, D] numbers where the action space is a Box."""
        spec = self._env.spec
        step = self._env.step(spec.action.tensor(spec.name, actions, self._env.device))
        reward = step.reward.double().cpu().numpy()  # [E]; 0 in an environment that is reset now
        finished = self._finished
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and finished is not None and finished.any():
            step = self._env.reset(finished)
        flags = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()  # [E] each
        if self.autoreset_mode == AutoresetMode.SAME_STEP and step.done.any():
            final = _final(self._observe(step), _infos(step), step.done.cpu().numpy())
            step = self._env.reset(step.done)
            return self._observe(step), reward, *flags, {**_infos(step), **final}
        return self._observe(step), reward, *flags, _infos(step)

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._env.__reduce_ex__(protocol)  # raises where the environment cannot be copied, before anything is made
        return super().__reduce_ex__(protocol)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, step: Step) -> dict[str, np.ndarray]:
        self._finished = step.done
        seen = {"obs": step.obs.cpu().numpy(), "state": step.state.cpu().numpy()}
        if step.avail is not None:
            seen["avail"] = step.avail.to(torch.int8).cpu().numpy()
        return seen


def _infos(step: Step) -> dict[str, np.ndarray]:
    """The infos as ``gymnasium.vector.VectorEnv`` has them."""
    infos: dict[str, np.ndarray] = {}
    for name, column in step.info.items():
        values = column.cpu().numpy()  # [E, ...]
        infos[name] = values
        infos[f"_{name}"] = (values == values).reshape(len(values), -1).all(1)  # [E]; NaN stands for what is not given
    return infos


def _final(seen: dict[str, np.ndarray], infos: dict[str, np.ndarray], done: np.ndarray) -> dict[str, Any]:
    """What gymnasium's infos have of the episodes that have ended, where ``done`` [E] is True."""
    observations = np.full(len(done), None, dtype=object)  # [E]
    for index in np.flatnonzero(done):
        observations[index] = {name: values[index] for name, values in seen.items()}
    own = {name: values & done if name.startswith("_") else values for name, values in infos.items()}
    return {"final_obs": observations, "_final_obs": done, "final_info": own, "_final_info": done}
