"""Random numbers of tensor environments: SplitMix64 as a function of an episode's key and a counter.

A draw depends on (seed, environment, episode, counter) alone, so that an episode is the same in every batch, on every
device, and needs no generator whose state would have to be saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emix.envs.core import episode_seed

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def episode_keys(seed: int, first_env: int, episode: Tensor, where: Tensor) -> Tensor:
    """``episode_seed(seed, first_env + e, episode[e])`` where ``where`` [E], else 0: int64 [E]; all on the CPU."""
    numbers = zip(episode.tolist(), where.tolist(), strict=True)
    keys = [episode_seed(seed, e, k) if starts else 0 for e, (k, starts) in enumerate(numbers, first_env)]
    return torch.tensor(keys, dtype=torch.int64, device="cpu")


def splitmix64(key: Tensor, counter: Tensor) -> Tensor:
    """Output number ``counter`` (from 0) of the SplitMix64 generator seeded with ``key``: int64, 64 random bits.

    ``key`` and ``counter`` are int64 and are broadcast. The outputs of one key never repeat before 2^64 draws: sorting
    them gives a permutation without ties.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014); the constants are those of
    java.util.SplittableRandom.
    """
    bits = key + (counter + 1) * _signed(_GOLDEN)
    for shift, factor in _MIX:
        bits = (bits ^ shift_right(bits, shift)) * _signed(factor)
    return bits ^ shift_right(bits, 31)


def uniform(bits: Tensor) -> Tensor:
    """Float32 in [0, 1) from the 24 upper bits."""
    return shift_right(bits, 40).float() * 2.0**-24


def shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift int64 to the right, with zeros from the left (``>>`` repeats the sign)."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _signed(value: int) -> int:
    """The int64 with these 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
