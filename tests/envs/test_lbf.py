"""Level-based foraging against lbforaging itself, driven directly."""

from functools import partial

import gymnasium
import lbforaging  # noqa: F401  registers the ids
import numpy as np
import pytest
import torch
from lbforaging.foraging import ForagingEnv

from emix.envs import check_env, episode_seed, make
from emix.envs.lbf import Foraging, foraging_settings


@pytest.mark.parametrize("sight", ["", "-2s"])
@pytest.mark.parametrize("coop", ["", "-coop"])
@pytest.mark.parametrize("size", ["5x5-2p-1f", "8x8-2p-2f", "10x10-3p-3f", "19x19-9p-4f"])
def test_settings_are_those_that_lbforaging_registers(sight, size, coop):
    name = f"Foraging{sight}-{size}{coop}-v3"
    assert foraging_settings(f"lbf/{name}") == gymnasium.registry[name].kwargs


@pytest.mark.parametrize("name", ["Foraging-5x5-2p-1f-v3", "Foraging-2s-8x8-3p-2f-coop-v3"])
def test_equal_to_lbforaging_driven_directly(name):
    """Two episodes in three environments, the second resumed by number, each against a fresh lbforaging environment."""
    seed, num_envs = 3, 3
    env = make(f"lbf/{name}", num_envs=num_envs, seed=seed)
    try:
        for episode in (0, 17):
            env.episode = torch.full((num_envs,), episode)
            step = env.reset()
            peers = [gymnasium.make(name, disable_env_checker=True).unwrapped for _ in range(num_envs)]
            views = [peer.reset(seed=episode_seed(seed, e, episode))[0] for e, peer in enumerate(peers)]
            rng = np.random.default_rng(episode)
            finished = [False] * num_envs
            for _ in range(50):
                for e in range(num_envs):
                    if not finished[e]:
                        assert np.array_equal(step.obs[e].numpy(), np.array(views[e]))
                        assert np.array_equal(step.state[e].numpy(), np.concatenate(views[e]))
                actions = rng.integers(0, 6, (num_envs, env.spec.n_agents))
                step = env.step(torch.from_numpy(actions))
                for e, peer in enumerate(peers):
                    if finished[e]:
                        assert float(step.reward[e]) == 0
                        continue
                    views[e], rewards, done, _, _ = peer.step(actions[e].tolist())
                    assert float(step.reward[e]) == pytest.approx(sum(rewards))
                    assert bool(step.terminated[e]) == (peer.field.sum() == 0)
                    assert bool(step.done[e]) == done
                    finished[e] = done
            assert step.done.all()
    finally:
        env.close()


def test_time_limit_truncates():
    env = make("lbf/Foraging-5x5-2p-1f-v3", num_envs=2)
    try:
        env.reset()
        for _ in range(49):
            assert not env.step(torch.zeros(2, 2, dtype=torch.int64)).done.any()
        step = env.step(torch.zeros(2, 2, dtype=torch.int64))
        assert step.truncated.tolist() == [True, True]
        assert step.terminated.tolist() == [False, False]
    finally:
        env.close()


def test_last_food_terminates_and_an_episode_pays_one():
    """One agent of level 2 eats a food of level 1 or 2 beside it: the search ends at the first such start."""
    task = Foraging(**foraging_settings("lbf/Foraging-5x5-2p-1f-v3"))
    for seed in range(1000):
        observation, _ = task.reset(seed=seed)
        row, col, level, y, x, own = observation["obs"][0][:6]
        if abs(row - y) + abs(col - x) == 1 and own >= level:
            break
    observation, reward, terminated, truncated, _ = task.step([5, 0])
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert observation["obs"][0][:3].tolist() == [-1, -1, 0]


def test_an_episode_does_not_depend_on_the_one_before():
    settings = foraging_settings("lbf/Foraging-5x5-4p-1f-v3")
    used = Foraging(**settings)
    for seed in range(200):
        fresh, _ = Foraging(**settings).reset(seed=seed)
        again, _ = used.reset(seed=seed)
        assert np.array_equal(fresh["obs"], again["obs"])
        for action in np.random.default_rng(seed).integers(1, 5, (5, 4)).tolist():
            used.step(action)


def test_the_foods_of_a_field_share_no_neighbour():
    """So the order in which lbforaging serves loading players, which follows their addresses, decides nothing."""
    env = ForagingEnv(**foraging_settings("lbf/Foraging-10x10-3p-5f-v3"))
    for seed in range(200):
        env.reset(seed=seed)
        foods = np.argwhere(env.field > 0)
        assert len(foods) == 5
        apart = np.abs(foods[:, None] - foods[None]).sum(-1)  # [5, 5]
        assert apart[~np.eye(5, dtype=bool)].min() > 2


@pytest.mark.parametrize(
    "name",
    [
        "lbf/Foraging-8x8-2p-2f-v3",
        "lbf/Foraging-2s-8x8-3p-2f-coop-v3",
        "lbf/Foraging-10x10-3p-5f-v3",
        "lbf/Foraging-20x20-10p-3f-v3",
    ],
)
def test_contract(name):
    env = make(name, num_envs=3, seed=5)
    try:
        check_env(env, partial(make, name, seed=5))
    finally:
        env.close()


def test_sizes():
    env = make("lbf/Foraging-10x10-3p-5f-v3", num_envs=1)
    spec = env.spec
    env.close()
    obs_dim = 3 * 5 + 3 * 3
    assert (spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim) == (3, 6, obs_dim, 3 * obs_dim)
    assert spec.episode_limit == 50


def test_seeds_differ():
    states = []
    for seed in (0, 1):
        env = make("lbf/Foraging-8x8-2p-2f-v3", num_envs=2, seed=seed)
        states.extend(tuple(row) for row in env.reset().state.tolist())
        states.extend(tuple(row) for row in env.reset().state.tolist())
        env.close()
    assert len(set(states)) == 8
