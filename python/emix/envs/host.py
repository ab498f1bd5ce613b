"""Environments that run on the host, in worker processes, behind the interface of ``emix.envs.Env``."""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, resource_tracker
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor

from emix.data import Action, Box, Discrete, EnvSpec, Step
from emix.data.integers import check_seed, integer
from emix.data.room import refuse_large_steps
from emix.envs import batch
from emix.envs.core import episode_seed
from emix.envs.waiting import CLOSE_SECONDS, HungError, Workers
from emix.envs.worker import STOPPING, EnvGroup, Failure, serve
from emix.errors import UsageError

_open: weakref.WeakSet[HostEnv] = weakref.WeakSet()


class EnvWorkerError(RuntimeError):
    """An environment raised an exception, or its worker process died or hangs. The environment is closed."""


class HostEnv:
    """``num_envs`` copies of a host environment in at most one worker process per core, or ``group_size`` in each.

    ``make_env()`` builds one copy: a ``gymnasium.Env`` all of whose randomness comes from ``reset(seed=...)``. Its
    action space is a ``MultiDiscrete`` of n equal numbers A, and it gets a list of n integers, or a ``Box`` [n, D] with
    one lower and one upper bound, and it gets such an array of float32; where agents have different counts of numbers,
    both bounds are equal after an agent's own, and what comes there is to be ignored. Its observation is a dict of
    ``obs`` [n, O], ``state`` [S] and, of a ``MultiDiscrete``, ``avail`` [n, A] (0 or 1). It is called once here, to
    read the sizes, and in the workers, where it arrives by cloudpickle. ``episode_limit`` is the most steps of an
    episode, which the environment itself must keep. A copy that sets both flags has terminated; ``both_flags`` [E] says
    which have, and ``check_env`` refuses it. ``first_env`` is the number of the first of these copies among all of a
    run's.

    ``Step.info`` has the numbers (bool, int or float) of the copies' infos as float64 [E], NaN where a copy does not
    give one: an ``info["battle_won"]`` becomes the metric ``battle_won_mean``.

    ``reset_seconds`` and ``step_seconds`` are how long a worker may take for an answer, by default 300 and 60.

    An exception in a copy, and the death of a worker, raise EnvWorkerError; spaces of another kind, and observations,
    rewards and flags that are not as declared, raise UsageError. It cannot be copied or pickled.
    """

    def __init__(
        self,
        name: str,
        make_env: Callable[[], gymnasium.Env],
        *,
        episode_limit: int,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 0,
        first_env: int = 0,
        group_size: int | None = None,
        reset_seconds: float | None = None,
        step_seconds: float | None = None,
    ) -> None:
        self.spec = _read_spec(name, make_env, episode_limit)
        self.num_envs = num_envs = integer(f"{name}: num_envs", num_envs, least=1)
        self.device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        refuse_large_steps(self.spec, num_envs, torch.device("cpu"))
        self.episode = torch.zeros(num_envs, dtype=torch.int64, device="cpu")  # [E]
        self._seed = check_seed(f"{name}: seed", seed)
        self._first_env = integer(f"{name}: first_env", first_env, least=0)
        self._done: Tensor | None = None  # [E], on the CPU
        self._info: dict[str, Tensor] = {}  # [E] float64 each, of every name that an environment has given so far
        # G, environments of a worker; the last may have unused places
        self._size = group_size or math.ceil(num_envs / _cores())
        starts = range(0, num_envs, self._size)
        self._places = self._size * len(starts)  # W * G
        groups = [partial(EnvGroup, self.spec, make_env, first, self._size) for first in starts]
        worker: Any = serve
        try:
            with _clean_start():
                self._vector: Any = Workers(
                    groups, context="spawn", copy=False, worker=worker, autoreset_mode=AutoresetMode.DISABLED
                )
        except (EOFError, ConnectionError) as error:
            raise EnvWorkerError(f"{name}: a worker process died while it started") from error
        except HungError as error:
            raise EnvWorkerError(
                f"{name}: a worker process has not started within {error.seconds:g} seconds: is the machine "
                f"overloaded, or has somebody stopped it?"
            ) from error
        self._vector.reset_seconds, self._vector.step_seconds = reset_seconds, step_seconds
        _open.add(self)
        shared = self._vector.observations  # [W, G, ...] each
        self._out = {key: torch.from_numpy(array).flatten(0, 1)[:num_envs] for key, array in shared.items()}

    def reset(self, where: Tensor | None = None) -> Step:
        """Start the next episode everywhere, or where ``where`` [E] is True."""
        self._check_open()
        mask = batch.reset_mask(self.spec, where, self._done is not None, self.num_envs).cpu()
        batch.check_episode(self.spec, self.episode, self.num_envs)
        seeds = [
            episode_seed(self._seed, number, episode) if started else None
            for number, (episode, started) in enumerate(
                zip(self.episode.tolist(), mask.tolist(), strict=True), start=self._first_env
            )
        ]
        self._ask(self._vector.reset, options={"seeds": seeds + [None] * (self._places - self.num_envs)})
        self.episode = self.episode + mask
        return self._step()

    def step(self, actions: Tensor) -> Step:
        """Take the joint ``actions``, [E, n] or [E, n, D]. Raises UsageError for one that is not available, or out of
        bounds."""
        self._check_open()
        if self._done is None:
            raise UsageError(f"{self.spec.name}: step was called before reset: call reset() first")
        name, action, size = self.spec.name, self.spec.action, self._size
        action.check(name, actions, (self.num_envs, self.spec.n_agents), self.device)
        actions = actions.cpu()
        action.check_values(name, actions, self._avail(), self._done)
        rows: Any = actions.tolist() if isinstance(action, Discrete) else actions.numpy()
        self._ask(self._vector.step, [rows[first : first + size] for first in range(0, self.num_envs, size)])
        return self._step()

    def close(self) -> None:
        """Stop the workers; one that has not closed its environments within 10 seconds is killed."""
        self._vector.end()

    def _ask(self, call: Callable[..., tuple], *args: Any, **kwargs: Any) -> None:
        """Send a message to all workers and wait for the answers, which are then in ``_out``."""
        try:
            info: dict[str, Any] = call(*args, **kwargs)[-1]
        except HungError as error:
            text = self._describe_hang(error)
            self._vector.processes[error.worker].kill()
            self.close()
            raise EnvWorkerError(f"{self.spec.name}: {text}") from error
        except (EOFError, OSError) as error:
            text = self._describe_death()
            self.close()
            raise EnvWorkerError(f"{self.spec.name}: {text}") from error
        if "failure" in info:
            failure: Failure = next(f for f in info["failure"] if f is not None)
            self.close()
            whose = f"{self.spec.name}: environment {failure.index}"
            if failure.breach:
                raise UsageError(f"{whose}: {failure.text}")
            raise EnvWorkerError(f"{whose} raised an exception:\n{failure.text}")
        self._info = self._columns([numbers for group in info["numbers"] for numbers in group])

    def _columns(self, numbers: list[dict[str, float]]) -> dict[str, Tensor]:
        """What the environments' infos say, [E] each; NaN where one does not say it. A name stays once it has come."""
        names = dict.fromkeys([*self._info, *(name for own in numbers for name in own)])
        return {
            name: torch.tensor(
                [own.get(name, math.nan) for own in numbers[: self.num_envs]], dtype=torch.float64, device="cpu"
            )
            for name in names
        }

    def _describe_death(self) -> str:
        processes = self._vector.processes
        dead = connection.wait([process.sentinel for process in processes], timeout=CLOSE_SECONDS)
        worker = next((w for w, process in enumerate(processes) if process.sentinel in dead), None)
        if worker is None:
            return "a worker process closed its pipe but is still running"
        whose = self._whose(worker)
        processes[worker].join(CLOSE_SECONDS)  # the sentinel is ready a moment before the exit code
        code = processes[worker].exitcode
        if code is None:
            return f"the worker process of {whose} is at its end"
        if code >= 0:
            return f"the worker process of {whose} exited with code {code}"
        hint = " (is the machine out of memory?)" if -code == signal.SIGKILL else ""
        return f"the worker process of {whose} was killed by {signal.Signals(-code).name}{hint}"

    def _describe_hang(self, error: HungError) -> str:
        process = self._vector.processes[error.worker].pid
        return (
            f"the worker process {process} of {self._whose(error.worker)} has not answered for {error.seconds:g} "
            f"seconds: it hangs, or somebody has stopped it"
        )

    def _whose(self, worker: int) -> str:
        first, last = worker * self._size, min((worker + 1) * self._size, self.num_envs) - 1
        return f"environment {first}" if first == last else f"environments {first} to {last}"

    def _avail(self) -> Tensor | None:
        avail = self._out.get("avail")  # [E, n, A] int8
        return None if avail is None else avail.view(torch.bool)

    def _step(self) -> Step:
        terminated, truncated = self._out["flags"].to(torch.bool).unbind(1)  # [E] each
        self._done, self.both_flags = terminated | truncated, terminated & truncated

        def out(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, copy=True)

        avail = self._avail()
        return Step(
            obs=out(self._out["obs"]),  # [E, n, O]
            state=out(self._out["state"]),  # [E, S]
            avail=None if avail is None else out(avail),  # [E, n, A]
            reward=out(self._out["reward"]),  # [E]
            terminated=out(terminated),
            truncated=out(truncated & ~terminated),
            info={name: out(column) for name, column in self._info.items()},
        )

    def __reduce__(self) -> Any:
        raise UsageError(
            f"{self.spec.name}: an environment with worker processes cannot be copied or pickled: make another one "
            f"with the same arguments"
        )

    def _check_open(self) -> None:
        if self._vector.closed:
            raise UsageError(f"{self.spec.name}: the environment is closed: make a new one")


@atexit.register
def _close_all() -> None:
    """Before multiprocessing's own end, which sends the SIGTERM that workers do not heed, and waits for them."""
    for env in list(_open):
        env.close()


def _read_spec(name: str, make_env: Callable[[], gymnasium.Env], episode_limit: int) -> EnvSpec:
    env = make_env()
    seen: Any = env.observation_space
    try:
        n_agents, obs_dim = seen["obs"].shape
        action = _read_action(name, env.action_space, n_agents)
        wanted = (n_agents, action.n) if isinstance(action, Discrete) else None
        avail = tuple(seen["avail"].shape) if "avail" in seen.spaces else None
        if avail != wanted:
            raise UsageError(
                f"{name}: observation_space expects {f'avail of shape {list(wanted)}' if wanted else 'no avail'} where "
                f"action_space is {env.action_space}, got {f'shape {list(avail)}' if avail else 'none'}"
            )
        return EnvSpec(name, n_agents, action, obs_dim, seen["state"].shape[0], episode_limit)
    finally:
        env.close()


def _read_action(name: str, space: spaces.Space, n_agents: int) -> Action:
    """What each of the agents does, of the space of all of them."""
    if isinstance(space, spaces.MultiDiscrete) and space.shape == (n_agents,):
        choices = {int(size) for size in space.nvec}
        if len(choices) == 1 and not space.start.any():
            return Discrete(choices.pop())
    if isinstance(space, spaces.Box) and len(space.shape) == 2 and space.shape[0] == n_agents and space.is_bounded():
        own = space.low < space.high  # [n, D]; the rest is padding
        counts = own.sum(1)  # [n]
        padded = np.array_equal(own, np.arange(space.shape[1]) < counts[:, None])  # after an agent's own numbers
        # The shortest number that is this float32: 0.4, not 0.4000000059604645.
        lows, highs = ({float(str(bound)) for bound in np.unique(bounds[own])} for bounds in (space.low, space.high))
        if len(lows) == 1 and len(highs) == 1 and padded and counts.min() > 0 and counts.max() == space.shape[1]:
            sizes = tuple(counts.tolist()) if counts.min() < space.shape[1] else ()
            return Box(space.shape[1], lows.pop(), highs.pop(), sizes)
    found = " ".join(str(space).split())
    raise UsageError(
        f"{name}: action_space expects MultiDiscrete of {n_agents} equal numbers, or Box of shape [{n_agents}, D] with "
        f"one finite lower and upper bound, got {found}: pad (avail says which choices there are, equal bounds after "
        f"an agent's own numbers that there are no more), or rescale"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _clean_start() -> Iterator[None]:
    """Start processes that have one OpenMP thread, do not stop at the signals that stop this one, and do not run the
    user's script again.

    This process handles Ctrl-C, and the SIGTERM that batch systems send to every process of a job, and then closes the
    workers; until ``serve`` handles them, they are blocked there. Without the last, a script would need an
    ``if __name__ == "__main__"``, and every worker would import all that the script does, torch included.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    resource_tracker.ensure_running()  # heeds neither SIGINT nor SIGTERM by itself, nor SIGHUP where that is blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # starting it has unblocked the first two
    main, threads = sys.modules["__main__"], os.environ.get("OMP_NUM_THREADS")
    sys.modules["__main__"], os.environ["OMP_NUM_THREADS"] = ModuleType("__main__"), "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
