"""Multi-agent MuJoCo against gymnasium-robotics itself, driven directly."""

import resource
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium_robotics")

from gymnasium_robotics import mamujoco_v1

from emix.data import Box, Episodes, TransitionReplay
from emix.envs import check_env, episode_seed, make
from emix.envs.mamujoco import MultiAgentMujoco
from emix.envs.mujoco_task import NAMES, read_task
from emix.envs.options import MujocoOptions
from emix.errors import UsageError

SIZES = {  # obs at k = 0, 1, state, action, without global categories
    "HalfCheetah-6x1": ([2] * 6, [4, 4, 3, 4, 4, 3], 17, [1] * 6),
    "Hopper-3x1": ([2] * 3, [3, 4, 3], 11, [1] * 3),
    "Swimmer-2x1": ([3] * 2, [4] * 2, 8, [1] * 2),
    "Walker2d-2x3": ([6] * 2, [7] * 2, 17, [3] * 2),
    "Humanoid-9|8": (None, [231, 159], 348, [9, 8]),
    "Pusher-3p": (None, [7, 4, 7], 23, [3, 1, 3]),
    "ManySegmentSwimmer-5x2": (None, [5, 6, 6, 6, 5], 24, [2] * 5),
}
FULL = ["HalfCheetah-6x1", "Hopper-3x1", "Swimmer-2x1", "Walker2d-2x3"]
DIRECT = {"HalfCheetah-6x1": (1, 60), "Hopper-3x1": (1, 200), "Humanoid-9|8": (0.4, 60), "Pusher-3p": (2, 110)}


@pytest.fixture(autouse=True)
def _mujocos_log_goes_elsewhere(tmp_path, monkeypatch):
    """What gymnasium-robotics itself builds is not quiet: MuJoCo writes MUJOCO_LOG.TXT into the working folder."""
    monkeypatch.chdir(tmp_path)


def upstream(name, **settings):
    scenario, _, factorisation = name.partition("-")
    env = mamujoco_v1.parallel_env(scenario, factorisation, global_categories=(), **settings)
    if scenario == "Pusher":  # three joints of one name, in the order of their addresses
        for nodes_at in env.k_dicts:
            for nodes in nodes_at.values():
                nodes.sort(key=lambda node: (node.label, node.act_ids))
    return env


def padded(rows, length):
    return np.array([np.pad(row, (0, length - len(row))) for row in rows], np.float32)


def random_actions(env, rng):
    return torch.from_numpy(rng.uniform(-1, 1, (env.num_envs, env.spec.n_agents, env.spec.action.dim))).float()


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    at_zero, at_one, state, numbers = SIZES[name]
    task = read_task(f"mamujoco/{name}")
    for k, sizes in ((0, at_zero), (1, at_one)):
        if sizes is None:
            continue
        env = MultiAgentMujoco(task, MujocoOptions(obs_k=k))
        observation, _ = env.reset(seed=1)
        assert observation["obs"].shape == (len(sizes), max(sizes))
        for row, size in zip(observation["obs"], sizes, strict=True):
            assert name not in FULL or row[:size].all()  # noise is in every number of a start
            assert not row[size:].any()
        assert observation["state"].shape == (state,)
        env.close()
    env = make(f"mamujoco/{name}")
    assert env.spec.action == Box(max(numbers), -1.0, 1.0, tuple(numbers) if len(set(numbers)) > 1 else ())
    assert env.spec.episode_limit == (100 if name == "Pusher-3p" else 1000)
    env.close()


@pytest.mark.parametrize("name", DIRECT)
def test_equal_to_gymnasium_robotics_driven_directly(name):
    """Two episodes in two environments, the second resumed by number, each against a fresh one of the package's."""
    bound, steps = DIRECT[name]
    env = make(f"mamujoco/{name}", num_envs=2, seed=3)
    ends = set()
    for episode in (0, 17):
        env.episode = torch.full((2,), episode)
        step, rng = env.reset(), np.random.default_rng(episode)
        peers = [upstream(name) for _ in range(2)]
        views = [peer.reset(seed=episode_seed(3, e, episode))[0] for e, peer in enumerate(peers)]
        for _ in range(steps):
            for e, peer in enumerate(peers):
                if peer.agents:
                    assert np.array_equal(step.obs[e].numpy(), padded(views[e].values(), env.spec.obs_dim))
                    assert np.array_equal(step.state[e].numpy(), peer.state().astype(np.float32))
            actions = random_actions(env, rng)
            step = env.step(actions)
            for e, peer in enumerate(peers):
                if not peer.agents:
                    assert (float(step.reward[e]), bool(step.done[e])) == (0, True)
                    continue
                names = peer.possible_agents
                parts = zip(names, actions[e].numpy(), strict=True)
                joint = {agent: np.float32(bound) * row[: peer.action_space(agent).shape[0]] for agent, row in parts}
                views[e], rewards, fell, late, _ = peer.step(joint)
                assert set(rewards.values()) == {rewards["agent_0"]}  # the team's, once
                assert float(step.reward[e]) == np.float32(rewards["agent_0"])
                assert (bool(step.terminated[e]), bool(step.truncated[e])) == (fell["agent_0"], late["agent_0"])
                ends |= {"terminated"} if fell["agent_0"] else {"truncated"} if late["agent_0"] else set()
    env.close()
    expected = {"Hopper-3x1": {"terminated"}, "Humanoid-9|8": {"terminated"}, "Pusher-3p": {"truncated"}}
    assert ends == expected.get(name, set())


def test_padding_of_actions_is_ignored():
    env = MultiAgentMujoco(read_task("mamujoco/Humanoid-9|8"), MujocoOptions())
    own = env.action_space.low < env.action_space.high
    assert own.sum() == 17
    assert not own[1, 8]
    action = np.random.default_rng(0).uniform(-1, 1, (2, 9)).astype(np.float32)
    seen = []
    for padding in (0, 1):
        env.reset(seed=4)
        action[1, 8] = padding
        seen.append(env.step(action))
    assert np.array_equal(seen[0][0]["state"], seen[1][0]["state"])
    assert seen[0][1] == seen[1][1]


def test_a_fall_in_the_last_step_is_terminated_alone():
    """And the limit alone is truncated."""
    task = read_task("mamujoco/Hopper-3x1")
    rng = np.random.default_rng(2)
    actions = rng.uniform(-1, 1, (200, 3, 1)).astype(np.float32)

    def ends(limit):
        env = MultiAgentMujoco(task, MujocoOptions(episode_limit=limit))
        env.reset(seed=2)
        for count, action in enumerate(actions, start=1):
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                return count, terminated, truncated
        raise AssertionError("it has not ended")

    length, *flags = ends(None)
    assert flags == [True, False]
    assert 1 < length < 200
    assert ends(length) == (length, True, False)
    assert ends(length - 1) == (length - 1, False, True)


def test_options():
    task = read_task("mamujoco/HalfCheetah-6x1")
    env = MultiAgentMujoco(task, MujocoOptions(global_categories="qpos,qvel"))
    assert env.observation_space["obs"].shape == (6, 9)
    with pytest.warns(DeprecationWarning, match="HalfCheetah-v4 is out of date"):
        body = gymnasium.make("HalfCheetah-v4").unwrapped
    old = MultiAgentMujoco(task, MujocoOptions(version="v4", obs_k=0))
    assert old.observation_space["obs"].shape == (6, 2)
    expected, _ = body.reset(seed=5)
    assert np.array_equal(old.reset(seed=5)[0]["state"], expected)
    assert "reward_run" in old.step(np.zeros((6, 1), np.float32))[-1]  # v5 calls it reward_forward
    env = make("mamujoco/Reacher-2x1", episode_limit=3)
    env.reset()
    done = [bool(env.step(torch.zeros(1, 2, 1)).truncated) for _ in range(3)]
    assert done == [False, False, True]
    env.close()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("CoupledHalfCheetah-1p1", {}, "gymnasium-robotics 1.4.2 cannot play it"),
        ("Cheetah-6x1", {}, "unknown scenario 'Cheetah', did you mean HalfCheetah"),
        ("HalfCheetah-3x2", {}, "HalfCheetah is divided as one of 2x3, 6x1, got 3x2"),
        ("ManySegmentAnt-1x3", {}, "n agents .2 or more. with k segments each, .* got 1x3"),
        ("ManySegmentAnt-50x3", {}, "100 segments at most, got 50x3"),
        ("ManySegmentAnt-2x2", {"version": "v4"}, "version v4 of this body does not run"),
        ("Pusher-3p", {"version": "v4"}, "version v4 of this body does not run"),
        ("Hopper-3x1", {"version": "v2"}, "version expects v5 or v4, got 'v2'"),
        ("Hopper-3x1", {"obs_k": -1}, "obs_k expects an integer of at least 0, got -1"),
        ("Hopper-3x1", {"obs_k": None}, "obs_k expects int, got None"),
        ("Hopper-3x1", {"episode_limit": 0}, "episode_limit expects an integer of at least 1, got 0"),
        (
            "Hopper-3x1",
            {"global_categories": "qpos, qvel"},
            "global_categories expects some of qpos, qvel, .* got 'qpos",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(name, options, text):
    with pytest.raises(UsageError, match=f"^mamujoco/{name}: .*{text}"):
        make(f"mamujoco/{name}", **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_factorisation_plays(name):
    env = MultiAgentMujoco(read_task(f"mamujoco/{name}"), MujocoOptions(obs_k=0))
    env.reset(seed=0)
    observation, reward, *_ = env.step(np.zeros(env.action_space.shape, np.float32))
    assert env.observation_space["obs"].contains(observation["obs"])
    assert np.isfinite(reward)


@pytest.mark.parametrize("name", ["HalfCheetah-6x1", "Ant-4x2", "Humanoid-9|8", "ManySegmentAnt-2x1", "Hopper-3x1"])
def test_contract(name, capfd):
    options = {"episode_limit": 40, "seed": 5}
    env = make(f"mamujoco/{name}", num_envs=3, **options)
    check_env(env, partial(make, f"mamujoco/{name}", **options))
    env.close()
    assert capfd.readouterr() == ("", "")  # nothing of MuJoCo's, nor of gymnasium-robotics'


def test_an_episode_does_not_depend_on_the_one_before():
    task = read_task("mamujoco/Ant-4x2")
    used, fresh = (MultiAgentMujoco(task, MujocoOptions()) for _ in range(2))
    used.reset(seed=1)
    actions = np.random.default_rng(1).uniform(-1, 1, (30, 4, 2)).astype(np.float32)
    for action in actions:
        used.step(action)
    for env in (used, fresh):
        env.start, _ = env.reset(seed=7)
    assert np.array_equal(used.start["obs"], fresh.start["obs"])
    for action in actions:
        one, other = used.step(action), fresh.step(action)
        assert np.array_equal(one[0]["state"], other[0]["state"])
        assert one[1] == other[1]


def test_a_million_transitions_of_half_cheetah_fit_in_four_gib():
    """Filled with episodes of full length; the ring has room for episodes of one step, two entries each."""
    env = make("mamujoco/HalfCheetah-6x1")
    replay = TransitionReplay(1_000_000, env.spec, device="cpu", seed=0)
    env.close()
    entry = 4 * (6 * 4 + 17 + 6 + 1) + 2  # obs, state, actions, reward, terminated, truncated
    assert replay.bytes == 2_000_000 * entry == 388_000_000
    count, steps = 50, 1000
    valid = torch.ones(count, steps, dtype=torch.bool)
    values = {
        "obs": torch.rand(count, steps + 1, 6, 4),
        "state": torch.rand(count, steps + 1, 17),
        "actions": torch.rand(count, steps + 1, 6, 1),
        "reward": torch.rand(count, steps),
        "terminated": ~valid,
        "truncated": ~valid,
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    for _ in range(20):
        replay.add(Episodes.of(values, valid), torch.full((count,), steps))
    assert len(replay) == 1_000_000
    batch = replay.sample(100)
    assert batch.obs.shape == (100, 2, 6, 4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
