"""The environments behind PettingZoo's and gymnasium's interfaces."""

from functools import partial

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
        *("prey/stag-hunt", "prey/macf", "lbf/Foraging-5x5-2p-1f-v3", "battle/3m", "battle/MMM"),
    ],
)
def test_pettingzoo(name):
    env = parallel_env(name, **({"checked": False} if name.startswith("battle/") else {}))
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


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ({"agent_0": 0}, r"an action of each of \['agent_0', 'agent_1'\], got those of \['agent_0'\]"),
        ({"agent_0": 0, "agent_1": 0, "agent_2": 0}, "got those of"),
        ({}, "got those of"),
        ({"agent_0": 0, "agent_1": [0, 1]}, "rows of several lengths"),
        ({"agent_0": [0], "agent_1": [0]}, r"int64 of shape \[1, 2\] \[E, n\], got int64 of shape \[1, 2, 1\]"),
        ({"agent_0": None, "agent_1": 0}, "actions must be numbers that fit into int64, got object"),
    ],
)
def test_what_are_no_actions_of_all_agents(actions, text):
    env = parallel_env("matrix/penalty-2x3")
    with pytest.raises(UsageError, match="step was called before reset, or after the episode's end"):
        env.step({"agent_0": 0, "agent_1": 0})
    env.reset()
    with pytest.raises(UsageError, match=f"matrix/penalty-2x3: .*{text}"):
        env.step(actions)
    env.step({"agent_0": 0, "agent_1": 0})
    with pytest.raises(UsageError, match="step was called before reset, or after the episode's end"):
        env.step({"agent_0": 0, "agent_1": 0})


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
    assert info == {}  # the game has none
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


@pytest.mark.parametrize("name", ["battle/3m", "prey/stag-hunt", "prey/macf", "matrix/continuous"])
def test_infos_come_through(name):
    """Every info of the environment, at the reset and at every step, in both libraries' forms."""
    peer, batch, single = make(name, num_envs=2), vector_env(name, num_envs=2), parallel_env(name)
    step, (_, infos), (_, own) = peer.reset(), batch.reset(), single.reset()
    for _ in range(2):
        assert step.info
        assert set(infos) == {*step.info, *(f"_{key}" for key in step.info)}
        for key, column in step.info.items():
            assert np.array_equal(infos[key], column.numpy())
            assert infos[key].dtype == column.numpy().dtype
            assert infos[f"_{key}"].tolist() == [True, True]
            assert {agent: own[agent][key] for agent in own} == dict.fromkeys(single.possible_agents, column[0].item())
        actions = torch.zeros(2, peer.spec.n_agents, *peer.spec.action.shape)
        if peer.spec.action.dtype == "int64":
            actions = step.avail.long().argmax(2)
        step = peer.step(actions)
        infos = batch.step(actions.numpy())[-1]
        own = single.step(dict(zip(single.possible_agents, actions[0].numpy(), strict=True)))[-1]
        if not single.agents:
            break


@pytest.mark.parametrize("name", ["matrix/msteps-5", "matrix/continuous", "prey/macf", "battle/3m"])
def test_torchrl_reads_the_vector_env(name):
    """TorchRL's GymWrapper plays the environment's own episodes, and resets those that have ended alone."""
    gym = pytest.importorskip("torchrl.envs.libs.gym")  # not on every machine with a GPU
    env = gym.GymWrapper(
        vector_env(name, num_envs=3, seed=2, autoreset_mode="Disabled"), categorical_action_encoding=True
    )
    peer = make(name, num_envs=3, seed=2)
    seen, step = env.reset(), peer.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(2 * min(peer.spec.episode_limit, 40)):
        assert seen.batch_size == (3,)
        assert torch.equal(seen["obs"], step.obs)
        assert torch.equal(seen["observation"], step.state)  # TorchRL's name of what is called state
        actions = peer.spec.action.random((3, peer.spec.n_agents), generator, step.avail)
        stepped = env.step(seen.set("action", actions))["next"]
        step = peer.step(actions)
        assert torch.equal(stepped["reward"][:, 0], step.reward.double())
        assert torch.equal(stepped["terminated"][:, 0], step.terminated)
        assert torch.equal(stepped["truncated"][:, 0], step.truncated)
        seen = stepped
        if step.done.any():
            seen = env.reset(stepped.clone().set("_reset", stepped["done"]))
            step = peer.reset(step.done)
    env.close()


@pytest.mark.parametrize(
    ("name", "options"), [("matrix/msteps-5", {}), ("matrix/continuous", {}), ("battle/3m", {"checked": False})]
)
def test_torchrl_checks_its_specs(name, options):
    """Its random actions know no mask."""
    gym = pytest.importorskip("torchrl.envs.libs.gym", reason="torchrl is not installed")
    utils = pytest.importorskip("torchrl.envs.utils")
    env = gym.GymWrapper(vector_env(name, num_envs=3, autoreset_mode="Disabled", **options))
    utils.check_env_specs(env)
    rollout = env.rollout(70, break_when_any_done=False)
    assert rollout["next", "done"].any()
    env.close()


def test_autoreset_modes():
    for mode in AutoresetMode:
        for given in (mode, mode.value):
            env = vector_env("matrix/msteps-3", autoreset_mode=given)
            assert env.metadata["autoreset_mode"] == env.autoreset_mode == mode
    with pytest.raises(UsageError, match="expects one of 'NextStep', 'SameStep', 'Disabled', got 'never'"):
        vector_env("matrix/msteps-3", autoreset_mode="never")
    env = vector_env("matrix/msteps-3", num_envs=2, autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    env.step(np.array([[0, 0], [0, 1]]))
    observation, reward, terminated, _, _ = env.step(np.array([[0, 0], [9, 9]]))
    assert (reward.tolist(), terminated.tolist()) == ([1, 0], [False, True])
    after, _ = env.reset(options={"reset_mask": np.array([False, True])})
    assert np.array_equal(after["state"][0], observation["state"][0])
    _, _, terminated, _, _ = env.step(np.array([[0, 0], [1, 1]]))
    assert terminated.tolist() == [True, False]


class Single(gymnasium.Env):
    """One environment of a family, for gymnasium's own vector environment."""

    def __init__(self, name, number):
        self.env = make(name, seed=3, first_env=number)
        adapter = vector_env(name)
        self.observation_space, self.action_space = adapter.single_observation_space, adapter.single_action_space

    def reset(self, *, seed=None, options=None):
        return self.seen(self.env.reset())

    def step(self, action):
        step = self.env.step(torch.tensor(action)[None])
        seen, info = self.seen(step)
        return seen, step.reward.double().item(), step.terminated.item(), step.truncated.item(), info

    def seen(self, step):
        values = {"obs": step.obs, "state": step.state, "avail": step.avail.to(torch.int8)}
        infos = {name: column[0].item() for name, column in step.info.items()}
        return {name: value[0].numpy() for name, value in values.items()}, infos


@pytest.mark.parametrize("name", ["matrix/msteps-3", "battle/3m"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_it_says_what_gymnasiums_own_vector_env_says(name, mode):
    ours = vector_env(name, num_envs=3, seed=3, autoreset_mode=mode)
    theirs = gymnasium.vector.SyncVectorEnv([partial(Single, name, k) for k in range(3)], autoreset_mode=mode)
    rng, ended = np.random.default_rng(0), 0
    (seen, infos), (other, other_infos) = ours.reset(), theirs.reset()
    for _ in range(100):
        assert_same(seen, other)
        assert_same(infos, other_infos)
        actions = np.array([[rng.choice(np.flatnonzero(may)) for may in env] for env in seen["avail"]])
        seen, *results, infos = ours.step(actions)
        other, *other_results, other_infos = theirs.step(actions)
        for one, another in zip(results, other_results, strict=True):
            assert one.tolist() == another.tolist()
        ended += int((results[1] | results[2]).sum())
    assert ended > 3


def assert_same(one, other):
    """Dicts of dicts, arrays and arrays of dicts, as gymnasium's infos are."""
    assert set(one) == set(other)
    for key, value in one.items():
        if isinstance(value, dict):
            there = other[f"_{key}"] if f"_{key}" in other else slice(None)
            assert_same({k: v[there] for k, v in value.items()}, {k: v[there] for k, v in other[key].items()})
        elif value.dtype == object:
            assert [x is None for x in value] == [x is None for x in other[key]]
            for a, b in zip(value, other[key], strict=True):
                assert a is b is None or assert_same(a, b) is None
        else:
            np.testing.assert_array_equal(value, other[key], err_msg=key)


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), 2**63 - 1])
def test_seeds_are_the_same_everywhere(seed):
    name, plain = "prey/stag-hunt", int(seed)
    state = make(name, seed=plain).reset().state.numpy()
    batch, single = vector_env(name), parallel_env(name)
    single.reset(seed=seed)
    for other in (
        make(name, seed=seed).reset().state.numpy(),
        vector_env(name, seed=seed).reset()[0]["state"],
        batch.reset(seed=seed)[0]["state"],
        single.state()[None],
    ):
        assert np.array_equal(other, state)


@pytest.mark.parametrize("seed", [-1, 2**63, np.uint64(2**63), 1.0, True, np.bool_(1), "1"])
@pytest.mark.parametrize("name", ["prey/stag-hunt", "battle/3m", "lbf/Foraging-5x5-2p-1f-v3"])
def test_what_is_no_seed_is_refused_everywhere(name, seed):
    text = r"seed must be an integer from 0 to 2\^63 - 1, got"
    for build in (make, vector_env, parallel_env):
        with pytest.raises(UsageError, match=text):
            build(name, seed=seed)
    for build in (vector_env, parallel_env):
        env = build(name)
        with pytest.raises(UsageError, match=text):
            env.reset(seed=seed)
        env.reset()  # it goes on
        env.close()


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
