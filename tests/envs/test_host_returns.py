"""Environments of gymnasium behind HostEnv: what they declare and return, and what is refused of it."""

import copy
import gc
import pickle
from functools import partial

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces

from emix.data import Box
from emix.envs import HostEnv, check_env, make, parallel_env, vector_env
from emix.errors import UsageError
from emix.playing import EpisodeStatistics, RandomActor, collect
from tests.envs.test_host import NAME, descendants, first_available


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


def test_contract_of_vectors_with_padding():
    low = np.array([[-0.4, -0.4], [-0.4, 0.0]], np.float32)
    make_env = partial(HostEnv, NAME, spaced(spaces.Box(low, -low)), episode_limit=4, seed=1)
    env = make_env(num_envs=3)
    assert env.spec.action == Box(2, low=-0.4, high=0.4, sizes=(2, 1))
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
        (spaces.Box(*np.array([[[-1, 0]] * 2, [[1, 0]] * 2])), None, "equal bounds after an agent's own numbers"),
        (spaces.Box(*np.array([[[0, -1], [-1, -1]], [[0, 1], [1, 1]]])), None, "equal bounds after"),
        (spaces.Box(-np.inf, np.inf, (2, 2)), None, "one finite lower and upper bound"),
        (spaces.MultiDiscrete([3, 3]), None, r"expects avail of shape \[2, 3\] where .*, got none"),
        (spaces.MultiDiscrete([3, 3]), (2, 4), r"expects avail of shape \[2, 3\] where .*, got shape \[2, 4\]"),
        (VECTORS, (2, 2), r"expects no avail where .*, got shape \[2, 2\]"),
    ],
)
def test_spaces_that_make_no_sense(space, avail, text):
    with pytest.raises(UsageError, match=f"^test/host: (action|observation)_space .*{text}"):
        HostEnv(NAME, spaced(space, avail), episode_limit=4)
