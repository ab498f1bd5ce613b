"""Worker processes: what they hold, how they die, and that nothing is left of them."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces

from emix.data import Box
from emix.envs import EnvWorkerError, HostEnv, check_env, episode_seed, make, parallel_env, vector_env
from emix.errors import UsageError
from emix.playing import EpisodeStatistics, RandomActor, collect

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


def spaced(action_space, avail=None):
    """A factory of an environment with these spaces; its state begins with the first agent's last action."""

    def make_env():
        import gymnasium
        import numpy as np
        from gymnasium import spaces

        class Task(gymnasium.Env):
            observation_space = spaces.Dict(
                {
                    "obs": spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
                    "state": spaces.Box(-np.inf, np.inf, (3,), np.float32),
                    **({"avail": spaces.MultiBinary(avail)} if avail else {}),
                }
            )

            def __init__(self):
                self.action_space = action_space

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.time, self.last, self.start = 0, [0, 0], self.np_random.random()
                return self.observe(), {}

            def step(self, action):
                self.time += 1
                self.last = action[0]
                self.start += float(np.sum(action))
                assert isinstance(action, np.ndarray)
                assert (action.dtype, action.shape) == (np.float32, (2, 2))
                return self.observe(), float(np.sum(action)), False, self.time == 4, {}

            def observe(self):
                return {"obs": np.full((2, 3), self.start), "state": [*self.last, self.start]}

        return Task()

    return make_env


def returning(**what):
    """A factory of an environment of two steps that returns these things in place of what it declares."""

    def make_env():
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
                self.time = 0
                return self.observe(), what.get("reset_info", {})

            def step(self, action):
                self.time += 1
                info = what.get("info", ({}, {}))[self.time - 1]
                over = what.get("terminated", self.time == 2)
                return self.observe(), what.get("reward", 1.0), over, what.get("truncated", False), info

            def observe(self):
                seen = {"obs": np.ones((2, 3)), "state": np.ones(4), "avail": np.ones((2, 4))}
                seen |= {name: value for name, value in what.items() if name in seen}
                return {name: value for name, value in seen.items() if value is not None}

        return Task()

    return make_env


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"obs": np.ones(3)}, r"obs must have shape \[2, 3\], as declared, got \[3\]"),
        ({"obs": np.ones((1, 3))}, r"obs must have shape \[2, 3\], as declared, got \[1, 3\]"),
        ({"obs": 1.0}, r"obs must have shape \[2, 3\], as declared, got \[\]"),
        ({"obs": [[1, 2, 3], [1, 2]]}, r"obs must be numbers of shape \[2, 3\], got list"),
        ({"obs": [["a"] * 3] * 2}, r"obs must be numbers of shape \[2, 3\], got list"),
        ({"obs": np.ones((2, 3), complex)}, r"obs must be numbers of shape \[2, 3\], got ndarray"),
        ({"state": np.ones(1)}, r"state must have shape \[4\], as declared, got \[1\]"),
        ({"state": np.ones((1, 4))}, r"state must have shape \[4\], as declared, got \[1, 4\]"),
        ({"state": None}, "observation must be a dict with obs, state, avail, state is missing"),
        ({"avail": np.ones(4)}, r"avail must have shape \[2, 4\], as declared, got \[4\]"),
        ({"avail": np.ones((2, 1))}, r"avail must have shape \[2, 4\], as declared, got \[2, 1\]"),
        ({"reward": np.ones(1)}, r"reward must have shape \[\], as declared, got \[1\]"),
        ({"reward": [1.0, 1.0]}, r"reward must have shape \[\], as declared, got \[2\]"),
        ({"reward": None}, r"reward must be numbers of shape \[\], got NoneType"),
        ({"terminated": np.array([True])}, r"terminated must have shape \[\], as declared, got \[1\]"),
        ({"truncated": [False, False]}, r"truncated must have shape \[\], as declared, got \[2\]"),
    ],
)
def test_what_numpy_would_repeat_is_refused(what, text):
    env = HostEnv(NAME, returning(**what), episode_limit=2)
    with pytest.raises(UsageError, match=f"^test/host: environment 0: {text}$"):
        env.step(first_available(env.reset()))
    assert descendants() == []


@pytest.mark.parametrize(
    "what", [{"state": np.ones(1)}, {"reward": np.ones(1)}, {"terminated": True, "truncated": True}]
)
def test_check_env_sees_it(what):
    env = HostEnv(NAME, returning(**what), episode_limit=2, num_envs=2)
    with pytest.raises(AssertionError, match=r"state must have|reward must have|expected never both True"):
        check_env(env)
    env.close()


def test_both_flags_at_once_are_the_end_by_the_rules():
    env = HostEnv(NAME, returning(terminated=True, truncated=True), episode_limit=2)
    step = env.step(first_available(env.reset()))
    assert (step.terminated.tolist(), step.truncated.tolist(), env.both_flags.tolist()) == ([True], [False], [True])
    env.close()


def test_what_may_be_taken_is_all_that_is_not_zero():
    env = HostEnv(NAME, returning(avail=[[0, 2, 256, 0.5], [1, 0, 0, -1]]), episode_limit=2)
    assert env.reset().avail.tolist() == [[[False, True, True, True], [True, False, False, True]]]
    env.close()


INFOS = (
    {"score": 1, "name": "x", "place": np.ones(2)},
    {"battle_won": np.True_, "score": np.float32(2.5), "return": 9},
)


def test_infos_of_the_copies():
    """Numbers come through, those too that are given at the end alone."""
    env = HostEnv(NAME, returning(info=INFOS, reset_info={"level": 3}), episode_limit=2, num_envs=3)
    step = env.reset()
    assert {name: column.tolist() for name, column in step.info.items()} == {"level": [3.0] * 3}
    step = env.step(first_available(step))
    assert step.info["score"].tolist() == [1.0] * 3
    assert step.info["level"].isnan().all()
    step = env.step(first_available(step))
    assert {name: column.tolist() for name, column in step.info.items() if not column.isnan().any()} == {
        "battle_won": [1.0] * 3, "score": [2.5] * 3, "return": [9.0] * 3,
    }  # fmt: skip
    step = env.reset(torch.tensor([True, False, False]))
    assert step.info["score"].isnan().tolist() == [True, False, False]
    env.close()


def test_infos_become_metrics():
    env = HostEnv(NAME, returning(info=INFOS, reset_info={"level": 3}), episode_limit=2, num_envs=3)
    rollout = collect(env, RandomActor(env.spec, device="cpu", seed=0), explore=True)
    assert rollout.info["battle_won"].tolist() == [1.0] * 3
    statistics = EpisodeStatistics()
    statistics.add(rollout)
    assert statistics.means() == {
        "battle_won_mean": 1.0, "score_mean": 2.5, "return_mean": 2.0, "ep_length_mean": 2.0, "return_std": 0.0,
    }  # fmt: skip
    env.close()


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps, cloudpickle.dumps])
@pytest.mark.parametrize("kind", [make, vector_env, parallel_env])
def test_copies_are_refused_and_leave_the_original_alone(copier, kind):
    env = kind("lbf/Foraging-5x5-2p-1f-v3", seed=3)
    before = env.reset()
    with pytest.raises(UsageError, match="lbf/Foraging-5x5-2p-1f-v3: an environment with worker processes cannot be"):
        copier(env)
    gc.collect()
    assert len(descendants()) == 1
    assert env.reset() is not before
    env.close()
    assert descendants() == []


def test_environments_without_workers_can_be_copied():
    env = vector_env("prey/macf", num_envs=2, seed=3)
    env.reset()
    twin = copy.deepcopy(env)
    actions = np.full((2, 2), 20)
    assert np.array_equal(env.step(actions)[0]["state"], twin.step(actions)[0]["state"])


VECTORS = spaces.Box(-0.4, 0.4, (2, 2), np.float32)


def test_contract_of_vectors():
    make_env = partial(HostEnv, NAME, spaced(VECTORS), episode_limit=4, seed=1)
    env = make_env(num_envs=3)
    assert env.spec.action == Box(2, low=-0.4, high=0.4)
    check_env(env, make_env)
    env.close()


def test_vectors_arrive_as_they_are():
    env = HostEnv(NAME, spaced(VECTORS), episode_limit=4, num_envs=3)
    assert env.reset().avail is None
    actions = torch.rand(3, 2, 2) * 0.8 - 0.4
    step = env.step(actions)
    assert torch.equal(step.state[:, :2], actions[:, 0])
    actions[2, 1] = torch.tensor([0.4, 0.5])
    with pytest.raises(UsageError, match=r"environment 2, agent 1: action \[0.4.*, 0.5\] is out of bounds, expected 2"):
        env.step(actions)
    with pytest.raises(UsageError, match=r"float32 of shape \[3, 2, 2\] \[E, n, D\], got float64"):
        env.step(actions.double())
    env.close()


@pytest.mark.parametrize(
    ("space", "avail", "text"),
    [
        (spaces.MultiDiscrete([3, 4]), (2, 4), "MultiDiscrete of 2 equal numbers, or Box .* got MultiDiscrete"),
        (spaces.MultiDiscrete([3, 3, 3]), (2, 3), "MultiDiscrete of 2 equal numbers"),
        (spaces.MultiDiscrete([3, 3], start=[1, 1]), (2, 3), "MultiDiscrete of 2 equal numbers"),
        (spaces.Discrete(9), (2, 3), r"got Discrete\(9\)"),
        (spaces.Box(-1, 1, (4,)), None, r"Box of shape \[2, D\] with one finite lower and upper bound, got Box"),
        (spaces.Box(-1, 1, (3, 2)), None, r"Box of shape \[2, D\]"),
        (spaces.Box(np.array([[-1, -2]] * 2), 1.0, (2, 2)), None, "or rescale"),
        (spaces.Box(-np.inf, np.inf, (2, 2)), None, "one finite lower and upper bound"),
        (spaces.MultiDiscrete([3, 3]), None, r"expects avail of shape \[2, 3\] where .*, got none"),
        (spaces.MultiDiscrete([3, 3]), (2, 4), r"expects avail of shape \[2, 3\] where .*, got shape \[2, 4\]"),
        (VECTORS, (2, 2), r"expects no avail where .*, got shape \[2, 2\]"),
    ],
)
def test_spaces_that_make_no_sense(space, avail, text):
    with pytest.raises(UsageError, match=f"^test/host: (action|observation)_space .*{text}"):
        HostEnv(NAME, spaced(space, avail), episode_limit=4)


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
