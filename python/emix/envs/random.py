"""Random numbers of tensor environments: SplitMix64 as a function of an episode's key and a counter.

A draw depends on (seed, environment, episode, counter) alone, so that an episode is the same in every batch, on every
device, and needs no generator whose state would have to be saved.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emix.envs.core import episode_seed

Words = NDArray[np.uint32]

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 32) - 1
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def episode_keys(seed: int, first_env: int, episode: Tensor, where: Tensor) -> Tensor:
    """``episode_seed(seed, first_env + e, episode[e])`` where ``where`` [E], else 0: int64 [E]; all on the CPU."""
    numbers, episodes = first_env + np.arange(len(episode)), episode.numpy()  # [E] each
    if episodes.max(initial=0) >> 32 or first_env + len(episode) > 1 << 32:
        keys = np.array([episode_seed(seed, int(e), int(k)) for e, k in zip(numbers, episodes, strict=True)], np.int64)
    else:
        keys = _episode_seeds(seed, numbers.astype(np.uint32), episodes.astype(np.uint32))
    return torch.from_numpy(keys) * where


def _episode_seeds(seed: int, numbers: Words, episodes: Words) -> NDArray[np.int64]:
    """``episode_seed`` of each row, [E] uint32 each: int64 [E].

    NumPy makes one ``SeedSequence`` in 10 us, which a reset of thousands of environments would feel. Source: O'Neill's
    ``seed_seq`` as NumPy has it (numpy/random/bit_generator.pyx), for entropy of four words and two words of a key.
    """
    constant = 0x43B0D7E5

    def hashed(word: Words) -> Words:
        nonlocal constant
        word = word ^ np.uint32(constant)
        constant = constant * 0x931E8875 & _WORD
        word = word * np.uint32(constant)
        return word ^ word >> np.uint32(16)

    def mixed(one: Words, other: Words) -> Words:
        word = one * np.uint32(0xCA01F9DD) - other * np.uint32(0x4973F715)
        return word ^ word >> np.uint32(16)

    entropy = [np.full_like(numbers, seed >> shift & _WORD) for shift in (0, 32, 64, 96)]  # [E] each
    pool = [hashed(word) for word in entropy]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for word in (numbers, episodes):
        pool = [mixed(target, hashed(word)) for target in pool]
    constant, words = 0x8B51F9DD, []
    for word in pool[:2]:
        word = word ^ np.uint32(constant)
        constant = constant * 0x58F38DED & _WORD
        word = word * np.uint32(constant)
        words.append((word ^ word >> np.uint32(16)).astype(np.uint64))
    return ((words[1] << np.uint64(32) | words[0]) >> np.uint64(1)).astype(np.int64)


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
