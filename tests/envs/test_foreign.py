"""``gym/<id>`` and ``pettingzoo/<module>``, against the libraries themselves, driven directly."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from emix.cli import main
from emix.data import Box, Discrete
from emix.envs import check_env, episode_seed, list_envs, make
from emix.envs.foreign import JointActions, flat_size
from emix.errors import UsageError

# A team on a line: everybody shall come near the middle. Agents see differently much, have differently many actions,
# and the first of them leaves once it is there.
MODULE = '''
import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Line(ParallelEnv):
    metadata = {"name": "line_v0"}
    max_cycles = 8

    def __init__(self, continuous=False, leaving=True):
        self.possible_agents = ["short", "long"]
        self.continuous, self.leaving = continuous, leaving

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,) if agent == "short" else (3,), np.float64)

    def action_space(self, agent):
        if self.continuous:
            bounds = np.array([0, 1], np.float32), np.array([1, 3], np.float32)
            return spaces.Box(-2, 2, (1,)) if agent == "short" else spaces.Box(*bounds)
        return spaces.Discrete(2, start=5) if agent == "short" else spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        self.place = dict(zip(self.agents, np.random.default_rng(seed).uniform(1, 3, 2)))
        self.taken = []
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.taken.append(actions)
        self.time += 1
        for agent, action in actions.items():
            self.place[agent] -= float(np.sum(action)) / 10
        there = {agent: self.leaving and agent == "short" and self.time == 2 for agent in self.agents}
        late = {agent: self.time == 8 for agent in self.agents}
        rewards = {agent: -abs(self.place[agent]) for agent in self.agents}
        infos = {agent: {"time": self.time} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not there[agent] and not late[agent]]
        return self._see(), rewards, there, late, infos

    def _see(self):
        return {a: np.full(1 if a == "short" else 3, self.place[a]) for a in self.agents}


def parallel_env(**arguments):
    return Line(**arguments)


class Count(gymnasium.Env):
    """A user's own, registered by this file alone."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, float(action), False, False, {}


gymnasium.register("Count-v0", entry_point=Count, max_episode_steps=5)
'''


@pytest.fixture
def line(tmp_path) -> Path:
    """The module's file, imported as ``--import`` does."""
    (tmp_path / "line_v0.py").write_text(MODULE)
    yield tmp_path / "line_v0.py"
    sys.modules.pop("line_v0", None)
    gymnasium.registry.pop("Count-v0", None)


@pytest.fixture
def imported(line):
    from emix.plugins import import_named

    import_named([str(line)])
    return sys.modules["line_v0"]


@pytest.mark.parametrize(
    ("name", "options", "action", "sizes"),
    [
        ("gym/CartPole-v1", {}, Discrete(2), (1, 4, 4, 500)),
        ("gym/Pendulum-v1", {"episode_limit": 20}, Box(1), (1, 3, 3, 20)),
        ("gym/FrozenLake-v1", {"arguments": {"is_slippery": False}}, Discrete(4), (1, 16, 16, 100)),
    ],
)
def test_contract_of_gymnasiums(name, options, action, sizes):
    make_env = partial(make, name, seed=1, **options)
    env = make_env(num_envs=3)
    assert env.spec.action == action
    assert (env.spec.n_agents, env.spec.obs_dim, env.spec.state_dim, env.spec.episode_limit) == sizes
    check_env(env, make_env)
    env.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_the_same_episode_as_gymnasiums(name):
    env, own = make(f"gym/{name}", seed=3), gymnasium.make(name)
    step, (obs, _) = env.reset(), own.reset(seed=episode_seed(3, 0, 0))
    generator = torch.Generator().manual_seed(0)
    ended = False
    while not ended:
        np.testing.assert_allclose(step.obs[0, 0], obs, rtol=1e-6)
        action = env.spec.action.random((1, 1), generator, step.avail)
        theirs = int(action) if name == "CartPole-v1" else 2 * action[0, 0].numpy()  # Pendulum's bounds are -2 and 2
        step, (obs, reward, terminated, truncated, _) = env.step(action), own.step(theirs)
        assert float(step.reward) == pytest.approx(reward, rel=1e-6)
        ended = terminated or truncated
        assert (bool(step.terminated), bool(step.truncated)) == (terminated, truncated and not terminated)
    env.close()


@pytest.mark.parametrize("continuous", [False, True])
def test_contract_of_pettingzoos(imported, continuous):
    make_env = partial(make, "pettingzoo/line_v0", seed=1, arguments={"continuous": continuous})
    env = make_env(num_envs=3)
    assert env.spec.action == (Box(2, sizes=(1, 2)) if continuous else Discrete(4))
    assert (env.spec.n_agents, env.spec.obs_dim, env.spec.state_dim, env.spec.episode_limit) == (2, 3, 6, 8)
    check_env(env, make_env)
    env.close()


def test_agents_that_differ_and_leave(imported):
    env = make("pettingzoo/line_v0", seed=2)
    step = env.reset()
    assert step.avail[0].tolist() == [[True, True, False, False], [True] * 4]
    assert step.obs[0, 0, 1:].tolist() == [0, 0]  # shorter ones end in zeros
    assert step.state[0].tolist() == step.obs[0].flatten().tolist()
    places = step.obs[0, :, 0].double()
    for time in range(1, 9):
        step = env.step(torch.tensor([[1 if time < 3 else 0, 3]]))
        places -= torch.tensor([0.6 if time < 3 else 0, 0.3], dtype=torch.float64)  # the first one's actions begin at 5
        living = places if time < 3 else places[1:]
        assert float(step.reward) == pytest.approx(float(-living.abs().sum()), abs=1e-5)
        assert bool(step.obs[0, 0].any()) == (time < 2)  # it has left after its second step
        assert (bool(step.terminated), bool(step.truncated)) == (False, time == 8)
        if time == 2:
            assert step.avail[0].tolist() == [[True, False, False, False], [True] * 4]
    assert float(step.info["time"]) == 8
    env.close()


def test_the_mean_of_the_rewards_and_a_shorter_limit(imported):
    totals, steps = [], []
    for reward in ("sum", "mean"):
        env = make("pettingzoo/line_v0", seed=2, reward=reward, episode_limit=3, arguments={"leaving": False})
        step, total, count = env.reset(), 0.0, 0
        while not step.done.all():
            step = env.step(torch.zeros(1, 2, dtype=torch.int64))
            total, count = total + float(step.reward), count + 1
        totals.append(total)
        steps.append((count, bool(step.truncated)))
        env.close()
    assert totals[0] == pytest.approx(2 * totals[1])
    assert steps == [(3, True), (3, True)]


def test_bounds_of_ones_own():
    own = [spaces.Box(-2, 2, (1,)), spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 3.0]), dtype=np.float64)]
    actions = JointActions("x", own)
    assert actions.of(0, np.array([0.5, 0.9])).tolist() == [1.0]  # the rest is padding
    assert actions.of(1, np.array([0.0, 1.0])).tolist() == [0.5, 3.0]
    assert actions.space.high.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gym/CartPol-v1", {}, "did you mean CartPole-v1"),
        ("gym/evil:CartPole-v1", {}, "--import evil"),
        ("gym/Blackjack-v1", {}, "episode_limit=1000"),
        ("gym/CartPole-v1", {"arguments": {"nothing": 1}}, "unexpected keyword argument 'nothing'"),
        ("gym/CartPole-v1", {"arguments": {"id": 1}}, "other than emix's own, got 'id'"),
        ("gym/CartPole-v1", {"arguments": 3}, "arguments expects dict or None, got 3"),
        ("gym/CartPole-v1", {"episode_limit": 0}, "at least 1"),
        ("gym/CartPole-v1", {"episode_limi": 1}, "did you mean episode_limit?"),
        ("pettingzoo/sisl.persuit_v5", {}, "did you mean sisl.pursuit_v5"),
        ("pettingzoo/os", {}, "expected a module with a function parallel_env"),
        ("pettingzoo/antigravity", {}, "there is no module pettingzoo.antigravity"),
        ("pettingzoo/classic.tictactoe_v3", {"reward": "most"}, "reward expects sum or mean"),
    ],
)
def test_what_is_refused(name, options, words):
    with pytest.raises(UsageError, match="(?s)" + words.replace("(", r"\(")) as error:
        make(name, **options)
    assert str(error.value).startswith(name)


@pytest.mark.parametrize(
    "own",
    [
        [spaces.MultiDiscrete([2, 3])],
        [spaces.Discrete(2), spaces.Box(-1, 1, (1,))],
        [spaces.Box(-np.inf, 1, (1,))],
        [spaces.Box(0, 255, (2,), np.uint8)],
    ],
)
def test_action_spaces_that_are_refused(own):
    with pytest.raises(UsageError, match="x: actions expect a Discrete space for every agent"):
        JointActions("x", own)


def test_observations_without_a_size_are_refused():
    with pytest.raises(UsageError, match="the observation expects a space of a fixed number of numbers"):
        flat_size("x", "the observation", spaces.Sequence(spaces.Discrete(2)))


def test_they_are_listed():
    rows = {row.name: row for row in list_envs()}
    assert rows["gym/<id>"].options == ("episode_limit", "arguments")
    assert rows["pettingzoo/<module>"].installed == (importlib.util.find_spec("pettingzoo") is not None)


SHORT = [
    "--test-interval",
    "200",
    "--log-interval",
    "200",
    "--num-envs",
    "2",
    "--test-envs",
    "2",
    "--test-episodes",
    "2",
]


@pytest.mark.parametrize(
    ("algorithm", "name", "options"),
    [
        ("smix", "gym/CartPole-v1", ["--env-option", "episode_limit=40", "--plan.batch-size", "4"]),
        ("facmac", "gym/Pendulum-v1", ["--env-option", "episode_limit=20", "--plan.batch-size", "16"]),
        ("mappo", "gym/Count-v0", ["--plan.batch-size", "4"]),
        ("qmix", "pettingzoo/line_v0", ["--plan.batch-size", "4"]),
        ("mappo", "pettingzoo/line_v0", ["--env-option", "arguments={continuous: true}", "--plan.batch-size", "4"]),
    ],
)
def test_a_learner_trains_and_its_policy_plays(line, tmp_path, capsys, algorithm, name, options):
    run = tmp_path / "run"
    mine = ["--import", str(line)] if name in ("gym/Count-v0", "pettingzoo/line_v0") else []
    assert main(["train", algorithm, name, "--steps", "200", "--run-dir", str(run), *SHORT, *options, *mine]) == 0
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    assert "return_mean" in capsys.readouterr().out
