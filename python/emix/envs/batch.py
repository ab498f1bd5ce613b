"""Checks that every batched environment makes on what its caller hands in."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.envs.core import EnvSpec
from emix.errors import UsageError


def check_actions(spec: EnvSpec, actions: Tensor, num_envs: int, device: torch.device) -> None:
    """Raise UsageError unless ``actions`` is an int64 tensor of shape ``[E, n]`` on ``device``."""
    shape = (num_envs, spec.n_agents)
    if not isinstance(actions, Tensor) or tuple(actions.shape) != shape or actions.dtype != torch.int64:
        raise UsageError(f"{spec.name}: actions must be int64 of shape {list(shape)} [E, n], got {_describe(actions)}")
    if actions.device != device:
        raise UsageError(f"{spec.name}: actions must be on the environment's device {device}, got {actions.device}")


def check_available(spec: EnvSpec, actions: Tensor, avail: Tensor, done: Tensor) -> None:
    """Raise UsageError if an action ``[E, n]`` is not in ``avail`` ``[E, n, A]`` where ``done`` ``[E]`` is False.

    This looks at the values, so it would wait for a GPU: it is for tensors on the CPU.
    """
    index = actions.clamp(0, spec.n_actions - 1)
    allowed = avail.gather(2, index[:, :, None])[:, :, 0] & (index == actions)  # [E, n]
    wrong = ~(allowed | done[:, None])  # [E, n]
    if wrong.any():
        env, agent = wrong.nonzero()[0].tolist()
        options = avail[env, agent].nonzero()[:, 0].tolist()
        raise UsageError(
            f"{spec.name}: environment {env}, agent {agent}: action {int(actions[env, agent])} is not available, "
            f"expected one of {options}"
        )


def reset_mask(spec: EnvSpec, where: Tensor | None, started: bool, num_envs: int) -> Tensor:
    """Return ``where`` as a bool ``[E]`` tensor: everything for None. The first reset must start everything."""
    if where is None:
        return torch.ones(num_envs, dtype=torch.bool)
    if not isinstance(where, Tensor) or tuple(where.shape) != (num_envs,) or where.dtype != torch.bool:
        raise UsageError(f"{spec.name}: where must be bool of shape [{num_envs}] [E], got {_describe(where)}")
    if not started and not where.all():
        raise UsageError(f"{spec.name}: the first reset must start every environment, got where with False in it")
    return where


def check_episode(spec: EnvSpec, episode: Tensor, num_envs: int) -> None:
    """Raise UsageError unless the episode numbers, which a user may assign, are int64 ``[E]`` on the CPU, none
    negative."""
    fits = isinstance(episode, Tensor) and tuple(episode.shape) == (num_envs,) and episode.dtype == torch.int64
    if not fits or episode.device.type != "cpu":
        raise UsageError(
            f"{spec.name}: episode must be int64 of shape [{num_envs}] [E] on the CPU, got {_describe(episode)}"
        )
    if (episode < 0).any():
        raise UsageError(f"{spec.name}: episode numbers must not be negative, got {episode.tolist()}")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)} on {value.device}"
