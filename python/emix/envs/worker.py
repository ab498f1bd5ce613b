"""What runs in a worker process: several host environments behind one pipe. Never imports torch."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, read_from_shared_memory

from emix.data import EnvSpec, fields

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Failure:
    """An exception inside environment ``index``."""

    index: int
    traceback: str


class EnvGroup(gymnasium.Env):
    """``size`` environments of a worker, numbered from ``first``, as one gymnasium environment.

    A message through a pipe costs as much as a step of a light simulator, so a worker steps several per message. A
    finished environment waits for its reset: its reward is 0 and its flags stay. An exception becomes
    ``info["failure"]``.
    """

    def __init__(self, spec: EnvSpec, make_env: Callable[[], gymnasium.Env], first: int, size: int) -> None:
        self._make_env, self._first = make_env, first
        self._envs: list[gymnasium.Env] = []  # built at the first reset, so that workers start together
        self._finished = [True] * size
        shapes = {field.name: (size, *field.shape) for field in fields(spec)}
        self._seen = [name for name in ("obs", "state", "avail") if name in shapes]
        self.observation_space = spaces.Dict(
            {name: _space(shapes[name], name == "avail") for name in self._seen},
            reward=_space(shapes["reward"], False),
            flags=_space((size, 2), True),  # terminated, truncated
        )
        self.action_space = batch_space(spec.action.joint_space(spec.n_agents), size)
        self.out: dict[str, np.ndarray] = {}  # the observation; the worker sets it to its place in shared memory

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode wherever ``options["seeds"]``, one entry per environment of the whole batch, is not None."""
        assert options is not None
        info: dict[str, Failure] = {}
        self.out["reward"][:] = 0
        for i, index in enumerate(range(self._first, self._first + len(self._finished))):
            if (episode_seed := options["seeds"][index]) is None:
                continue
            try:
                if i >= len(self._envs):  # the first reset starts every environment, in order
                    self._envs.append(self._make_env())
                observation, _ = self._envs[i].reset(seed=episode_seed)
                self._write(i, observation, 0.0, False, False)
            except Exception:
                info["failure"] = Failure(index, traceback.format_exc())
        return self.out, info

    def step(self, action: list[Any]) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Step every unfinished environment; rewards and flags are in the observation, not in gymnasium's scalars."""
        info: dict[str, Failure] = {}
        self.out["reward"][:] = 0
        for i, env in enumerate(self._envs):
            if self._finished[i]:
                continue
            try:
                observation, reward, terminated, truncated, _ = env.step(action[i])
                self._write(i, observation, float(reward), terminated, truncated)
            except Exception:
                info["failure"] = Failure(self._first + i, traceback.format_exc())
        return self.out, 0.0, False, False, info

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _write(self, i: int, observation: dict[str, Any], reward: float, terminated: bool, truncated: bool) -> None:
        for name in self._seen:
            self.out[name][i] = observation[name]
        self.out["reward"][i] = reward
        self.out["flags"][i] = terminated, truncated and not terminated
        self._finished[i] = bool(terminated or truncated)


def _space(shape: tuple[int, ...], flags: bool) -> spaces.Space:
    return spaces.MultiBinary(shape) if flags else spaces.Box(-np.inf, np.inf, shape, np.float32)


def serve(
    index: int,
    make_group: Callable[[], EnvGroup],
    pipe: Connection,
    parent_pipe: Connection,
    shared_memory: Any,
    error_queue: Any,
    autoreset_mode: Any,
    semaphore: Any,
) -> None:
    """Answer ``gymnasium.vector.AsyncVectorEnv``, whose ``worker`` this is, until told to close or the parent is gone.

    gymnasium's own worker prints a traceback when the parent dies, and hands over an exception without its traceback.
    The signals that stop a job are the parent's: it plays its episodes to their end and then says ``close``.
    """
    for number in STOPPING:  # a function, not SIG_IGN, which the simulators that an environment starts would inherit
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    parent_pipe.close()
    group = make_group()
    everything: Any = read_from_shared_memory(group.observation_space, shared_memory, n=-1)  # [W, G, ...] each
    group.out = {key: array[index] for key, array in everything.items()}
    with suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            command, data = pipe.recv()
            if command == "close":
                break
            if command == "_check_spaces":
                reply: tuple = (True, True)
            else:
                _, *rest = group.reset(**data) if command == "reset" else group.step(data)
                reply = (None, *rest)
            pipe.send((reply, True))
    group.close()
