from pathlib import Path

import pytest
import torch

from emix.envs.core import EnvSpec
from emix.errors import UsageError
from emix.learners.episodes import Episodes
from emix.training import Replay
from emix.training.replay import FIELDS

SPEC = EnvSpec("fake", n_agents=2, n_actions=3, obs_dim=4, state_dim=5, episode_limit=6)


def episodes(numbers: list[int], lengths: list[int]) -> Episodes:
    """Episode k is full of k + 1, up to its length."""
    b, t = len(numbers), max(lengths)
    valid = torch.arange(t) < torch.tensor(lengths)[:, None]  # [B, T]
    real = torch.arange(t + 1) <= torch.tensor(lengths)[:, None]  # [B, T+1]
    value = torch.tensor(numbers)[:, None] + 1  # [B, 1]
    return Episodes(
        obs=(value * real)[..., None, None].expand(b, t + 1, 2, 4).float(),
        state=(value * real)[..., None].expand(b, t + 1, 5).float(),
        avail=real[..., None, None].expand(b, t + 1, 2, 3),
        actions=(value * real)[..., None].expand(b, t + 1, 2),
        reward=(value * valid).float(),
        terminated=valid,
        truncated=torch.zeros_like(valid),
        valid=valid,
        batch_size=[b],
    )


def filled(capacity: int, lengths: list[int], *, per_add: int = 2, seed: int = 0) -> Replay:
    """A replay to which episodes 0, 1, 2, ... of these lengths were added."""
    replay = Replay(capacity, SPEC, device="cpu", seed=seed)
    for first in range(0, len(lengths), per_add):
        part = lengths[first : first + per_add]
        replay.add(episodes(list(range(first, first + len(part))), part), torch.tensor(part))
    return replay


def check_contents(replay: Replay, lengths: list[int]) -> None:
    """Each of the latest episodes is whole, and nothing is left of the ones before."""
    assert replay.added == len(lengths)
    for number in range(replay.oldest, replay.added):
        expected = episodes([number], [lengths[number]])
        stored = replay.storage[number % replay.capacity]
        for name in FIELDS:
            want, got = getattr(expected, name)[0], getattr(stored, name)
            assert torch.equal(got[: len(want)], want), name
            assert not got[len(want) :].any(), name


@pytest.mark.parametrize("per_add", [1, 2, 3, 5])
def test_ring_keeps_the_latest_episodes(per_add):
    lengths = [6, 1, 6, 5, 2, 1, 4, 3, 6, 1, 1, 2, 3]  # long ones are replaced by short ones, and the other way round
    for count in range(per_add, len(lengths) + 1):
        replay = filled(5, lengths[:count], per_add=per_add)
        assert len(replay) == min(count, 5)
        check_contents(replay, lengths[:count])


def test_sample_is_trimmed_to_its_longest_episode():
    replay = filled(8, [2, 3, 1, 6, 2, 3, 1, 2])
    for _ in range(20):
        batch = replay.sample(2)
        longest = int(batch.lengths.max())
        assert batch.obs.shape == (2, longest + 1, 2, 4)
        assert batch.reward.shape == (2, longest)
        assert batch.avail.dtype == torch.bool
        assert batch.actions.dtype == torch.int64


def test_sampling_is_uniform_and_without_replacement():
    replay = filled(10, [3] * 14)  # holds numbers 4 to 13
    counts = torch.zeros(15)
    draws = 3000
    for _ in range(draws):
        numbers = replay.sample(4).reward[:, 0].long() - 1
        assert len(set(numbers.tolist())) == 4
        counts[numbers] += 1
    assert counts[:4].sum() == 0
    expected = draws * 4 / 10
    deviation = (draws * 0.4 * 0.6) ** 0.5
    assert ((counts[4:14] - expected).abs() < 4.5 * deviation).all()


def test_sampling_has_its_own_generator():
    a, b, c = (filled(10, [3] * 10, seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    first = [a.sample(4).reward for _ in range(5)]
    torch.manual_seed(99)
    assert all(torch.equal(x, b.sample(4).reward) for x in first)
    assert not all(torch.equal(x, c.sample(4).reward) for x in first)


def test_a_batch_larger_than_the_contents_is_refused():
    with pytest.raises(ValueError, match="at most the 3 episodes held, got 4"):
        filled(10, [1, 2, 3], per_add=3).sample(4)


@pytest.mark.parametrize("count", [3, 5, 11, 17])
def test_export_and_restore(count):
    lengths = [1 + (7 * k) % 6 for k in range(count)]
    replay = filled(5, lengths, per_add=1)
    copy = Replay(5, SPEC, device="cpu", seed=7)
    middle = replay.oldest + len(replay) // 2
    for first, last in ((replay.oldest, middle), (middle, replay.added)):
        copy.restore(first, replay.export(first, last))
    copy.generator.set_state(replay.generator.get_state())
    check_contents(copy, lengths)
    for _ in range(5):
        a, b = replay.sample(3), copy.sample(3)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_memory_is_not_taken_before_it_is_used():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    spec = EnvSpec("large", n_agents=8, n_actions=14, obs_dim=80, state_dim=168, episode_limit=120)
    before = resident()
    replay = Replay(1500, spec, device="cpu", seed=0)
    assert replay.bytes > 500e6
    assert resident() - before < 20e6


def test_a_replay_that_cannot_fit_is_refused():
    with pytest.raises(UsageError, match=r"buffer_episodes=10000000000000 episodes of fake need .* GiB, but cpu has"):
        Replay(10**13, SPEC, device="cpu", seed=0)
