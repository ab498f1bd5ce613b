"""The batch of episodes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emix.data import Box, Episodes, fields
from emix.data.episodes import _parts, joined
from tests.data.conftest import RECORD, assert_equal, numbered

LENGTHS = [1, 4, 6, 3]


def test_lengths_count_the_valid_steps(spec):
    assert numbered(spec, range(4), LENGTHS).lengths.tolist() == LENGTHS


def test_every_field_of_the_table_is_there(spec):
    episodes = numbered(spec, range(4), LENGTHS)
    table = {field.name: field for field in fields(spec, RECORD)}
    assert episodes.by_name().keys() == table.keys()
    for name, value in episodes.by_name().items():
        entries = 7 if table[name].at == "observation" else 6
        assert (value.shape, value.dtype) == ((4, entries, *table[name].shape), getattr(torch, table[name].dtype)), name
    assert (episodes.avail is None) == isinstance(spec.action, Box)
    assert episodes.batch_size == torch.Size([4])
    assert set(episodes.record.keys()) == {"probability", "value"}
    assert_equal(Episodes.of(episodes.by_name(), episodes.valid), episodes)


def test_trim_keeps_one_more_observation_than_steps(spec):
    episodes = numbered(spec, range(4), LENGTHS)
    short = episodes[:2].trim(4)
    assert short.batch_size == torch.Size([2])
    for field in fields(spec, RECORD):
        name, entries = field.name, 5 if field.at == "observation" else 4
        assert torch.equal(short.by_name()[name], episodes.by_name()[name][:2, :entries]), name
    assert torch.equal(short.valid, episodes.valid[:2, :4])
    assert short.obs.untyped_storage().data_ptr() == episodes.obs.untyped_storage().data_ptr()  # views


@pytest.mark.parametrize(("cost", "widths"), [(0, [1, 3, 4, 6]), (4, [3, 6]), (1e9, [6])])
def test_parts_by_length_hold_every_episode_once(spec, monkeypatch, cost, widths):
    """A part costs as much as so many steps of an episode."""
    monkeypatch.setattr("emix.data.episodes._OBSERVATIONS_OF_A_PART", cost * spec.n_agents)
    episodes = numbered(spec, range(4), LENGTHS).padded(9)
    parts = episodes.by_length()
    assert [part.valid.shape[1] for part in parts] == widths
    found = {name: torch.cat([part.padded(9).by_name()[name] for part in parts]) for name in episodes.by_name()}
    order = torch.tensor([0, 3, 1, 2]) if len(parts) > 1 else torch.arange(4)
    assert_equal(Episodes.of(found, torch.cat([part.padded(9).valid for part in parts])), episodes[order])


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=7), cost=st.floats(0, 60))
def test_no_other_parts_cost_less(lengths, cost):
    lengths.sort()
    parts = _parts(lengths, cost)
    assert [first for first, _, _ in parts] == [0, *(end for _, end, _ in parts[:-1])]
    assert parts[-1][1] == len(lengths)
    assert all(steps == max(1, lengths[end - 1]) for _, end, steps in parts)

    def spent(cuts):
        edges = itertools.pairwise([0, *cuts, len(lengths)])
        return sum((end - first) * (lengths[end - 1] + 1) + cost for first, end in edges)

    inside = range(1, len(lengths))
    every = [cuts for size in range(len(lengths)) for cuts in itertools.combinations(inside, size)]
    assert spent([end for _, end, _ in parts[:-1]]) == pytest.approx(min(map(spent, every)))


def test_padded_adds_zeros(spec):
    episodes = numbered(spec, range(4), LENGTHS)
    longer = episodes.padded(9)
    assert longer.valid.shape == (4, 9)
    assert longer.obs.shape[:2] == (4, 10)
    assert_equal(longer.trim(6), episodes)
    for name, value in longer.by_name().items():
        assert not value[:, episodes.by_name()[name].shape[1] :].any(), name
    assert episodes.padded(6) is episodes


def test_indexing_takes_whole_episodes(spec):
    episodes = numbered(spec, range(4), LENGTHS)
    chosen = episodes[torch.tensor([3, 1, 3])]
    assert chosen.lengths.tolist() == [3, 4, 3]
    for name, value in chosen.by_name().items():
        assert torch.equal(value, episodes.by_name()[name][[3, 1, 3]]), name


def test_joined_pads_the_shorter_one(spec):
    first, second = numbered(spec, [0, 1], [2, 3]), numbered(spec, [2], [6])
    for one, other, numbers, lengths in ((first, second, [0, 1, 2], [2, 3, 6]), (second, first, [2, 0, 1], [6, 2, 3])):
        assert_equal(joined(one, other), numbered(spec, numbers, lengths))


def test_entries_are_the_real_ones_back_to_back(spec):
    episodes = numbered(spec, range(4), LENGTHS)
    entries = episodes.entries(torch.tensor(LENGTHS))
    numbers = [100 * (k + 1) + t for k, length in enumerate(LENGTHS) for t in range(length + 1)]
    assert entries["obs"][:, 0, 0].tolist() == numbers
    assert entries["probability"][:, 1].tolist() == numbers
    ends = {100 * (k + 1) + length for k, length in enumerate(LENGTHS)}
    assert entries["reward"].tolist() == [0 if number in ends else number for number in numbers]
    assert all(len(value) == len(numbers) for value in entries.values())
