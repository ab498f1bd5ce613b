"""``smac/<map>`` on a fake of SMAC's package (tests/smac_fake)."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import emix
from emix.envs import check_env
from emix.envs.battle import StarCraft2Env
from emix.envs.sc2.options import SMAC_NAMES, read_smac
from emix.errors import UsageError
from emix.playing import RandomActor, collect

FAKE = Path(__file__).parents[2] / "smac_fake"


@pytest.fixture
def fake(house, monkeypatch):
    """The fake's module ``smac.env``, and a folder that looks like StarCraft II."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "smac"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKE)
    house()
    import smac.env

    yield smac.env
    for name in [name for name in sys.modules if name.partition(".")[0] == "smac"]:
        del sys.modules[name]


def client(name, **options):
    """The environment of one process, in this one."""
    from emix.envs.smac import Smac

    return Smac(name, *read_smac(f"smac/{name}", options))


def choose(rng, avail):
    return [int(rng.choice(np.flatnonzero(row))) for row in avail]


def play(env, seed, peer=None):
    """An episode of random actions: its length, return and last info; ``peer`` sees and is paid the same."""
    rng = np.random.default_rng(seed)
    (seen, info), total, length, over = env.reset(seed=seed), 0.0, 0, False
    assert info == {"simulator_lost": 0, "restarts": env.restarts}
    if peer:
        peer.reset()
    while not over:
        if peer:
            np.testing.assert_array_equal(seen["obs"], np.stack(peer.get_obs()))
            np.testing.assert_array_equal(seen["state"], peer.get_state())
            np.testing.assert_array_equal(seen["avail"], peer.get_avail_actions())
        actions = choose(rng, seen["avail"])
        seen, reward, terminated, truncated, info = env.step(actions)
        if peer:
            assert (reward, terminated or truncated) == peer.step(actions)[:2]
        total, length, over = total + reward, length + 1, terminated or truncated
        assert not (terminated and truncated)
    return length, total, truncated, info


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reward": "sparse", "state_last_action": False},
        {"reward_only_positive": False, "obs_last_action": True, "obs_pathing_grid": True, "obs_terrain_height": True},
        {"obs_instead_of_state": True, "reward_scale": False, "reward_defeat": -5.0, "obs_timestep_number": True},
    ],
)
def test_it_says_what_smac_says(fake, options):
    env = client("2s3z", **options)
    arguments = {name: value for name, value in options.items() if name != "reward"}
    peer = StarCraft2Env("2s3z", seed=4, reward_sparse=options.get("reward") == "sparse", **arguments)
    for _ in range(2):
        _, _, truncated, info = play(env, 4, peer)
        assert not truncated
        assert set(info) == {"simulator_lost", "restarts", "battle_won", "dead_allies", "dead_enemies"}
    assert len(fake.made) == 2  # one of them to read the sizes
    env.close()


def test_the_deaths_pay(fake):
    """ADER's reward is what the battle pays."""
    env = client("3m", reward="sparse_deaths")
    peer = StarCraft2Env("3m", seed=4, reward="sparse_deaths")
    length, total, _, info = play(env, 4)
    peer.reset()
    rng, expected, done = np.random.default_rng(4), 0.0, False
    while not done:
        reward, done, _ = peer.step(choose(rng, peer.get_avail_actions()))
        expected += reward
    assert total == pytest.approx(expected, abs=1e-5)
    assert info["dead_allies"] == 3
    assert total == pytest.approx(-0.1 * length - 3 + 10 * info["dead_enemies"], abs=1e-5)


def test_every_option_reaches_smac(fake, tmp_path):
    own = {"difficulty": "A", "game_version": "4.10", "replay_dir": str(tmp_path)}
    changed = {
        "reward": "sparse", "reward_only_positive": False, "reward_death_value": 5.0, "reward_win": 100.0,
        "reward_defeat": -5.0, "reward_negative_scale": 1.0, "reward_scale": False, "reward_scale_rate": 10.0,
        "move_amount": 1.0, "obs_all_health": False, "obs_own_health": False, "obs_last_action": True,
        "obs_pathing_grid": True, "obs_terrain_height": True, "obs_timestep_number": True,
        "obs_instead_of_state": True, "state_last_action": False, "state_timestep_number": True,
    }  # fmt: skip
    assert {*changed, *own, "restart_every", "most_failures", "replay_every"} == set(SMAC_NAMES)
    defaults = asdict(read_smac("smac/3m", {})[0])
    assert all(defaults[name] != value for name, value in changed.items())
    client("3m", **changed, **own)
    given = fake.made[-1].arguments
    del changed["reward"]
    assert given == {
        **{"map_name": "3m", "seed": 0, "continuing_episode": True, "reward_sparse": True},
        **{**changed, **own},
    }


def test_a_time_out_is_truncated(fake):
    env = client("2s_vs_1sc")  # whose enemy waits
    env.reset(seed=0)
    for t in range(1, 301):
        _, _, terminated, truncated, info = env.step([1, 1])
        assert (terminated, truncated) == (False, t == 300)
    assert info["simulator_lost"] == info["battle_won"] == 0


@pytest.mark.parametrize("fault", ["restart", "raise"])
def test_games_that_are_lost(fake, capfd, fault):
    """In a reset: another game takes its place; in a step: the episode is thrown away."""
    env = client("3m")
    fake.faults[:] = [fault, "", "", fault]
    seen, info = env.reset(seed=1)
    assert info["restarts"] == 1
    stop = [1, 1, 1]
    assert env.step(stop)[4]["simulator_lost"] == 0
    last, reward, terminated, truncated, info = env.step(stop)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == {"simulator_lost": 1, "restarts": 2}
    assert last["obs"].shape == seen["obs"].shape
    _, _, _, info = play(env, 2)
    assert (info["simulator_lost"], info["restarts"]) == (0, 2)
    games = fake.made[-3:]
    assert [game.closed for game in games] == [True, True, False]
    assert [game.arguments["seed"] for game in games] == [1, 1, 2]
    env.close()
    assert games[-1].closed
    told = capfd.readouterr().err
    assert told.count("the episode is thrown away, another game takes its place") == 2
    assert ("Socket error: the game is gone" if fault == "raise" else "SMAC has lost the game and started") in told


def test_a_game_that_never_works(fake):
    env = client("3m", most_failures=2)
    fake.faults[:] = ["raise"] * 3
    with pytest.raises(RuntimeError, match=r"smac/3m: 3 failures in a row \(most_failures is 2\), .*Socket error"):
        env.reset()
    assert all(game.closed for game in fake.made[-3:])


def test_restarts_and_replays(fake, tmp_path):
    env = client("3m", restart_every=2, replay_every=2, replay_dir=str(tmp_path / "replays"))
    before = len(fake.made)
    for seed in range(5):
        play(env, seed)
    assert [game.arguments["seed"] for game in fake.made[before:]] == [0, 2, 4]
    assert len(list((tmp_path / "replays").iterdir())) == 1  # the fake names both alike: the second of its game
    env.close()


def test_in_workers(fake):
    """The contract; an episode is bound to its seed where every one gets a game of its own."""
    make_env = partial(emix.make, "smac/3m", restart_every=1)
    env = make_env(num_envs=3)
    assert (env.spec.n_agents, env.spec.episode_limit) == (3, 60)
    check_env(env, make_env)
    rollout = collect(env, RandomActor(env.spec, device=env.device, seed=0), explore=True)
    assert "simulator_lost" not in rollout.info
    env.close()


def test_what_makes_no_sense(fake):
    with pytest.raises(UsageError, match=r"smac/3n: SMAC has no map '3n': did you mean 3m\?"):
        emix.make("smac/3n")
    with pytest.raises(UsageError, match="smac/3m: unknown option 'enemy_order'"):
        emix.make("smac/3m", enemy_order="sorted")
    with pytest.raises(UsageError, match="smac/3m: unknown difficulty 'X'"):
        emix.make("smac/3m", difficulty="X")
