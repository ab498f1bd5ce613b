"""The environments behind PettingZoo's and gymnasium's interfaces."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from pettingzoo.test import parallel_api_test, parallel_seed_test

import emix.envs.adapters as adapters
from emix.envs import make, parallel_env, vector_env
from emix.errors import UsageError


@pytest.mark.parametrize(
    "name",
    [
        *("matrix/msteps-5", "matrix/penalty-3x6", "matrix/continuous"),
        *("prey/stag-hunt", "prey/macf", "lbf/Foraging-5x5-2p-1f-v3"),
    ],
)
def test_pettingzoo(name):
    env = parallel_env(name)
    parallel_api_test(env, num_cycles=100)
    env.close()


def test_pettingzoo_seeds():
    parallel_seed_test(lambda: parallel_env("matrix/msteps-5"), num_cycles=20)


def test_pettingzoo_pays_every_agent_the_team_reward():
    env = parallel_env("matrix/penalty-2x3")
    observations, _ = env.reset()
    assert observations["agent_1"]["observation"].tolist() == [1] * 5
    assert observations["agent_1"]["action_mask"].tolist() == [1] * 3
    assert env.state().tolist() == [1] * 5
    _, rewards, terminations, truncations, _ = env.step({"agent_0": 0, "agent_1": 2})
    assert rewards == {"agent_0": -12.0, "agent_1": -12.0}
    assert terminations == {"agent_0": True, "agent_1": True}
    assert truncations == {"agent_0": False, "agent_1": False}
    assert env.agents == []


def test_pettingzoo_with_vectors():
    env = parallel_env("matrix/continuous")
    assert env.action_space("agent_1") == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observations, _ = env.reset()
    assert list(observations["agent_0"]) == list(env.observation_space("agent_0").keys()) == ["observation"]
    observations, rewards, *_ = env.step({"agent_0": np.array([0.6]), "agent_1": [0.3]})
    assert rewards == {"agent_0": pytest.approx(3.75), "agent_1": pytest.approx(3.75)}
    assert env.state().tolist() == pytest.approx([0.6, 0.3])
    env.reset()
    with pytest.raises(UsageError, match=r"matrix/continuous: environment 0, agent 1: action .* is out of bounds"):
        env.step({"agent_0": [0.0], "agent_1": [1.5]})


def test_numbers_that_are_no_choices():
    """0.7 is not taken for 0."""
    env = parallel_env("matrix/penalty-2x3")
    env.reset()
    with pytest.raises(
        UsageError, match="matrix/penalty-2x3: actions must be numbers that fit into int64, got float64"
    ):
        env.step({"agent_0": 0.7, "agent_1": 1})
    batch = vector_env("matrix/penalty-2x3", num_envs=2)
    batch.reset()
    with pytest.raises(UsageError, match="got float64"):
        batch.step(np.full((2, 2), 0.7))


def test_pettingzoo_missing(monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r'pip install "emix\[pettingzoo\]"'):
        parallel_env("matrix/msteps-5")


def test_vector_env_spaces_and_metadata():
    env = vector_env("matrix/msteps-5", num_envs=3)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert info == {}
    assert env.single_observation_space["obs"].shape == (2, 10)
    env.action_space.seed(0)
    for _ in range(20):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert (reward.shape, reward.dtype) == ((3,), np.float64)
        assert terminated.dtype == truncated.dtype == bool
    env.close()


def test_vector_env_with_vectors():
    env = vector_env("matrix/continuous", num_envs=3)
    observation, _ = env.reset(seed=1)
    assert list(observation) == ["obs", "state"]
    assert env.single_action_space == gymnasium.spaces.Box(-1, 1, (2, 1), np.float32)
    env.action_space.seed(0)
    for _ in range(4):
        assert env.observation_space.contains(observation)
        actions = env.action_space.sample()
        observation, reward, terminated, _, _ = env.step(actions)
        if terminated.all():
            assert np.array_equal(observation["state"], actions[:, :, 0])
    _, reward, _, _, _ = env.step(np.array([[[0.6], [0.3]]] * 3))  # float64
    assert reward == pytest.approx([3.75] * 3)


def test_vector_env_resets_at_the_next_step():
    env = vector_env("matrix/msteps-3", num_envs=2)
    first, _ = env.reset()
    _, reward, terminated, _, _ = env.step(np.array([[0, 0], [0, 1]]))
    assert (reward.tolist(), terminated.tolist()) == ([1, 0], [False, True])
    observation, reward, terminated, _, _ = env.step(np.array([[0, 0], [1, 1]]))
    assert (reward.tolist(), terminated.tolist()) == ([1, 0], [False, False])
    assert np.array_equal(observation["state"][1], first["state"][1])
    _, reward, terminated, _, _ = env.step(np.array([[1, 1], [1, 1]]))
    assert (reward.tolist(), terminated.tolist()) == ([4, 1], [True, False])
    with pytest.raises(UsageError, match="environment 1, agent 0: action 2"):
        env.step(np.array([[2, 2], [2, 2]]))


def test_vector_env_seeds():
    """A seed starts over; without one the next episodes begin, as in ``emix.make``."""
    name = "lbf/Foraging-8x8-2p-2f-v3"
    env = vector_env(name, num_envs=2, seed=7)
    zero, one = env.reset()[0]["state"], env.reset()[0]["state"]
    again = env.reset(seed=7)[0]["state"]
    env.close()
    peer = make(name, num_envs=2, seed=7)
    peer.episode = torch.tensor([1, 1])
    assert np.array_equal(one, peer.reset().state.numpy())
    peer.close()
    assert np.array_equal(zero, again)
    assert not np.array_equal(zero, one)
