"""``smac/<map>`` with unmodified SMAC, which plays the stand-in: run where ``smac.env`` can be imported.

Frames of the battle that pass through SMAC are seen as the battle itself is: state and available actions bit for bit;
observations and rewards to float32's last digits, since SMAC computes them in float64.
"""

import time
from importlib import import_module

import numpy as np
import pytest

import emix
from emix.envs.battle import list_maps
from emix.envs.sc2.options import read_smac
from emix.playing import RandomActor, collect
from tests.envs.sc2 import test_equality
from tests.sc2_standin.failures import running

pytest.importorskip("smac.env", reason="SMAC is not installed (docs/starcraft.md says how)", exc_type=ImportError)
MAPS = [
    name for name in import_module("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry() if name in list_maps()
]

# Heights are quarters in the battle, whose dead see no time, either.
EVERYTHING = test_equality.EVERYTHING | {"obs_terrain_height": False, "obs_timestep_number": False}


def client(name, **options):
    from emix.envs.smac import Smac

    return Smac(name, *read_smac(f"smac/{name}", options))


def assert_same(seen, step):
    np.testing.assert_array_equal(seen["state"], step.state[0].numpy())
    np.testing.assert_array_equal(seen["avail"], step.avail[0].numpy())
    np.testing.assert_allclose(seen["obs"], step.obs[0].numpy(), rtol=0, atol=3e-7)


def play(env, house, steps, seed):
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=seed)
    game = house.games[-1]
    assert_same(seen, game.now)
    for t in range(200):
        actions = [int(rng.choice(np.flatnonzero(row))) for row in seen["avail"]]
        seen, reward, terminated, truncated, info = env.step(actions)
        if t < steps or terminated or truncated:
            assert_same(seen, game.now)
        assert reward == pytest.approx(game.now.reward.item(), abs=1e-6)
        assert (terminated, truncated) == (game.now.terminated.item(), game.now.truncated.item())
        for key in ("battle_won", "dead_allies", "dead_enemies"):
            assert info[key] == game.now.info[key].item()
        if terminated or truncated:
            return


@pytest.mark.parametrize("name", MAPS)
def test_every_map(house, name):
    made = house()
    env = client(name)
    try:
        for seed in range(2):
            play(env, made, steps=25, seed=seed)
    finally:
        env.close()
    assert not running(made)


@pytest.mark.parametrize("name", ["2s3z", "MMM"])
def test_every_option(house, name):
    made = house(**EVERYTHING)
    env = client(name, **EVERYTHING)
    try:
        play(env, made, steps=25, seed=0)
    finally:
        env.close()


@pytest.mark.parametrize("fault", ["die", "cut", "nonsense"])
def test_games_that_are_lost(house, fault):
    """Training goes on, and no game is left."""
    left = [True]
    made = house(
        fault=lambda game, kind: fault if kind == "observation" and game == 0 and left and left.pop() else None
    )
    env = emix.make("smac/3m")
    rollout = collect(env, RandomActor(env.spec, device=env.device, seed=0), explore=True)
    assert made.faults == [fault]
    assert (rollout.episodes.lengths == rollout.lengths).all()
    env.close()
    deadline = time.monotonic() + 10
    while running(made) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(made)
