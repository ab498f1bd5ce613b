"""The batch of episodes."""

import torch

from emix.data import Box, Episodes, fields
from emix.data.episodes import joined
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
