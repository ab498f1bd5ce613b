"""Worker processes: what they hold, how they die, and that nothing is left of them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from emix.envs import EnvWorkerError, HostEnv, check_env, episode_seed, make
from emix.errors import UsageError

NAME = "test/host"


def task(trouble="none", broken_seed=None, limit=6):
    """A factory of a small environment that is in ``trouble`` at its second step, in every episode or in one.

    Its class stands in a function, so that it travels by value and a worker need not import this file.
    """

    def make_env():
        import os
        import signal
        import sys

        import gymnasium
        import numpy as np
        from gymnasium import spaces

        class Task(gymnasium.Env):
            observation_space = spaces.Dict(
                obs=spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
                state=spaces.Box(-np.inf, np.inf, (4,), np.float32),
                avail=spaces.MultiBinary((2, 4)),
            )
            action_space = spaces.MultiDiscrete([4, 4])

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                if trouble == "reset":
                    raise OSError("no display")
                self.time, self.seed = 0, seed
                return self.observe(), {}

            def step(self, action):
                self.time += 1
                if self.time == 2 and broken_seed in (None, self.seed):
                    if trouble == "raise":
                        raise ZeroDivisionError("a bug of the simulator")
                    if trouble == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if trouble == "exit":
                        os._exit(3)
                lost = bool(self.time > 2 and self.np_random.random() < 0.2)
                return self.observe(), float(sum(action)), lost, self.time == limit and not lost, {}

            def observe(self):
                loaded = [float(module in sys.modules) for module in ("torch", "lbforaging", "gymnasium")]
                avail = self.np_random.random((2, 4)) < 0.5
                avail[:, self.time % 4] = True
                threads = float(os.environ.get("OMP_NUM_THREADS", 0))
                state = [
                    self.time,
                    threads,
                    self.np_random.random(),
                    float("__file__" in vars(sys.modules["__main__"])),
                ]
                return {"obs": [loaded, loaded], "state": state, "avail": avail}

        return Task()

    return make_env


def first_available(step):
    return step.avail.long().argmax(2)


def descendants():
    """Worker processes of this process that are alive."""
    return multiprocessing.active_children()


def test_contract():
    env = HostEnv(NAME, task(), episode_limit=6, num_envs=5, seed=1)
    check_env(env, partial(HostEnv, NAME, task(), episode_limit=6, seed=1))
    env.close()
    assert descendants() == []


def test_workers_are_lean():
    """No torch, no user script, one OpenMP thread; a core has one worker."""
    env = HostEnv(NAME, task(), episode_limit=6, num_envs=5)
    step = env.reset()
    assert step.obs[:, 0].tolist() == [[0, 0, 1]] * 5
    assert step.state[:, 1].tolist() == [1] * 5
    assert step.state[:, 3].tolist() == [0] * 5
    assert len(descendants()) <= len(os.sched_getaffinity(0))
    env.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_foraging_workers_do_not_load_torch():
    env = make("lbf/Foraging-5x5-2p-1f-v3", num_envs=2)
    env.reset()
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in descendants()]
    env.close()
    assert maps
    assert all("numpy" in text and "libtorch" not in text for text in maps)


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        ("raise", r"test/host: environment 0 raised an exception:\n(.|\n)*in step(.|\n)*a bug of the simulator"),
        ("kill", r"test/host: the worker process of environments? 0.* was killed by SIGKILL \(is .* out of memory\?\)"),
        ("exit", r"test/host: the worker process of environments? 0.* exited with code 3"),
    ],
)
def test_trouble_in_a_step(trouble, text, num_envs):
    env = HostEnv(NAME, task(trouble, broken_seed=episode_seed(0, 0, 0)), episode_limit=6, num_envs=num_envs)
    step = env.step(first_available(env.reset()))
    with pytest.raises(EnvWorkerError, match=text):
        env.step(first_available(step))
    assert descendants() == []
    env.close()
    env.close()
    with pytest.raises(UsageError, match="closed"):
        env.reset()


def test_trouble_names_the_environment():
    env = HostEnv(NAME, task("raise", broken_seed=episode_seed(0, 3, 0)), episode_limit=6, num_envs=5)
    step = env.step(first_available(env.reset()))
    with pytest.raises(EnvWorkerError, match="environment 3 raised"):
        env.step(first_available(step))


def test_trouble_in_reset_and_construction():
    env = HostEnv(NAME, task("reset"), episode_limit=6, num_envs=2)
    with pytest.raises(EnvWorkerError, match=r"environment \d raised an exception:\n(.|\n)*OSError: no display"):
        env.reset()
    with pytest.raises(ImportError):
        HostEnv(NAME, lambda: __import__("no_such_simulator"), episode_limit=6)
    assert descendants() == []


def test_worker_killed_between_steps():
    env = HostEnv(NAME, task(), episode_limit=6, num_envs=4)
    step = env.reset()
    victim = descendants()[0]
    os.kill(victim.pid, signal.SIGABRT)  # SIGTERM is for the parent alone
    victim.join()
    with pytest.raises(EnvWorkerError, match="was killed by SIGABRT"):
        env.step(first_available(step))
    assert descendants() == []


def test_close_after_a_worker_was_killed():
    env = HostEnv(NAME, task(), episode_limit=6, num_envs=4)
    env.reset()
    os.kill(descendants()[0].pid, signal.SIGKILL)
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 5
    assert descendants() == []


def test_unavailable_action():
    env = HostEnv(NAME, task(), episode_limit=6, num_envs=2)
    step = env.reset()
    actions = first_available(step)
    actions[1, 0] = int((~step.avail[1, 0]).long().argmax())
    with pytest.raises(UsageError, match=rf"environment 1, agent 0: action {int(actions[1, 0])} is not available"):
        env.step(actions)
    with pytest.raises(UsageError, match="int64 of shape"):
        env.step(actions.float())
    env.close()


SCRIPT = """
import multiprocessing, signal, sys, time
import torch
from emix.envs import make
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
print("starting", flush=True)
env = make("lbf/Foraging-5x5-2p-1f-v3", num_envs=4)
env.reset()
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
while True:
    env.step(torch.zeros(4, 2, dtype=torch.int64))
"""


@pytest.fixture
def script(tmp_path):
    """A user's script without a ``__main__`` guard, in a process group of its own."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("when", ["starting", "stepping"])
def test_ctrl_c_prints_one_traceback(script, when):
    assert script.stdout.readline() == "starting\n"
    if when == "starting":
        time.sleep(0.15)
    else:
        script.stdout.readline()
    os.killpg(script.pid, signal.SIGINT)
    _, errors = script.communicate(timeout=20)
    assert errors.count("Traceback") == 1, errors
    assert "KeyboardInterrupt" in errors


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_follow_a_killed_parent(script):
    assert script.stdout.readline() == "starting\n"
    workers = [int(pid) for pid in script.stdout.readline().split()]
    assert workers
    script.kill()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    assert "Traceback" not in script.stderr.read()
