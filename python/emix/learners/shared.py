"""What learners share beneath their equations: memories, choosing actions, means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emix.data import EnvSpec


class Memory(NamedTuple):
    """What recurrent agents carry from one step of an episode to the next, for E environments."""

    hidden: Tensor  # [E, n, H], the GRU's state
    last_actions: Tensor  # [E, n] int64, A before the first step; or [E, n, D] float32, zeros before it


def initial_memory(num_envs: int, spec: EnvSpec, hidden_dim: int, device: torch.device) -> Memory:
    """The memory of E environments' agents before the first step of an episode."""
    hidden = torch.zeros(num_envs, spec.n_agents, hidden_dim, dtype=torch.float32, device=device)  # [E, n, H]
    return Memory(hidden, spec.action.none((num_envs, spec.n_agents), device))


def scaled(unit: Tensor, spec: EnvSpec) -> Tensor:
    """Actions of a ``Box`` from numbers in [-1, 1]: ``[..., D]``."""
    low, high = spec.action.low, spec.action.high  # type: ignore[union-attr]
    return spec.action.nearest((low + high) / 2 + (high - low) / 2 * unit)  # rounding may pass the bound


def unscaled(actions: Tensor, spec: EnvSpec) -> Tensor:
    """The numbers in [-1, 1] that ``scaled`` makes actions of: ``[..., D]``."""
    low, high = spec.action.low, spec.action.high  # type: ignore[union-attr]
    return (actions - (low + high) / 2) / ((high - low) / 2)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module, and none is made for its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def greedy(scores: Tensor, avail: Tensor | None) -> Tensor:
    """The action with the highest score of those available, 0 where none is: ``[..., A] -> [...]``."""
    return (scores if avail is None else scores.masked_fill(~avail, -torch.inf)).argmax(-1)


def pick(values: Tensor, actions: Tensor) -> Tensor:
    """The values of the given actions: ``[..., A], [...] -> [...]``."""
    index = actions.unsqueeze(-1)
    picked = values.gather(-1, index) if _scatters_in_order(values.device) else _Pick.apply(values, index)
    return picked.squeeze(-1)


def _scatters_in_order(device: torch.device) -> bool:
    """Whether the gradient of ``gather`` costs nothing more where torch is to be deterministic."""
    return device.type == "cpu"


class _Pick(torch.autograd.Function):
    """``gather`` of one place on the last axis. The gradient of torch's is a scatter, which a GPU does by sorting where
    torch is to be deterministic, as training asks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = values.shape[-1]
        return values.gather(-1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return torch.where(torch.arange(ctx.size, device=index.device) == index, grad, 0.0), None


def previous_actions(actions: Tensor, spec: EnvSpec) -> Tensor:
    """The action before each observation, "none" at the first one: ``[B, T+1, n]``, or ``[B, T+1, n, D]``."""
    none_yet = spec.action.none(tuple(actions[:, :1].shape[:3]), actions.device)
    return torch.cat([none_yet, actions[:, :-1]], dim=1)


def in_rows(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What parts of a batch have for each step, ``[B, T, ...]`` each, one part after the other: ``[R, ...]``."""
    columns = list(zip(*parts, strict=True))
    if len(columns[0]) == 1:
        return tuple(value.flatten(0, 1) for (value,) in columns)
    return tuple(torch.cat([value.flatten(0, 1) for value in column]) for column in columns)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``values`` where ``mask`` is True, of the same shape; 0 where it is nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
