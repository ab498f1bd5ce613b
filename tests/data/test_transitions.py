"""The ring of single transitions."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from emix.data import Box, EnvSpec, Episodes, TransitionReplay, storage
from emix.errors import UsageError
from tests.data.conftest import RECORD, SPECS, assert_equal, numbered


def filled(capacity, lengths, *, spec=SPECS["discrete"], per_add=2, seed=0):
    """A replay to which the transitions of episodes 0, 1, 2, ... of these lengths were added."""
    replay = TransitionReplay(capacity, spec, RECORD, device="cpu", seed=seed)
    for first in range(0, len(lengths), per_add):
        part = lengths[first : first + per_add]
        replay.add(numbered(spec, range(first, first + len(part)), part), torch.tensor(part))
    return replay


def all_of(lengths):
    """(episode, step, whether it is the last one) of every transition, in the order in which they come."""
    return [(k, t, t == length - 1) for k, length in enumerate(lengths) for t in range(length)]


def check_batch(batch, spec, lengths):
    """Every transition is one of ``numbered``'s: o_t, a_t, r_t, the flags, and the o_{t+1} that belongs to it.

    Returns (episode, step, whether it is the last one) of each.
    """
    number = batch.reward[:, 0].long()  # [B]
    episode, step = number // 100 - 1, number % 100
    whole = numbered(spec, range(len(lengths)), lengths).by_name()
    for name, value in batch.by_name().items():
        entries = step[:, None] + torch.arange(value.shape[1])  # [B, 1 or 2]
        assert torch.equal(value, whole[name][episode[:, None], entries]), name
    assert batch.valid.all()
    assert batch.valid.shape == (len(number), 1)
    last = (batch.terminated | batch.truncated)[:, 0]
    return list(zip(episode.tolist(), step.tolist(), last.tolist(), strict=True))


LENGTHS = [6, 1, 6, 5, 2, 1, 4, 3, 6, 1, 1, 2, 3]


@pytest.mark.parametrize("per_add", [1, 2, 5])
@pytest.mark.parametrize("capacity", [30, 31, 64])
def test_the_ring_holds_the_latest_transitions(capacity, per_add, spec):
    for count in range(per_add, len(LENGTHS) + 1, per_add):
        lengths = LENGTHS[:count]
        replay = filled(capacity, lengths, spec=spec, per_add=per_add)
        expected = all_of(lengths)[-capacity:]
        assert (replay.added, len(replay)) == (sum(lengths), len(expected))
        assert set(check_batch(replay.sample(500), spec, lengths)) == set(expected)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_episodes_of_one_step_fill_the_ring_most(capacity, spec):
    for count in (1, capacity, capacity + 1, 5 * capacity + 2):
        replay = filled(capacity, [1] * count, spec=spec, per_add=1)
        assert set(check_batch(replay.sample(200), spec, [1] * count)) == set(all_of([1] * count)[-capacity:])


def test_pairs_stay_together_whatever_comes(spec):
    """Random lengths, many times round the ring."""
    generator = torch.Generator().manual_seed(1)
    replay, numbers, lengths = TransitionReplay(37, spec, RECORD, device="cpu", seed=0), 0, []
    for _ in range(60):
        new = torch.randint(1, 7, (int(torch.randint(1, 6, (), generator=generator)),), generator=generator)
        replay.add(numbered(spec, range(numbers, numbers + len(new)), new.tolist()), new)
        numbers, lengths = numbers + len(new), lengths + new.tolist()
        assert set(check_batch(replay.sample(64), spec, lengths)) <= set(all_of(lengths)[-37:])
    assert replay.added > 10 * replay.rows / 2


def test_sampling_is_uniform_and_with_replacement():
    replay = filled(20, [4] * 9)
    draws = 30_000
    batch = replay.sample(draws)
    counts = torch.bincount(4 * (batch.reward[:, 0].long() // 100 - 1) + batch.reward[:, 0].long() % 100, minlength=36)
    assert counts[:16].sum() == 0
    expected = draws / 20
    assert float(((counts[16:] - expected) ** 2 / expected).sum()) < 43.8  # chi-squared, 19 degrees, p = 0.001


def test_sampling_has_its_own_generator():
    a, b, c = (filled(20, [3] * 10, seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    first = [a.sample(4).reward for _ in range(5)]
    torch.manual_seed(99)
    assert all(torch.equal(x, b.sample(4).reward) for x in first)
    assert not all(torch.equal(x, c.sample(4).reward) for x in first)


@pytest.mark.parametrize("count", [1, 3, 8, 30])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_export_and_restore(count, parts, spec):
    """In parts of any size, also ones that end within an episode; and the copy goes on as the original does."""
    lengths = [1 + (7 * k) % 6 for k in range(count)]
    replay, copy = filled(17, lengths, spec=spec), TransitionReplay(17, spec, RECORD, device="cpu", seed=7)
    bounds = sorted({replay.oldest + k * len(replay) // parts for k in range(parts + 1)})
    for first, last in pairwise(bounds):
        copy.restore(first, replay.export(first, last))
    copy.generator.set_state(replay.generator.get_state())
    for k in range(12):
        assert (copy.added, len(copy)) == (replay.added, len(replay))
        assert_equal(replay.sample(40), copy.sample(40))
        for each in (replay, copy):
            each.add(numbered(spec, [count + k], [1 + k % 6]), torch.tensor([1 + k % 6]))


def test_one_by_one_is_the_worst_way_to_restore():
    """Each part brings an entry more than transitions: the ring has room for that."""
    spec = SPECS["discrete"]
    replay, copy = filled(17, [6] * 9), TransitionReplay(17, spec, RECORD, device="cpu", seed=0)
    for number in range(replay.oldest, replay.added):
        copy.restore(number, replay.export(number, number + 1))
    assert set(check_batch(copy.sample(300), spec, [6] * 9)) == set(all_of([6] * 9)[-17:])
    copy.add(numbered(spec, [9], [5]), torch.tensor([5]))
    assert set(check_batch(copy.sample(300), spec, [6] * 9 + [5])) == set(all_of([6] * 9 + [5])[-17:])


def test_export_has_each_entry_once():
    exported = filled(30, [6, 1, 2], per_add=3).export(0, 9)
    assert exported["offsets"].tolist() == [0, 1, 2, 3, 4, 5, 7, 9, 10]
    assert exported["obs"].shape == (7 + 2 + 3, 2, 4)
    assert exported["actions"].dtype == torch.uint8


def test_a_float_action_comes_back_as_it_was():
    spec = SPECS["box"]
    one = numbered(spec, [0], [2], record=())
    actions = torch.tensor([0.7, -0.7, 1e-30]).expand(1, 3, 2, 3).clone()
    replay = TransitionReplay(2, spec, device="cpu", seed=0)
    replay.add(type(one).of(one.by_name() | {"actions": actions}, one.valid), torch.tensor([2]))
    assert torch.equal(replay.sample(5).actions, actions[:, :2].expand(5, 2, 2, 3))


def test_errors():
    spec = SPECS["discrete"]
    replay = TransitionReplay(5, spec, RECORD, device="cpu", seed=0)
    with pytest.raises(ValueError, match="expects a replay that holds a transition, got an empty one"):
        replay.sample(1)
    with pytest.raises(ValueError, match="at most 5 transitions at a time, got 6"):
        replay.add(numbered(spec, [0, 1], [3, 3]), torch.tensor([3, 3]))
    assert len(replay) == 0
    with pytest.raises(UsageError, match=r"buffer_size=10000000000000 transitions of fake need .* GiB, but cpu has"):
        TransitionReplay(10**13, spec, device="cpu", seed=0)


def test_what_does_not_fit_into_memory_lies_in_a_file(monkeypatch, tmp_path):
    plain = filled(17, [6] * 9)
    monkeypatch.setattr(storage, "memory_of", lambda device: plain.bytes)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    replay = filled(17, [6] * 9)
    assert not list(tmp_path.iterdir())
    assert_equal(plain.sample(30), replay.sample(30))


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_million_transitions():
    """They take no memory before they are there, and neither adding nor sampling depends on how many there could be."""
    spec = EnvSpec("large", n_agents=6, action=Box(1), obs_dim=20, state_dim=60, episode_limit=1000)
    before, start = resident(), time.perf_counter()
    replay = TransitionReplay(1_000_000, spec, device="cpu", seed=0)
    assert replay.bytes > 1.4e9
    assert resident() - before < 40e6
    valid = torch.ones(1, 1000, dtype=torch.bool)
    values = {
        "obs": torch.rand(1, 1001, 6, 20),
        "state": torch.rand(1, 1001, 60),
        "actions": torch.rand(1, 1001, 6, 1),
        "reward": torch.rand(1, 1000),
        "terminated": ~valid,
        "truncated": ~valid,
    }
    replay.add(Episodes.of(values, valid), torch.tensor([1000]))
    for _ in range(100):
        batch = replay.sample(100)
    assert batch.obs.shape == (100, 2, 6, 20)
    assert time.perf_counter() - start < 5  # 0.1 s on an idle machine
    assert resident() - before < 60e6


@pytest.mark.parametrize("value", [3, 255])
def test_actions_that_are_none_are_not_restored(value):
    """A file that somebody has changed, and the checksum with it."""
    replay, copy = filled(5, [2, 3, 1]), TransitionReplay(5, SPECS["discrete"], RECORD, device="cpu", seed=7)
    exported = replay.export(replay.oldest, replay.added)
    exported["actions"][0] = value
    with pytest.raises(ValueError, match=rf"actions expects numbers from 0 to 2, got .* to {value}"):
        copy.restore(replay.oldest, exported)
    assert copy.added == 0
