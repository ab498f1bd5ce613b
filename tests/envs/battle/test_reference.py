"""Observations, state, availability, reward and ends against the slow reference, over random play."""

import pytest
import torch

import emix
from tests.envs.battle.play import random_actions
from tests.envs.battle.reference import Battle

EVERYTHING = {
    "obs_last_action": True,
    "obs_pathing_grid": True,
    "obs_terrain_height": True,
    "obs_timestep_number": True,
    "state_timestep_number": True,
}
CASES = [
    ("3m", {}),
    ("3m", EVERYTHING),
    ("3m", {"obs_all_health": False}),
    ("3m", {"obs_all_health": False, "obs_own_health": False, "state_last_action": False}),
    ("2s3z", EVERYTHING | {"obs_all_health": False, "obs_own_health": False}),
    ("2s3z", {"reward_only_positive": False}),
    ("2s3z", {"reward_absolute": False, "enemy_order": "sorted"}),
    ("MMM2", EVERYTHING | {"reward_only_positive": False, "reward_negative_scale": 0.25, "reward_defeat": -50}),
    ("MMM", {"reward": "sparse_deaths", "enemy_order": "fixed"}),
    ("8m", {"reward": "sparse"}),
    ("8m", {"reward": "sparse", "reward_scale": False, "episode_limit": 9}),
    ("1c3s5z", EVERYTHING),
    ("1c3s5z_vs_1c3s6z", {"reward_scale_rate": 1.0, "move_amount": 3}),
    ("so_many_baneling", {"balance": "lotv", "reward_death_value": 3, "reward_win": 30}),
    ("bane_vs_bane", EVERYTHING),
    ("corridor", EVERYTHING),
    ("2c_vs_64zg", EVERYTHING),
    ("2_corridors", EVERYTHING | {"closing_step": 0, "obs_closed": True}),
    ("2s_vs_1sc", {"weapon_delay": False}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_everything_that_a_learner_sees(name, options):
    env = emix.make(f"battle/{name}", num_envs=3, seed=5, **options)
    env.advance(0)
    generator = torch.Generator().manual_seed(1)
    step = env.reset()
    for _ in range(25):
        before = [Battle(env, index) for index in range(env.num_envs)]
        compare_views(env, step, before)
        after = env.step(random_actions(step, generator, attack=0.8))
        now = [Battle(env, index) for index in range(env.num_envs)]
        for index in range(env.num_envs):
            compare_outcome(after, index, before[index], now[index])
        compare_views(env, after, now)
        step = env.reset(after.done) if after.done.any() else after


def compare_views(env, step, battles):
    def close(ours, expected):
        torch.testing.assert_close(ours.double(), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)

    agents = range(env.spec.n_agents)
    assert step.avail.tolist() == [[battle.avail(agent) for agent in agents] for battle in battles]
    close(step.obs, [[battle.obs(agent, env.spec.obs_dim) for agent in agents] for battle in battles])
    close(step.state, [battle.state() for battle in battles])


def compare_outcome(after, index, before, now):
    code = now.code()
    assert bool(after.terminated[index]) == (code is not None)
    assert bool(after.truncated[index]) == (code is None and now.time >= now.limit)
    assert bool(after.info["battle_won"][index]) == (code == 1)
    assert int(after.info["dead_allies"][index]) == sum(not unit.alive for unit in now.allies)
    assert int(after.info["dead_enemies"][index]) == sum(not unit.alive for unit in now.enemies)
    assert float(after.reward[index]) == pytest.approx(now.reward(before), rel=1e-6, abs=1e-6)
