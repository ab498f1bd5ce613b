"""The ring of episodes: what it holds, how it samples and takes, and what it stores them in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emix import _host
from emix.data import Box, Discrete, EnvSpec, Field, Replay, storage
from emix.errors import UsageError
from tests.data.conftest import RECORD, SPECS, assert_equal, number_of, numbered


def filled(capacity, lengths, *, spec=SPECS["discrete"], per_add=2, seed=0, multiple=1):
    """A replay to which episodes 0, 1, 2, ... of these lengths were added."""
    replay = Replay(capacity, spec, RECORD, device="cpu", seed=seed, multiple=multiple)
    for first in range(0, len(lengths), per_add):
        part = lengths[first : first + per_add]
        replay.add(numbered(spec, range(first, first + len(part)), part), torch.tensor(part))
    return replay


def check_contents(replay, spec, lengths):
    """Each of the latest episodes is whole, and nothing is left of the ones before."""
    assert replay.added == len(lengths)
    everything = replay.sample(len(replay))
    numbers = number_of(everything)
    assert sorted(numbers) == list(range(replay.oldest, replay.added))
    assert_equal(everything, numbered(spec, numbers, [lengths[number] for number in numbers]))


@pytest.mark.parametrize("per_add", [1, 2, 3, 5])
def test_ring_keeps_the_latest_episodes(per_add, spec):
    lengths = [6, 1, 6, 5, 2, 1, 4, 3, 6, 1, 1, 2, 3]  # long ones are replaced by short ones, and the other way round
    for count in range(per_add, len(lengths) + 1):
        replay = filled(5, lengths[:count], spec=spec, per_add=per_add)
        assert len(replay) == min(count, 5)
        check_contents(replay, spec, lengths[:count])


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
        numbers = number_of(replay.sample(4))
        assert len(set(numbers)) == 4
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
            numbers = number_of(replay.sample(batch, newest=newest))
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
def test_export_and_restore(count, spec):
    lengths = [1 + (7 * k) % 6 for k in range(count)]
    replay = filled(5, lengths, spec=spec, per_add=1)
    copy = Replay(5, spec, RECORD, device="cpu", seed=7)
    middle = replay.oldest + len(replay) // 2
    for first, last in ((replay.oldest, middle), (middle, replay.added)):
        copy.restore(first, replay.export(first, last))
    check_contents(copy, spec, lengths)
    copy.generator.set_state(replay.generator.get_state())
    for _ in range(5):
        assert_equal(replay.sample(3), copy.sample(3))


@pytest.mark.parametrize("capacity", [6, 7, 100])
def test_take_gives_each_fresh_episode_once_and_in_order(capacity):
    """Also across a checkpoint: what was taken is a number."""
    spec, lengths = SPECS["discrete"], [1 + (5 * k) % 6 for k in range(24)]
    replay, seen = Replay(capacity, spec, RECORD, device="cpu", seed=0), []
    for first in range(0, 24, 4):
        replay.add(
            numbered(spec, range(first, first + 4), lengths[first : first + 4]), torch.tensor(lengths[first:][:4])
        )
        replay.sample(2)  # sampling takes nothing
        while replay.fresh >= 3 or (first == 20 and replay.fresh):
            count = min(3, replay.fresh)
            batch = replay.take(count)
            numbers = number_of(batch)
            assert_equal(batch, numbered(spec, numbers, [lengths[number] for number in numbers]))
            seen += numbers
        copy = Replay(capacity, spec, RECORD, device="cpu", seed=0)
        copy.restore(replay.oldest, replay.export(replay.oldest, replay.added))
        copy.taken = replay.taken
        assert copy.fresh == replay.fresh
        replay = copy
    assert seen == list(range(24))


def test_episodes_that_were_overwritten_are_passed_over():
    replay = filled(4, [3] * 10)
    assert replay.fresh == 4
    with pytest.raises(ValueError, match="count expects at most the 4 fresh episodes, got 5"):
        replay.take(5)
    assert number_of(replay.take(3)) == [6, 7, 8]
    assert replay.fresh == 1


def test_more_episodes_than_it_holds_are_refused():
    replay = filled(4, [3] * 3)
    with pytest.raises(ValueError, match="add expects at most 4 episodes at a time, got 5"):
        replay.add(numbered(SPECS["discrete"], range(5), [3] * 5), torch.tensor([3] * 5))
    assert len(replay) == 3


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
    written = replay.steps.tensors["obs"].flatten(1).any(1)
    most = max(sum(length + 1 for length in lengths[k : k + 12]) for k in range(48))
    assert int(written.sum()) <= most  # what an episode leaves is used again before new memory is taken


def test_samples_are_padded_to_a_multiple(spec):
    lengths = [2, 3, 1, 6, 2, 3, 1, 2]
    exact, padded = (filled(8, lengths, spec=spec, multiple=multiple) for multiple in (1, 4))
    seen = set()
    for _ in range(20):
        short, long = exact.sample(2), padded.sample(2)
        width = short.reward.shape[1]
        assert long.reward.shape[1] == (4 if width <= 4 else 6)  # not beyond the limit
        assert_equal(long, short.padded(long.reward.shape[1]))
        seen.add(width)
    assert len(seen) > 2


def full_of(spec, actions):
    """One episode of two steps with these actions in each."""
    one = numbered(spec, [0], [2], record=())
    values = one.by_name() | {"actions": actions.expand(1, 3, *actions.shape).clone()}
    return type(one).of(values, one.valid)


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (300, torch.int16), (1 << 15, torch.int16), (40_000, torch.int32)],
)
def test_large_sets_of_actions_lose_nothing(n, dtype):
    spec = replace(SPECS["discrete"], action=Discrete(n))
    replay = Replay(2, spec, device="cpu", seed=0)
    for actions in (torch.tensor([n - 1, n - 2]), torch.tensor([0, n // 2])):
        replay.add(full_of(spec, actions), torch.tensor([2]))
        assert replay.steps.tensors["actions"].dtype == dtype
        restored = Replay(2, spec, device="cpu", seed=0)
        restored.restore(replay.oldest, replay.export(replay.oldest, replay.added))
        for each in (replay, restored):
            batch = each.sample(1, newest=1)
            assert batch.actions.dtype == torch.int64
            assert batch.actions.tolist() == [[actions.tolist()] * 3]


def test_a_float_action_comes_back_as_it_was():
    spec = SPECS["box"]
    actions = torch.tensor([[0.7, -0.7, 1e-30], [2.0, -2.0, 1 / 3]])  # [n, D]
    replay = Replay(2, spec, device="cpu", seed=0)
    replay.add(full_of(spec, actions), torch.tensor([2]))
    restored = Replay(2, spec, device="cpu", seed=0)
    restored.restore(0, replay.export(0, 1))
    for batch in (replay.sample(1), restored.sample(1), replay.take(1)):
        assert batch.avail is None
        assert batch.actions.dtype == torch.float32
        assert torch.equal(batch.actions, actions.expand(1, 3, 2, 3))


def test_a_record_is_stored_as_it_says():
    field = Field("choice", (2, 3), "int64", "transition", stored="uint8")
    spec = SPECS["box"]
    one = numbered(spec, [0], [4], record=())
    choice = torch.arange(24).view(1, 4, 2, 3) * 10
    replay = Replay(1, spec, [field], device="cpu", seed=0)
    replay.add(type(one).of(one.by_name() | {"choice": choice}, one.valid), torch.tensor([4]))
    assert replay.steps.tensors["choice"].dtype == torch.uint8
    assert torch.equal(replay.sample(1).record["choice"], choice)


@pytest.mark.parametrize("action", [Discrete(14), Box(3)])
def test_memory_is_not_taken_before_it_is_used(action):
    """Not even where the allocator keeps what was freed, as it does once a training has begun in this process."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    spec = EnvSpec("large", n_agents=8, action=action, obs_dim=80, state_dim=168, episode_limit=120)
    _host.keep_freed_memory()
    torch.ones(1 << 30, dtype=torch.uint8)  # written, and freed
    before = resident()
    replay = Replay(1500, spec, device="cpu", seed=0)
    assert replay.bytes > 500e6
    assert resident() - before < 20e6


def test_a_replay_that_cannot_fit_is_refused():
    with pytest.raises(UsageError, match=r"buffer_size=10000000000000 episodes of fake need .* GiB, but cpu has"):
        Replay(10**13, SPECS["discrete"], device="cpu", seed=0)


def test_what_does_not_fit_into_memory_lies_in_a_file(monkeypatch, tmp_path):
    plain = filled(5, [6, 1, 6, 5, 2, 1, 4])
    monkeypatch.setattr(storage, "memory_of", lambda device: plain.bytes)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    replay = filled(5, [6, 1, 6, 5, 2, 1, 4])
    assert "(deleted)" in Path("/proc/self/maps").read_text()
    assert not list(tmp_path.iterdir())
    for _ in range(5):
        assert_equal(plain.sample(3), replay.sample(3))
    check_contents(replay, SPECS["discrete"], [6, 1, 6, 5, 2, 1, 4])


@pytest.mark.parametrize(
    ("name", "value"), [("actions", 255), ("actions", 3), ("lengths", 0), ("lengths", -1), ("lengths", 7)]
)
def test_what_no_replay_exports_is_refused_and_the_replay_stays(name, value):
    """A file that somebody has changed, and the checksum with it."""
    replay = filled(5, [2, 3, 1])
    exported = replay.export(0, 3)
    exported[name][1] = value
    copy = Replay(5, SPECS["discrete"], RECORD, device="cpu", seed=7)
    with pytest.raises(ValueError, match=f"{name} expects .*, got .*{value}"):
        copy.restore(0, exported)
    assert (copy.added, len(copy), copy.num_free) == (0, 0, len(copy.free))


def test_more_steps_than_the_table_can_name(monkeypatch):
    monkeypatch.setattr("emix.data.replay._MOST_STEPS", 100)
    with pytest.raises(UsageError, match=r"buffer_size=50 episodes of fake are .* steps .*, expected at most 100"):
        Replay(50, SPECS["discrete"], device="cpu", seed=0)
