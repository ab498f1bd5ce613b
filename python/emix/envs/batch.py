"""Checks that every batched environment makes on what its caller hands in."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.data.actions import describe
from emix.data.spec import EnvSpec
from emix.errors import UsageError


def reset_mask(spec: EnvSpec, where: Tensor | None, started: bool, num_envs: int) -> Tensor:
    """Return ``where`` as a bool ``[E]`` tensor: everything for None. The first reset must start everything."""
    if where is None:
        return torch.ones(num_envs, dtype=torch.bool, device="cpu")
    if not isinstance(where, Tensor) or tuple(where.shape) != (num_envs,) or where.dtype != torch.bool:
        raise UsageError(f"{spec.name}: where must be bool of shape [{num_envs}] [E], got {describe(where)}")
    if not started and not where.all():
        raise UsageError(f"{spec.name}: the first reset must start every environment, got where with False in it")
    return where


def check_episode(spec: EnvSpec, episode: Tensor, num_envs: int) -> None:
    """Raise UsageError unless the episode numbers, which a user may assign, are int64 ``[E]`` on the CPU, none
    negative."""
    fits = isinstance(episode, Tensor) and tuple(episode.shape) == (num_envs,) and episode.dtype == torch.int64
    if not fits or episode.device.type != "cpu":
        raise UsageError(
            f"{spec.name}: episode must be int64 of shape [{num_envs}] [E] on the CPU, got {describe(episode)}"
        )
    if (episode < 0).any():
        raise UsageError(f"{spec.name}: episode numbers must not be negative, got {episode.tolist()}")
