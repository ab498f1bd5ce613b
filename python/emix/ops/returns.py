r"""Returns: TD(lambda), n-step, tree backup, Q(lambda), Retrace and GAE are one recursion over time, one launch.

For t = T-1 .. 0, with the step's own discount cut where the episode ended:

    delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t
    X_t     = delta_t + gamma c_{t+1} X_{t+1}
    G_t     = q_t + X_t

| function            | q_t        | v_{t+1}      | c_{t+1}            | result |
|---------------------|------------|--------------|--------------------|--------|
| trace_returns       | q          | v            | trace              | G      |
| lambda_returns      | value      | value        | lam                | G      |
| n_step_returns      | value      | value        | 1, n terms         | G      |
| tree_backup_returns | q (taken)  | E_pi q       | lam pi(a)          | G      |
| q_lambda_returns    | q (taken)  | E_pi q       | lam                | G      |
| retrace_returns     | q (taken)  | E_pi q       | lam min(1, pi/mu)  | G      |
| gae                 | value      | value        | lam                | X      |

What they all share:

Shapes: ``reward``, ``terminated``, ``truncated``, ``valid`` [B, T]; ``q``, ``v``, ``value``, ``trace``, ``pi``,
``ratio`` [B, T+1], where entry t+1 belongs to the step after t; the last one is what a truncated episode bootstraps
from. Any of them may carry trailing axes (agents, members: up to four) and the others are broadcast to them: the
result is [B, T, ...]. Any strides; B, T or a trailing axis may be empty.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).
Masks are bool, or any dtype that holds 0 and 1.

Ends: ``terminated`` stops the bootstrap and the carry. ``truncated`` (a time limit) stops the carry only: the step
bootstraps from entry t+1. ``valid`` is False on padding: the result there is 0 and nothing there, NaN included,
reaches a valid step; the last valid step bootstraps like a truncated one.

Gradient: none by default, the results are targets. With ``differentiable=True`` gradients reach reward, q, v, value,
trace, pi and ratio.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.ops._errors import explained

_forward = torch.ops.emix.trace_returns.default
_backward = torch.ops.emix.trace_returns_backward.default

_NO_NAMES: dict[str, str] = {}
_VALUE = {"q": "value", "v": "value"}
_N_STEP = {"q": "value", "v": "value", "horizon": "n"}
_PI = {"trace": "pi"}
_RATIO = {"trace": "ratio"}


def trace_returns(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    trace: Tensor,
    *,
    gamma: float,
    horizon: int | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute returns with any trace: the general recursion that the functions below are cases of.

    ``G_t = q_t + sum_{l < horizon} gamma^l (prod_{1 <= j <= l} trace_{t+j}) delta_{t+l}``; ``horizon`` None means up
    to the episode's end. Shapes, masks and errors: see ``emix.ops.returns``. Source: Munos et al. 2016, "Safe and
    efficient off-policy reinforcement learning", eq. 3.

    >>> one = torch.ones(1, 2)
    >>> q = torch.zeros(1, 3)
    >>> trace_returns(one, torch.tensor([[0, 1]]), q, q, torch.full((1, 3), 0.5), gamma=1.0)
    tensor([[1.5000, 1.0000]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, q, v, gamma, 1.0, trace, truncated, valid, _limit("horizon", horizon))
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def lambda_returns(
    reward: Tensor,
    terminated: Tensor,
    value: Tensor,
    *,
    gamma: float,
    lam: float,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute TD(lambda) returns, the target of SMIX(lambda) (eq. 9 and 10) when ``value`` is the target network's
    Q_tot of the actions taken.

    ``G_t = r_t + gamma (1 - terminated_t) ((1 - lam) value_{t+1} + lam G_{t+1})``. lam 0 is the one-step target, lam 1
    Monte Carlo. Shapes, masks and errors: see ``emix.ops.returns``. Source: Sutton 1988.

    >>> value = torch.tensor([[0.0, 1.0, 2.0]])
    >>> lambda_returns(torch.ones(1, 2), torch.zeros(1, 2), value, gamma=1.0, lam=0.5)
    tensor([[3., 3.]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, value, value, gamma, lam, None, truncated, valid)
    except RuntimeError as error:
        raise explained(error, _VALUE) from None


def n_step_returns(
    reward: Tensor,
    terminated: Tensor,
    value: Tensor,
    *,
    gamma: float,
    n: int,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute n-step returns.

    ``G_t = sum_{l < n} gamma^l r_{t+l} + gamma^n value_{t+n}``; where the episode ends earlier, the sum does too, with
    value 0 after a termination and the last entry's after a truncation. Shapes, masks and errors: see
    ``emix.ops.returns``. Source: Sutton and Barto 2018, section 7.1.

    >>> value = torch.tensor([[0.0, 0.0, 0.0, 8.0]])
    >>> n_step_returns(torch.ones(1, 3), torch.zeros(1, 3), value, gamma=0.5, n=2)
    tensor([[1.5000, 3.5000, 5.0000]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, value, value, gamma, 1.0, None, truncated, valid, _limit("n", n))
    except RuntimeError as error:
        raise explained(error, _N_STEP) from None


def tree_backup_returns(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    pi: Tensor,
    *,
    gamma: float,
    lam: float,
    horizon: int | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute tree-backup(lambda) returns, the off-policy target of DOP and Ensemble-MIX (eq. 2).

    ``G_t = q_t + sum_{l < horizon} (gamma lam)^l (prod_{1 <= j <= l} pi_{t+j}) delta_{t+l}``. q: Q_tot of the actions
    taken; v: its expectation under the policy; pi: the policy's probability of the joint action taken, in [0, 1] (the
    product over agents; ``pi[:, 0]`` is not used). Shapes, masks and errors: see ``emix.ops.returns``. Source: Precup,
    Sutton and Singh 2000.

    >>> q = torch.zeros(1, 3)
    >>> pi = torch.full((1, 3), 0.5)
    >>> tree_backup_returns(torch.ones(1, 2), torch.tensor([[0, 1]]), q, q, pi, gamma=1.0, lam=1.0)
    tensor([[1.5000, 1.0000]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, q, v, gamma, lam, pi, truncated, valid, _limit("horizon", horizon))
    except RuntimeError as error:
        raise explained(error, _PI) from None


def q_lambda_returns(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    *,
    gamma: float,
    lam: float,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute Q(lambda) returns: no correction of the actions taken.

    ``G_t = q_t + sum_l (gamma lam)^l delta_{t+l}``, delta with v = E_pi Q. Shapes, masks and errors: see
    ``emix.ops.returns``. Source: Harutyunyan et al. 2016, "Q(lambda) with off-policy corrections".

    >>> q, v = torch.zeros(1, 2), torch.full((1, 2), 2.0)
    >>> q_lambda_returns(torch.ones(1, 1), torch.zeros(1, 1), q, v, gamma=0.5, lam=0.8)
    tensor([[2.]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, q, v, gamma, lam, None, truncated, valid)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def retrace_returns(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    ratio: Tensor,
    *,
    gamma: float,
    lam: float,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute Retrace(lambda) returns.

    ``G_t = q_t + sum_l (gamma lam)^l (prod_{1 <= j <= l} min(1, ratio_{t+j})) delta_{t+l}``. ratio: pi/mu of the joint
    action taken, >= 0, mu being what the behaviour policy gave it (``ratio[:, 0]`` is not used). Shapes, masks and
    errors: see ``emix.ops.returns``. Source: Munos et al. 2016.

    >>> q = torch.zeros(1, 3)
    >>> ratio = torch.full((1, 3), 7.0)
    >>> retrace_returns(torch.ones(1, 2), torch.tensor([[0, 1]]), q, q, ratio, gamma=1.0, lam=0.5)
    tensor([[1.5000, 1.0000]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, q, v, gamma, lam, ratio, truncated, valid, 0, True)
    except RuntimeError as error:
        raise explained(error, _RATIO) from None


def gae(
    reward: Tensor,
    terminated: Tensor,
    value: Tensor,
    *,
    gamma: float,
    lam: float,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Compute generalised advantages; the return is ``gae(...) + value[:, :-1]``.

    ``A_t = delta_t + gamma lam A_{t+1}``. Shapes, masks and errors: see ``emix.ops.returns``. Source: Schulman et al.
    2016, eq. 16.

    >>> gae(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 3), gamma=1.0, lam=0.5)
    tensor([[1.5000, 1.0000]])
    """
    try:
        call = _with_gradient if differentiable else _forward
        return call(reward, terminated, value, value, gamma, lam, None, truncated, valid, 0, False, True)
    except RuntimeError as error:
        raise explained(error, _VALUE) from None


class _TraceReturns(torch.autograd.Function):
    """A wrapper in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        reward, terminated, q, v, gamma, lam, trace, truncated, valid, *rest = inputs
        ctx.save_for_backward(reward, terminated, q, v, trace, truncated, valid)
        ctx.gamma, ctx.lam, ctx.rest = gamma, lam, rest
        return _forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        reward, terminated, q, v, trace, truncated, valid = ctx.saved_tensors
        reward_grad, q_grad, v_grad, trace_grad = _backward(
            grad, reward, terminated, q, v, ctx.gamma, ctx.lam, trace, truncated, valid, *ctx.rest
        )
        unused = (None,) * (2 + len(ctx.rest))  # truncated, valid and the rest
        return (
            _sum_to(reward_grad, reward),
            None,
            _sum_to(q_grad, q),
            _sum_to(v_grad, v),
            None,
            None,
            _sum_to(trace_grad, trace),
            *unused,
        )


def _with_gradient(reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, *rest: Any) -> Tensor:
    if v is q:
        v = q.view_as(q)  # torch.compile refuses a Function that is given one tensor twice
    return _TraceReturns.apply(reward, terminated, q, v, *rest)


def _limit(name: str, horizon: int | None) -> int:
    """The op's word for a horizon: 0 means no limit there."""
    if horizon is None:
        return 0
    if horizon < 1:
        raise ValueError(f"{name} must be at least 1, got {horizon}")
    return horizon


def _sum_to(grad: Tensor, like: Tensor | None) -> Tensor | None:
    """The gradient of a tensor that was broadcast over trailing axes."""
    if like is None or not like.requires_grad:
        return None
    aligned = like.shape + (1,) * (grad.dim() - like.dim())
    return grad.sum_to_size(aligned).reshape(like.shape).to(like.dtype)


def _result_dtype(*tensors: Tensor | None) -> torch.dtype:
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


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
    return reward.new_empty(shape, dtype=_result_dtype(reward, q, v, trace))


@torch.library.register_fake("emix::trace_returns_backward")
def _trace_returns_backward_fake(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    following = (grad.shape[0], grad.shape[1] + 1, *grad.shape[2:])
    return grad.new_empty(grad.shape), *(grad.new_empty(following) for _ in range(3))


# Without an entry for autograd torch would warn of a missing derivative; the derivative is _TraceReturns, above the op.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
_autograd.impl("trace_returns", torch.library.fallthrough_kernel)
_autograd.impl("trace_returns_backward", torch.library.fallthrough_kernel)
