"""The recursion over time that ``returns`` and ``targets`` call: its op, its gradient and its fake kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emix.errors import UsageError
from emix.ops._call import compiled, wide
from emix.ops._gradient import Differentiable, Gradients

recursion = compiled("trace_returns")
_backward = compiled("trace_returns_backward")


def differentiable_recursion(reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, *rest: Any) -> Tensor:
    """``recursion`` whose gradients reach reward, q, v and trace."""
    if v is q and isinstance(q, Tensor):
        v = q.view_as(q)  # torch.compile refuses an autograd.Function that is given one tensor twice
    return _recursion(reward, terminated, q, v, *rest)


def limit(name: str, horizon: int | None) -> int:
    """The op's word for a horizon: 0 means no limit there."""
    if horizon is None:
        return 0
    if not isinstance(horizon, int):
        raise UsageError(f"{name} must be an integer, got {horizon!r}")
    if horizon < 1:
        raise UsageError(f"{name} must be at least 1, got {horizon}")
    return horizon


def _gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Any) -> Gradients:
    reward_grad, q_grad, v_grad, trace_grad = _backward(grads[0], *inputs)  # each in the shape of the result
    found = (reward_grad, None, q_grad, v_grad, None, None, trace_grad)
    return [_sum_to(*pair) if is_wanted else None for *pair, is_wanted in zip(found, inputs, wanted, strict=False)]


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of a tensor that was broadcast over trailing axes."""
    aligned = like.shape + (1,) * (grad.dim() - like.dim())
    return grad.sum_to_size(aligned).reshape(like.shape).to(like.dtype)


_recursion = Differentiable("trace_returns", recursion, _gradients)


def _result_shape(reward: Tensor, *others: Tensor | None) -> tuple[int, ...]:
    trailing = torch.broadcast_shapes(reward.shape[2:], *(other.shape[2:] for other in others if other is not None))
    return (*reward.shape[:2], *trailing)


@torch.library.register_fake("emix::trace_returns")
def _trace_returns_fake(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    gamma: float,
    lam: float,
    trace: Tensor | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    *rest: Any,
) -> Tensor:
    shape = _result_shape(reward, terminated, q, v, trace, truncated, valid)
    return reward.new_empty(shape, dtype=wide(reward, q, v, trace))


@torch.library.register_fake("emix::trace_returns_backward")
def _trace_returns_backward_fake(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    following = (grad.shape[0], grad.shape[1] + 1, *grad.shape[2:])
    return grad.new_empty(grad.shape), *(grad.new_empty(following) for _ in range(3))
