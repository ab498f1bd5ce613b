"""Multi-agent MuJoCo through the package ``gymnasium-robotics``; workers import this, so it does not import torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from emix.envs.mujoco_task import MujocoTask, read_task
from emix.envs.options import MujocoOptions, read_options
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.host import HostEnv


class MultiAgentMujoco(gymnasium.Env):
    """One ``mamujoco_v1.parallel_env`` with the observation that ``emix.envs.HostEnv`` reads.

    obs: each agent's own, zeros after it where another agent's is longer. state: gymnasium-robotics' ``state()``.
    action: numbers from -1 to 1, which mean the body's own bounds (Humanoid 0.4, Pusher 2); what is after an agent's
    own numbers is padding, which is ignored: both bounds of ``action_space`` are 0 there. reward: the team's, which
    gymnasium-robotics gives to every agent. A fall is ``terminated``, the limit ``truncated``; a fall in the last step
    is terminated alone.
    """

    def __init__(self, task: MujocoTask, options: MujocoOptions) -> None:
        with _quiet():
            self._env = _build(task, options)
        self._agents = list(self._env.possible_agents)
        boxes = [self._env.action_space(agent) for agent in self._agents]
        self._sizes = [box.shape[0] for box in boxes]
        self._middles = [(box.high + box.low) / 2 for box in boxes]  # [D_i] float32 each
        self._halves = [(box.high - box.low) / 2 for box in boxes]
        lengths = [self._env.observation_space(agent).shape[0] for agent in self._agents]
        self._shape = len(self._agents), max(lengths)
        bounds = np.zeros((len(self._agents), max(self._sizes)), np.float32)  # [n, D]
        for row, size in zip(bounds, self._sizes, strict=True):
            row[:size] = 1
        self.action_space = spaces.Box(-bounds, bounds, dtype=np.float32)
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, self._shape, np.float32),
            state=spaces.Box(-np.inf, np.inf, self._env.state().shape, np.float32),
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode that depends on ``seed`` alone."""
        obs, infos = self._env.reset(seed=seed)
        return self._observe(obs), infos[self._agents[0]]

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Take one action per agent, ``[n, D]`` in [-1, 1]."""
        parts = zip(self._agents, action, self._sizes, self._middles, self._halves, strict=True)
        joint = {agent: middle + half * row[:size] for agent, row, size, middle, half in parts}
        obs, rewards, terminations, truncations, infos = self._env.step(joint)
        first = self._agents[0]  # everybody gets the same
        terminated, truncated = bool(terminations[first]), bool(truncations[first])
        return self._observe(obs), rewards[first], terminated, truncated and not terminated, infos[first]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        views = np.zeros(self._shape, np.float32)  # [n, O]
        for row, agent in zip(views, self._agents, strict=True):
            row[: len(obs[agent])] = obs[agent]
        return {"obs": views, "state": self._env.state()}


def _build(task: MujocoTask, options: MujocoOptions) -> Any:
    """The ``mamujoco_v1.parallel_env``.

    gymnasium-robotics itself writes a body of many segments into its own folder and deletes it, which processes that
    start together do to each other; so the body is made here. Three joints of Pusher share a name, by which it sorts
    what agents see: the order would be that of their addresses, another in every process.
    """
    from gymnasium_robotics import mamujoco_v1
    from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer

    settings: dict[str, Any] = {"max_episode_steps": options.episode_limit, "disable_env_checker": True}
    body = f"{task.body}-{options.version}"
    if task.segments:
        makers = {"Ant": many_segment_ant, "Swimmer": many_segment_swimmer}
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "body.xml")
            makers[task.body].gen_asset(n_segs=task.segments, asset_path=path)
            single = gymnasium.make(body, xml_file=path, **settings)
    else:
        single = gymnasium.make(body, **settings)
    env = mamujoco_v1.parallel_env(
        task.scenario,
        task.factorisation,
        agent_obsk=options.obs_k,
        global_categories=options.categories,
        gym_env=single,
    )
    for nodes_at in env.k_dicts:  # of an agent: the joints that it sees, by distance
        for nodes in nodes_at.values():
            nodes.sort(key=lambda node: (node.label, node.qpos_ids))
    return env


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what importing gymnasium-robotics and making a body print in every process: a notice about hands,
    gymnasium's that v4 is old, MuJoCo's that a keyword of the cheetah is, which it also writes to a file here."""
    with redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import mujoco

        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda text: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(handler)


def make_mamujoco(name: str, options: Mapping[str, Any], **batch: Any) -> HostEnv:
    """Build the environments ``name`` in worker processes."""
    from emix.envs.host import HostEnv

    task, chosen = read_task(name), read_options(name, MujocoOptions, options)
    if chosen.version == "v4" and (task.segments or task.body == "Pusher"):
        raise UsageError(f"{name}: version v4 of this body does not run under today's MuJoCo, expected v5")
    limit: Any = chosen.episode_limit or gymnasium.spec(f"{task.body}-{chosen.version}").max_episode_steps
    return HostEnv(name, partial(MultiAgentMujoco, task, chosen), episode_limit=limit, **batch)
