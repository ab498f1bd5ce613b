from typing import NamedTuple

import pytest
import torch

from emix.envs.core import Step
from emix.training import collect
from emix.training.stopwatch import Stopwatch

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


def test_probabilities_come_from_a_memory_that_has_them(scripted_env, policy):
    assert not collect(scripted_env(PLANS), policy, explore=True).episodes.probability.any()

    class Memory(NamedTuple):
        time: int
        probability: torch.Tensor

    class Telling:
        def initial_memory(self, num_envs: int) -> Memory:
            return Memory(0, torch.ones(num_envs, 2))

        def act(self, step: Step, memory: Memory, *, explore: bool) -> tuple[torch.Tensor, Memory]:
            time = memory.time + 1
            return torch.ones(step.avail.shape[:2], dtype=torch.int64), Memory(time, torch.full((3, 2), 1 / time))

    episodes = collect(scripted_env(PLANS), Telling(), explore=True).episodes
    for e, length in enumerate([2, 5, 3]):
        assert episodes.probability[e, : length + 1, 1].tolist() == pytest.approx(
            [1 / (t + 1) for t in range(length + 1)]
        )
        assert not episodes.probability[e, length + 1 :].any()


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
    for name, want in host.episodes.items():
        got = gpu.episodes.get(name)
        assert torch.equal(got[:, : want.shape[1]], want), name
        assert not got[:, want.shape[1] :].any(), name  # steps after the end are padding


def test_an_environment_that_does_not_end_is_named(scripted_env, policy):
    with pytest.raises(RuntimeError, match="scripted: an episode did not end within its limit of 4 steps"):
        collect(scripted_env([[(9, False)]], limit=4), policy, explore=True)
