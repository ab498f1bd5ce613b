from dataclasses import replace

import pytest
import torch

from emix.data import Box, Discrete, EnvSpec, Episodes, Field, Step
from emix.errors import UsageError
from emix.learners.learner import Acted
from emix.playing import RandomActor, Stopwatch, collect
from tests.scripted import ScriptedEnv

# Three environments: one terminates after 2 steps, one after 5, one runs into its time limit after 3.
PLANS = [[(2, False)], [(5, False)], [(3, True)]]


def test_lengths_flags_and_rewards(scripted_env, policy):
    rollout = collect(scripted_env(PLANS), policy, explore=True)
    episodes = rollout.episodes
    assert rollout.lengths.tolist() == [2, 5, 3]
    assert episodes.lengths.tolist() == [2, 5, 3]
    assert episodes.batch_size == torch.Size([3])
    assert episodes.obs.shape == (3, 6, 2, 2)  # the longest episode decides the width
    assert episodes.terminated.nonzero().tolist() == [[0, 1], [1, 4]]
    assert episodes.truncated.nonzero().tolist() == [[2, 2]]
    assert episodes.reward.tolist() == [[1, 2, 0, 0, 0], [11, 12, 13, 14, 15], [21, 22, 23, 0, 0]]
    assert rollout.returns.tolist() == [3, 65, 66]


def test_last_observation_and_its_action_are_kept_and_nothing_beyond(scripted_env, policy):
    episodes = collect(scripted_env(PLANS), policy, explore=True).episodes
    for e, length in enumerate([2, 5, 3]):
        assert episodes.obs[e, : length + 1, 0].tolist() == [[e, t] for t in range(length + 1)]
        assert episodes.state[e, : length + 1, 0].tolist() == list(range(length + 1))
        assert episodes.actions[e, : length + 1, 0].tolist() == [1 + t % 2 for t in range(length + 1)]
        assert episodes.avail[e, : length + 1].all()
        for field in (episodes.obs, episodes.state, episodes.avail, episodes.actions):
            assert not field[e, length + 1 :].any()  # NaN of a finished environment would be truthy
        for field in (episodes.reward, episodes.terminated, episodes.truncated, episodes.valid):
            assert not field[e, length:].any()


class Telling:
    """Records what the tests say, beside the number of its step."""

    record = (
        Field("share", (2,), "float32", "observation"),
        Field("bonus", (), "float64", "transition"),
        Field("option", (2, 1), "int64", "observation", stored="uint8"),
    )

    def initial_memory(self, num_envs: int) -> int:
        return 0

    def act(self, step: Step, memory: int, *, explore: bool) -> Acted:
        num_envs = len(step.obs)
        record = {
            "share": torch.full((num_envs, 2), 1 / (memory + 1)),
            "bonus": torch.full((num_envs,), float(memory), dtype=torch.float64),
            "option": torch.full((num_envs, 2, 1), memory + 1),
        }
        return Acted(torch.ones(num_envs, 2, dtype=torch.int64), memory + 1, record)


def test_what_an_actor_records_is_in_the_episodes(scripted_env):
    record = collect(scripted_env(PLANS), Telling(), explore=True).episodes.record
    assert set(record.keys()) == {"share", "bonus", "option"}
    assert (record["share"].shape, record["share"].dtype) == ((3, 6, 2), torch.float32)
    assert (record["bonus"].shape, record["bonus"].dtype) == ((3, 5), torch.float64)
    assert (record["option"].shape, record["option"].dtype) == ((3, 6, 2, 1), torch.int64)
    for e, length in enumerate([2, 5, 3]):
        assert record["share"][e, : length + 1, 1].tolist() == pytest.approx([1 / (t + 1) for t in range(length + 1)])
        assert record["bonus"][e, :length].tolist() == list(range(length))  # of the step that it was recorded for
        assert record["option"][e, : length + 1, 0, 0].tolist() == [t + 1 for t in range(length + 1)]
        assert not record["share"][e, length + 1 :].any()
        assert not record["bonus"][e, length:].any()
        assert not record["option"][e, length + 1 :].any()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Field("value", (2,), "float32", "observation"), r"value as float32 of shape \[3, 2\], .* got nothing"),
        (Field("share", (3,), "float32", "observation"), r"share as float32 of shape \[3, 3\], .* of shape \[3, 2\]"),
        (Field("bonus", (), "float32", "transition"), r"bonus as float32 of shape \[3\], .* got torch.float64"),
    ],
)
def test_a_record_that_is_not_what_was_declared_is_named(scripted_env, field, message):
    policy = Telling()
    policy.record = (field,)
    with pytest.raises(UsageError, match=rf"Telling.act: the record expects {message}"):
        collect(scripted_env(PLANS), policy, explore=True)


def test_the_random_actor(scripted_env):
    def episodes(seed: int) -> Episodes:
        env = scripted_env(PLANS * 20)
        return collect(env, RandomActor(env.spec, Telling.record, device="cpu", seed=seed), explore=True).episodes

    one, same, other = episodes(0), episodes(0), episodes(1)
    assert torch.equal(one.actions, same.actions)
    assert not torch.equal(one.actions, other.actions)
    real = one.actions[:, :2].flatten()  # of all environments
    assert (torch.bincount(real) / len(real)).tolist() == pytest.approx([1 / 3] * 3, abs=0.1)
    assert not any(one.record[name].any() for name in ("share", "bonus", "option"))
    assert one.record["option"].dtype == torch.int64


def test_the_random_actor_takes_available_actions_and_boxes():
    avail = torch.tensor([[[False, True, False], [False, True, True]]])
    step = Step(torch.zeros(1, 2, 2), torch.zeros(1, 1), avail, *torch.zeros(3, 1))
    actor = RandomActor(EnvSpec("x", 2, Discrete(3), 2, 1, 8), device="cpu", seed=0)
    drawn = torch.cat([actor.act(step, None, explore=False).actions for _ in range(50)])  # [50, n]
    assert drawn[:, 0].unique().tolist() == [1]
    assert drawn[:, 1].unique().tolist() == [1, 2]
    actor = RandomActor(EnvSpec("x", 2, Box(4, -2.0, 3.0), 2, 1, 8), device="cpu", seed=0)
    actions = actor.act(replace(step, avail=None), None, explore=True).actions
    assert (actions.shape, actions.dtype) == ((1, 2, 4), torch.float32)
    assert ((actions >= -2) & (actions <= 3)).all()


def test_info_is_that_of_the_last_step(scripted_env, policy):
    info = collect(scripted_env(PLANS), policy, explore=True).info
    assert info["battle_won"].tolist() == [1, 1, 0]
    assert info["time"].tolist() == [2, 5, 3]


def test_policy_is_asked_once_more_than_the_environment(scripted_env, policy):
    env, watch = scripted_env(PLANS), Stopwatch()
    collect(env, policy, explore=False, stopwatch=watch)
    assert len(env.actions) == 5
    assert policy.explored == [False] * 6
    assert set(watch.seconds) == {"env", "inference"}


@pytest.mark.parametrize(("limit", "played"), [(7, 7), (8, 8), (30, 8)])
def test_a_gpu_is_asked_every_eighth_step(scripted_env, policy, limit, played):
    host = collect(scripted_env(PLANS), policy, explore=True)
    env = scripted_env(PLANS, limit=limit, device=torch.device("cuda"))  # its tensors lie on the CPU all the same
    gpu = collect(env, policy, explore=True)
    assert len(env.actions) == played
    assert torch.equal(gpu.lengths, host.lengths)
    assert torch.equal(gpu.returns, host.returns)
    assert all(torch.equal(gpu.info[name], host.info[name]) for name in host.info)
    for name, want in host.episodes.by_name().items():
        got = gpu.episodes.by_name()[name]
        assert torch.equal(got[:, : want.shape[1]], want), name
        assert not got[:, want.shape[1] :].any(), name  # steps after the end are padding


def test_an_environment_that_does_not_end_is_named(scripted_env, policy):
    with pytest.raises(RuntimeError, match="scripted: an episode did not end within its limit of 4 steps"):
        collect(scripted_env([[(9, False)]], limit=4), policy, explore=True)


class LossyEnv(ScriptedEnv):
    """``lost[e]``: how many of environment e's first episodes its simulator cuts off; every episode has "failed"."""

    lost = (0, 2, 1)

    def reset(self, where: torch.Tensor | None = None) -> Step:
        played = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self.time, self.episode = 0, self.episode + played
        plans = zip(self.plans, self.episode.tolist(), played.tolist(), strict=True)
        self.plan = [plan[(number - 1) % len(plan)] if plays else (0, False) for plan, number, plays in plans]
        return self._step()

    def _step(self) -> Step:
        step = super()._step()
        lost = (self.episode <= torch.tensor(self.lost)).float()
        return replace(step, info=step.info | {"simulator_lost": lost, "failed": torch.ones(self.num_envs)})


def test_an_episode_whose_simulator_was_lost_is_played_anew(policy):
    env = LossyEnv([[(2, False)], [(3, True), (1, True), (5, False)], [(4, True), (3, True)]])
    episodes, lengths, returns, info = collect(env, policy, explore=True)
    assert env.episode.tolist() == [1, 3, 2]
    assert lengths.tolist() == episodes.lengths.tolist() == [2, 5, 3]
    assert returns.tolist() == [3, 65, 66]
    assert info["battle_won"].tolist() == [1, 1, 0]
    assert episodes.terminated.any(1).tolist() == [True, True, False]
    assert "simulator_lost" not in info
    assert info["failed"].tolist() == [1, 1, 1]  # what an environment says of itself is its own
