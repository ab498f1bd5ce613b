"""SplitMix64 on tensors against its published outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emix.envs import episode_seed
from emix.envs.random import episode_keys, shift_right, splitmix64, uniform

# The first outputs for two seeds, as the reference C code (Vigna, splitmix64.c) prints them.
KNOWN = {
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC],
    1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431],
}


@pytest.mark.parametrize("seed", KNOWN)
def test_known_outputs(seed, device):
    key, counter = torch.tensor([[seed]], device=device), torch.arange(4, device=device)
    assert [value % 2**64 for value in splitmix64(key, counter)[0].tolist()] == KNOWN[seed]


def test_shifts_bring_zeros():
    values = [0, 1, 2**63 - 1, -1, -(2**63)]
    for count in (1, 30, 63):
        expected = [value % 2**64 >> count for value in values]
        assert shift_right(torch.tensor(values), count).tolist() == expected


def test_uniform_numbers():
    assert uniform(torch.tensor([0, -1, -(2**63)])).tolist() == [0.0, 1 - 2**-24, 0.5]
    draws = uniform(splitmix64(torch.tensor(7), torch.arange(100_000)))
    counts = torch.histc(draws, bins=10, min=0, max=1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


def test_keys_are_the_episodes_seeds():
    episode, where = torch.tensor([5, 9, 0]), torch.tensor([True, False, True])
    assert episode_keys(3, 0, episode, where).tolist() == [episode_seed(3, 0, 5), 0, episode_seed(3, 2, 0)]
    assert episode_keys(3, 7, episode, where).tolist() == [episode_seed(3, 7, 5), 0, episode_seed(3, 9, 0)]


@given(
    seed=st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63 - 1]),
    first=st.integers(0, 2**32 - 8),
    episodes=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 2**40), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_the_keys_of_many_episodes_are_those_of_each(seed, first, episodes):
    where = torch.arange(len(episodes)) % 3 != 1
    keys = episode_keys(seed, first, torch.tensor(episodes), where)
    expected = [episode_seed(seed, first + e, k) for e, k in enumerate(episodes)]
    assert keys.tolist() == [key if starts else 0 for key, starts in zip(expected, where.tolist(), strict=True)]
