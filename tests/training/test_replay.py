from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emix import _host
from emix.envs.core import EnvSpec
from emix.errors import UsageError
from emix.learners.episodes import Episodes
from emix.training import Replay, storage

FIELDS = ("obs", "state", "avail", "actions", "reward", "terminated", "truncated", "valid", "probability")

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
        probability=(value * real)[..., None].expand(b, t + 1, 2).float(),
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
    held = {}  # every episode of some samples, by its number
    while len(held) < len(replay):
        batch = replay.sample(len(replay))
        held |= {int(episode.reward[0]) - 1: episode for episode in batch}
    assert sorted(held) == list(range(replay.oldest, replay.added))
    for number, stored in held.items():
        expected = episodes([number], [lengths[number]])
        for name in FIELDS:
            want, got = getattr(expected, name)[0], getattr(stored, name)
            assert got.dtype == want.dtype
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


@pytest.mark.parametrize("count", [3, 10, 14, 27])  # the ring is not full, is full, and went round
def test_the_newest_are_the_newest(count):
    replay = filled(10, [3] * count, per_add=1)
    held = min(4, count)
    for batch, newest in ((held, 4), (2, 4), (min(count, 10), 1000)):
        seen = set()
        for _ in range(40):
            numbers = (replay.sample(batch, newest=newest).reward[:, 0].long() - 1).tolist()
            assert len(set(numbers)) == batch
            seen |= set(numbers)
        assert seen == set(range(count - min(newest, count, 10), count))
    with pytest.raises(ValueError, match=f"at most the {held} episodes held, got 5"):
        replay.sample(5, newest=4)


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
    check_contents(copy, lengths)
    copy.generator.set_state(replay.generator.get_state())
    for _ in range(5):
        a, b = replay.sample(3), copy.sample(3)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_export_has_no_padding():
    replay = filled(5, [6, 1, 2], per_add=3)
    exported = replay.export(0, 3)
    assert exported["lengths"].tolist() == [6, 1, 2]
    assert exported["obs"].shape == (7 + 2 + 3, 2, 4)
    assert exported["actions"].dtype == torch.uint8


def test_an_episode_takes_as_many_steps_as_it_is_long():
    lengths = [1 + (5 * k) % 6 for k in range(60)]
    replay = filled(10, lengths, per_add=2)
    held = sum(length + 1 for length in lengths[-10:])
    assert len(replay.free) - replay.num_free == held
    used = replay.table[replay.table > 0]
    assert len(used.unique()) == held  # no step belongs to two episodes
    written = replay.steps["obs"].flatten(1).any(1)
    most = max(sum(length + 1 for length in lengths[k : k + 12]) for k in range(48))
    assert int(written.sum()) <= most  # what an episode leaves is used again before new memory is taken


def test_samples_are_padded_to_a_multiple():
    lengths = [2, 3, 1, 6, 2, 3, 1, 2]
    exact, padded = (Replay(8, SPEC, device="cpu", seed=0, multiple=multiple) for multiple in (1, 4))
    for replay in (exact, padded):
        replay.add(episodes(list(range(8)), lengths), torch.tensor(lengths))
    seen = set()
    for _ in range(20):
        short, long = exact.sample(2), padded.sample(2)
        width = short.reward.shape[1]
        assert long.reward.shape[1] == (4 if width <= 4 else 6)  # not beyond the limit
        for name in FIELDS:
            want, got = getattr(short, name), getattr(long, name)
            assert torch.equal(got[:, : want.shape[1]], want), name
            assert not got[:, want.shape[1] :].any(), name
        seen.add(width)
    assert len(seen) > 2


@pytest.mark.parametrize(("n_actions", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_actions_are_stored_in_few_bytes(n_actions, dtype):
    replay = Replay(2, replace(SPEC, n_actions=n_actions), device="cpu", seed=0)
    one = episodes([0], [2])
    one.actions = torch.full_like(one.actions, n_actions - 1)
    one.avail = torch.ones(*one.actions.shape, n_actions, dtype=torch.bool)
    replay.add(one, torch.tensor([2]))
    assert replay.steps["actions"].dtype == dtype
    assert torch.equal(replay.sample(1).actions, one.actions)


def test_memory_is_not_taken_before_it_is_used():
    """Not even where the allocator keeps what was freed, as it does once a training has begun in this process."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    spec = EnvSpec("large", n_agents=8, n_actions=14, obs_dim=80, state_dim=168, episode_limit=120)
    _host.keep_freed_memory()
    torch.ones(1 << 30, dtype=torch.uint8)  # written, and freed
    before = resident()
    replay = Replay(1500, spec, device="cpu", seed=0)
    assert replay.bytes > 500e6
    assert resident() - before < 20e6


def test_a_replay_that_cannot_fit_is_refused():
    with pytest.raises(UsageError, match=r"buffer_episodes=10000000000000 episodes of fake need .* GiB, but cpu has"):
        Replay(10**13, SPEC, device="cpu", seed=0)


def test_what_does_not_fit_into_memory_lies_in_a_file(monkeypatch, tmp_path):
    plain = filled(5, [6, 1, 6, 5, 2, 1, 4])
    monkeypatch.setattr(storage, "memory_of", lambda device: plain.bytes)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    replay = filled(5, [6, 1, 6, 5, 2, 1, 4])
    assert "(deleted)" in Path("/proc/self/maps").read_text()
    assert not list(tmp_path.iterdir())
    for _ in range(5):
        a, b = plain.sample(3), replay.sample(3)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)
    check_contents(replay, [6, 1, 6, 5, 2, 1, 4])
