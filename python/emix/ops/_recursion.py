"""The recursion over time that ``returns`` and ``targets`` call: its op, its gradient and its fake kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from emix.ops._call import compiled
from emix.ops._fake import check_types, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable

recursion = compiled("trace_returns")
_backward = compiled("trace_returns_backward")

_MAX_TRAILING = 4


def differentiable_recursion(reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, *rest: Any) -> Tensor:
    """``recursion`` whose gradients reach reward, q, v and trace."""
    if v is q and isinstance(q, Tensor):
        v = q.view_as(q)  # torch.compile refuses an autograd.Function that is given one tensor twice
    return _recursion(reward, terminated, q, v, *rest)


def expect_tensor(name: str, tensor: Tensor | None) -> None:
    """Refuse None, which to the op means a trace of 1."""
    if tensor is None:
        raise ValueError(f"{name} must be a tensor, got None")


def limit(name: str, horizon: int | None) -> int:
    """The op's word for a horizon: 0 means no limit there."""
    if horizon is None:
        return 0
    if horizon < 1:
        raise ValueError(f"{name} must be at least 1, got {horizon}")
    return horizon


def _gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Any) -> Gradients:
    reward_grad, q_grad, v_grad, trace_grad = _backward(grads[0], *inputs)  # each in the shape of the result
    found = (reward_grad, None, q_grad, v_grad, None, None, trace_grad)
    return [_sum_to(*pair) if is_wanted else None for *pair, is_wanted in zip(found, inputs, wanted, strict=False)]


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of a tensor that was broadcast over trailing axes."""
    aligned = like.shape + (1,) * (grad.dim() - like.dim())
    return grad.sum_to_size(aligned).reshape(like.shape).to(like.dtype)


_recursion = differentiable("trace_returns", recursion, _gradients, places=(0, 2, 3, 6))


@register_fake("trace_returns")
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
    floats, following = {"reward": reward, "q": q, "v": v, "trace": trace}, {"q": q, "v": v, "trace": trace}
    masks = {"terminated": terminated, "truncated": truncated, "valid": valid}
    check_types(floats, masks)
    for name, number in (("gamma", gamma), ("lam", lam)):
        require(0 <= number <= 1, "`{}` must lie in [0, 1], got {}", name, number)
    require(reward.dim() >= 2, "`reward` must have shape [B, T] or [B, T, ...], got {}", list(reward.shape))
    episodes, steps = reward.shape[:2]
    trailing: tuple[Any, ...] = ()
    for name, tensor in {"reward": reward, **masks, **following}.items():
        if tensor is not None:
            _check_steps(name, tensor, episodes, steps + 1 if name in following else steps)
            trailing = _merged(name, tensor, trailing)
    return reward.new_empty((episodes, steps, *trailing), dtype=wide(*floats.values()))


def _check_steps(name: str, tensor: Tensor, episodes: Any, entries: Any) -> None:
    sentence = "`{}` must have shape [{}, {}] or [{}, {}, ...], got {}"
    shown = (name, episodes, entries, episodes, entries, list(tensor.shape))
    require(2 <= tensor.dim() <= 2 + _MAX_TRAILING, sentence, *shown)
    require(tensor.shape[0] == episodes, sentence, *shown)
    require(tensor.shape[1] == entries, sentence, *shown)


def _merged(name: str, tensor: Tensor, trailing: tuple[Any, ...]) -> tuple[Any, ...]:
    """The trailing axes with a further input's, which has all of them, or size 1 in their place, or none."""
    own = tuple(tensor.shape[2:])
    if not own or not trailing:
        return own or trailing
    sentence = "`{}` must have the trailing axes {} of the other inputs, or none, got {}"
    shown = (name, list(trailing), list(tensor.shape))
    require(len(own) == len(trailing), sentence, *shown)
    for a, b in zip(own, trailing, strict=True):
        require(a == b or a == 1 or b == 1, sentence, *shown)
    return tuple(b if a == 1 else a for a, b in zip(own, trailing, strict=True))


@register_fake("trace_returns_backward")
def _trace_returns_backward_fake(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    following = (grad.shape[0], grad.shape[1] + 1, *grad.shape[2:])
    return grad.new_empty(grad.shape), *(grad.new_empty(following) for _ in range(3))
