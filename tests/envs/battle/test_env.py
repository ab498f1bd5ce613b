"""``battle/<map>`` as an environment: contract, options, errors, seeds, and other libraries' interfaces."""

import subprocess
import sys
from functools import partial

import gymnasium
import pytest
import torch
import yaml

import emix
from emix.envs import check_env, parallel_env, vector_env
from emix.envs.battle.fields import CLOCK, STAT, UNIT
from emix.errors import UsageError
from tests.envs.battle.play import random_actions
from tests.envs.battle.test_user_files import MAP


@pytest.mark.parametrize("name", ["3m", "MMM2", "2s3z", "so_many_baneling", "2m_vs_1z", "corridor"])
def test_the_contract(name, device):
    make = partial(emix.make, f"battle/{name}", device=device, seed=3, episode_limit=40)
    check_env(make(num_envs=3), make)


@pytest.mark.parametrize(
    "options",
    [{"obs_instead_of_state": True}, {"enemy_order": "sorted"}, {"checked": False}, {"obs_last_action": True}],
)
def test_the_contract_with_options(options):
    make = partial(emix.make, "battle/2s3z", **options)
    check_env(make(num_envs=3), make)


def starts(env, steps=0):
    step = env.reset()
    for _ in range(steps):
        step = env.step(torch.where(step.avail[:, :, 0], 0, 1))
    return env.units.clone()


def test_seeds_and_episodes():
    first, second, other = (emix.make("battle/8m", num_envs=3, seed=seed) for seed in (1, 1, 2))
    a, b, c = starts(first, 20), starts(second, 20), starts(other, 20)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a, starts(first, 20))  # the next episodes
    first.episode = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(a, starts(first, 20))
    assert first.episode.tolist() == [1, 1, 1]


def test_spawn_jitter():
    still = emix.make("battle/3m", num_envs=4, spawn_jitter=0.0, enemy_order="fixed")
    place = starts(still)[:, [UNIT["x"], UNIT["y"]]]
    assert (place == place[0]).all()
    moved = emix.make("battle/3m", num_envs=4, spawn_jitter=0.5, enemy_order="fixed")
    difference = (starts(moved)[:, [UNIT["x"], UNIT["y"]]] - place)[:, :, :3].abs()
    assert difference.max() <= 0.5
    assert difference.max() > 0.1


def test_enemy_orders():
    """Shuffled differs from episode to episode; sorted does not, and goes by type, x and y."""
    for order, distinct in (("shuffled", True), ("fixed", False), ("sorted", False)):
        env = emix.make("battle/3s5z", num_envs=8, enemy_order=order, spawn_jitter=0.0)
        enemies = starts(env)[:, [UNIT["health"], UNIT["x"], UNIT["y"]], 8:16]
        assert (len({tuple(row.flatten().tolist()) for row in enemies}) > 1) == distinct
        if order == "sorted":
            rows = [(-life, x, y) for life, x, y in enemies[0].T.tolist()]  # zealots (73), of 100 life, come first
            assert rows == sorted(rows)


def test_weapon_delay_is_the_only_chance_left():
    def course(seed, **options):
        env = emix.make("battle/3m", seed=seed, spawn_jitter=0.0, enemy_order="fixed", **options)
        return starts(env, 40)

    assert torch.equal(course(1, weapon_delay=False), course(2, weapon_delay=False))
    assert not torch.equal(course(1), course(2))


def test_the_corridor_closes_in_mid_training():
    env = emix.make("battle/2_corridors", num_envs=2, closing_step=100, obs_closed=True)
    assert env.spec.obs_dim == 17  # MAVEN's
    for env_steps, closed in ((0, 0), (99, 0), (100, 1), (5000, 1), (0, 0)):
        env.advance(env_steps)
        step = env.reset()
        assert env.clock[:, CLOCK["closed"]].tolist() == [closed] * 2
        assert step.obs[:, :, 4].tolist() == [[float(closed)] * 2] * 2


def test_the_closed_corridor_cannot_be_walked():
    """Marines that walk north from their start come through the open corridor alone."""
    places = []
    for closing_step in (None, 0):
        env = emix.make("battle/2_corridors", closing_step=closing_step)
        emix.envs.advance(env, 10)
        step = env.reset()
        for _ in range(30):
            step = env.step(torch.where(step.avail[:, :, 2], 2, torch.where(step.avail[:, :, 4], 4, 1)))
        places.append(float(env.units[0, UNIT["y"], 0]))
    assert places[0] > 20
    assert places[1] < 14


def test_unavailable_actions_when_checked():
    env = emix.make("battle/3m", num_envs=2)
    env.reset()
    actions = torch.ones(2, 3, dtype=torch.int64)
    for action in (0, 6, 9, -1):
        actions[1, 2] = action
        with pytest.raises(
            UsageError,
            match=rf"battle/3m: environment 1, agent 2: action {action} is not available, expected one of \[1, ",
        ):
            env.step(actions)
    with pytest.raises(UsageError, match="call reset"):
        emix.make("battle/3m").step(actions[:1])


def test_unavailable_actions_when_not_checked():
    env = emix.make("battle/3m", num_envs=2, checked=False)
    env.reset()
    env.step(torch.ones(2, 3, dtype=torch.int64))
    env.check()
    env.step(torch.tensor([[1, 1, 1], [1, 8, 7]]))
    with pytest.raises(
        UsageError, match="battle/3m: environment 1, agent 1: action 8 was not available and counted as"
    ):
        env.check()
    env.reset(torch.tensor([False, True]))
    env.check()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rewrad": "sparse"}, "battle/3m: unknown option 'rewrad', did you mean reward"),
        ({"reward": "sparce"}, "unknown reward 'sparce', did you mean sparse"),
        ({"enemy_order": "random"}, "unknown enemy_order 'random', expected one of shuffled, fixed, sorted"),
        ({"balance": "libety"}, "unknown balance 'libety': did you mean liberty"),
        ({"spawn_jitter": -1}, "spawn_jitter expects a number of at least 0, got -1"),
        ({"spawn_jitter": "much"}, "spawn_jitter expects float, got 'much'"),
        ({"reward_scale": 1}, "reward_scale expects bool, got 1"),
        ({"episode_limit": 0}, "episode_limit expects an integer of at least 1, got 0"),
        ({"episode_limit": 2.5}, "episode_limit expects int or None, got 2.5"),
        ({"closing_step": 9}, "battle/3m: closing_step needs a map that can close, such as 2_corridors"),
        ({"obs_closed": True}, "obs_closed needs a map that can close"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(UsageError, match=text) as caught:
        emix.make("battle/3m", **options)
    assert "\n" not in str(caught.value)


def test_names():
    with pytest.raises(UsageError, match=r"unknown environment 'battle/3n': did you mean .*battle/3m"):
        emix.make("battle/3n")
    with pytest.raises(UsageError, match="matrix/msteps-3: unknown option 'reward'"):
        emix.make("matrix/msteps-3", reward="sparse")
    assert emix.make("battle/MMM3").spec.n_actions == 19


def test_a_map_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(MAP))
    env = emix.make(f"battle/{file}", num_envs=3)
    assert (env.spec.name, env.spec.n_agents, env.spec.n_actions) == (f"battle/{file}", 2, 7)
    check_env(env, partial(emix.make, f"battle/{file}"))


def test_balances_play_differently():
    """A stalker does 13 points in multiplayer, 10 in the campaign."""
    damage = {}
    for options in ({}, {"balance": "liberty"}):
        env = emix.make("battle/3s_vs_3z", **options)
        damage[env.scenario.options.balance] = env.tables.stats[STAT["damage"], 0].item()
    assert damage == {"lotv": 13, "liberty": 10}


def test_gymnasium():
    env = vector_env("battle/2s3z", num_envs=2, seed=1, reward="sparse", episode_limit=5)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    for _ in range(7):
        actions = observation["avail"].argmax(2)
        observation, _, terminated, truncated, _ = env.step(actions)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert not terminated.any()
    assert not truncated.any()  # the second episode has begun
    env.close()


def test_pettingzoo():
    pytest.importorskip("pettingzoo")
    from pettingzoo.test import parallel_api_test

    parallel_api_test(parallel_env("battle/3m", seed=1, checked=False), num_cycles=100)


@pytest.mark.cuda
def test_a_step_does_not_wait_for_the_gpu():
    env = emix.make("battle/3m", num_envs=4, device="cuda")
    env.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        env.step(torch.ones(4, 3, dtype=torch.int64, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_time_limits_truncate():
    env = emix.make("battle/3m", num_envs=2, episode_limit=2)
    step = env.reset()
    generator = torch.Generator().manual_seed(0)
    for expected in (False, True):
        step = env.step(random_actions(step, generator))
        assert step.truncated.tolist() == [expected] * 2
        assert step.terminated.tolist() == [False] * 2


def test_memory_of_4096_battles():
    """Of the largest map, with the observations of two steps: under 2 GiB more than an empty process takes."""
    script = """
import resource, torch, emix
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
env = emix.make("battle/27m_vs_30m", num_envs=4096, checked=False)
step = env.reset()
for _ in range(2):
    step = env.step(torch.where(step.avail[:, :, 4], 4, 1))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < 2, done.stdout
