"""What learners share beneath their equations: checked hyperparameters, memories, choosing actions, means."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emix.data import EnvSpec
from emix.errors import UsageError
from emix.learners.plan import MOST_WHOLE
from emix.reading import short


class Memory(NamedTuple):
    """What recurrent agents carry from one step of an episode to the next, for E environments."""

    hidden: Tensor  # [E, n, H], the GRU's state
    last_actions: Tensor  # [E, n] int64, A before the first step; or [E, n, D] float32, zeros before it


def initial_memory(num_envs: int, spec: EnvSpec, hidden_dim: int, device: torch.device) -> Memory:
    """The memory of E environments' agents before the first step of an episode."""
    hidden = torch.zeros(num_envs, spec.n_agents, hidden_dim, dtype=torch.float32, device=device)  # [E, n, H]
    return Memory(hidden, spec.action.none((num_envs, spec.n_agents), device))


def check_fields(
    config: Any,
    *,
    choices: Mapping[str, tuple[Any, ...]],
    fractions: Collection[str],
    not_negative: Collection[str] = (),
    signed: Collection[str] = (),
) -> None:
    """Check a dataclass of hyperparameters against the types of its defaults.

    Args:
        config: the instance.
        choices: the values that a field may have.
        fractions: fields from 0 to 1.
        not_negative: fields from 0 up.
        signed: fields that may be any number. Every other number must be above 0, those of a tuple, too; where the
            default is None, it may be None.

    Raises:
        UsageError: a value is of the wrong type or out of range.
    """
    for field in fields(config):
        value: Any = getattr(config, field.name)
        if is_dataclass(field.default):  # which checks itself
            if type(value) is not type(field.default):
                raise UsageError(f"{field.name}: expected a {type(field.default).__name__}, got {value!r}")
        elif isinstance(field.default, tuple):
            _check_numbers(field.name, value)
        elif value is not None or field.default is not None:
            _check_value(field.name, value, 0.5 if field.default is None else field.default, choices)
            if field.name in signed:
                if not math.isfinite(value):
                    raise UsageError(f"{field.name}: expected a finite number, got {value!r}")
            elif not isinstance(value, str | bool):
                _check_range(field.name, value, field.name in fractions, field.name in not_negative)


def _check_numbers(name: str, values: Any) -> None:
    fits = isinstance(values, tuple) and all(type(each) in (int, float) and each > 0 for each in values)
    if not fits:
        raise UsageError(f"{name}: expected numbers above 0, got {values!r}")


def _check_value(name: str, value: Any, default: Any, choices: Mapping[str, tuple[Any, ...]]) -> None:
    numbers = (int, float) if isinstance(default, float) else type(default)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, numbers):
        raise UsageError(f"{name}: expected a value like {default!r}, got {value!r}")
    if name in choices and value not in choices[name]:
        raise UsageError(f"{name}: expected one of {', '.join(map(str, choices[name]))}, got {value!r}")


def _check_range(name: str, value: float, fraction: bool, not_negative: bool) -> None:
    if isinstance(value, int) and value > MOST_WHOLE:
        raise UsageError(f"{name}: expected at most {MOST_WHOLE:,}, got {short(value)}")
    if fraction:
        if not 0 <= value <= 1:
            raise UsageError(f"{name}: expected a number from 0 to 1, got {value!r}")
    elif not_negative:
        if not value >= 0:
            raise UsageError(f"{name}: expected 0 or a number above it, got {value!r}")
    elif not value > 0:
        raise UsageError(f"{name}: expected a number above 0, got {value!r}")


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


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``values`` where ``mask`` is True, of the same shape; 0 where it is nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
