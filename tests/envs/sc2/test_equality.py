"""A battle that is sent through the stand-in into the client is seen as the battle itself is."""

import numpy as np
import pytest

from emix.envs.battle import list_maps
from emix.envs.battle.maps import ALIASES
from emix.envs.battle.scenario import make_scenario
from emix.envs.sc2.env import SC2Battle
from emix.envs.sc2.locate import find_game, find_map
from emix.envs.sc2.options import read_both

MAPS = [name for name in list_maps() if name not in ALIASES]
EVERYTHING = {
    "obs_last_action": True,
    "obs_pathing_grid": True,
    "obs_terrain_height": True,
    "obs_timestep_number": True,
    "state_timestep_number": True,
    "reward_only_positive": False,
}


def client(name, **options):
    """The environment of one process, in this one."""
    battle, game = read_both(f"sc2/{name}", options)
    scenario = make_scenario(f"sc2/{name}", name, battle)
    installation = find_game()
    return SC2Battle(scenario, game, installation, find_map(installation, name))


def assert_same(seen, step):
    for key in ("obs", "state", "avail"):
        np.testing.assert_array_equal(seen[key], getattr(step, key)[0].numpy(), err_msg=key)


def play(env, house, steps, seed=0):
    """Random actions, each step compared bit for bit."""
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=seed)
    game = house.games[-1]
    assert_same(seen, game.now)
    for _ in range(steps):
        actions = [int(rng.choice(np.flatnonzero(row))) for row in seen["avail"]]
        seen, reward, terminated, truncated, info = env.step(actions)
        assert_same(seen, game.now)
        assert np.float32(reward) == game.now.reward.item()
        assert (terminated, truncated) == (game.now.terminated.item(), game.now.truncated.item())
        for key in ("battle_won", "dead_allies", "dead_enemies"):
            assert info[key] == game.now.info[key].item()
        assert info["simulator_lost"] == 0
        if terminated or truncated:
            return


@pytest.mark.parametrize("name", MAPS)
def test_every_map(house, name):
    made = house()
    env = client(name)
    try:
        play(env, made, steps=25)
        play(env, made, steps=3, seed=1)  # both armies made anew
    finally:
        env.close()
    assert len(made.games) == 1


@pytest.mark.parametrize("name", ["2s3z", "MMM", "2c_vs_64zg"])
@pytest.mark.parametrize("old", [False, True])
def test_every_option(house, name, old):
    made = house(old=old, **EVERYTHING)
    env = client(name, **EVERYTHING)
    try:
        play(env, made, steps=25)
    finally:
        env.close()


@pytest.mark.parametrize(
    "options",
    [
        {"reward": "sparse"},
        {"reward": "sparse_deaths"},
        {"reward_scale": False, "reward_only_positive": False, "reward_defeat": -5.0},
        {"obs_instead_of_state": True, "obs_own_health": False, "obs_all_health": False},
        {"episode_limit": 4, "state_last_action": False, "move_amount": 1.0},
    ],
)
def test_options(house, options):
    made = house(**options)
    env = client("3m", **options)
    try:
        for seed in range(2):
            play(env, made, steps=60, seed=seed)
    finally:
        env.close()
