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
"""

from __future__ import annotations

from torch import Tensor

from emix.ops._call import public
from emix.ops._recursion import differentiable_recursion, expect_tensor, limit, recursion

_VALUE = {"q": "value", "v": "value"}
_N_STEP = {"q": "value", "v": "value", "horizon": "n"}
_PI = {"trace": "pi"}
_RATIO = {"trace": "ratio"}


@public()
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

    ``G_t = q_t + sum_{l < horizon} gamma^l (prod_{1 <= j <= l} trace_{t+j}) delta_{t+l}`` with
    ``delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Munos et al. 2016, "Safe and efficient off-policy reinforcement learning", eq. 3.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: values of the actions taken ``[B, T+1]``; entry t+1 belongs to the step after t.
        v: what is bootstrapped from ``[B, T+1]``; ``v[:, 0]`` is not used.
        trace: c, the weight of the next step's carry ``[B, T+1]``; ``trace[:, 0]`` is not used.
        gamma: discount, in [0, 1].
        horizon: the number of terms of the sum, at least 1; None: up to the episode's end.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward, q, v and trace, once. Without it the result is a target and has
            none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> one = torch.ones(1, 2)
    >>> q = torch.zeros(1, 3)
    >>> trace_returns(one, torch.tensor([[0, 1]]), q, q, torch.full((1, 3), 0.5), gamma=1.0)
    tensor([[1.5000, 1.0000]])
    """
    expect_tensor("trace", trace)
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, q, v, gamma, 1.0, trace, truncated, valid, limit("horizon", horizon))


@public(_VALUE)
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

    ``G_t = r_t + gamma (1 - terminated_t) ((1 - lam) value_{t+1} + lam G_{t+1})``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Sutton 1988.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        value: ``[B, T+1]``; entry t+1 belongs to the step after t.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1]: 0 is the one-step target, 1 Monte Carlo.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward and value, once. Without it the result is a target and has none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> value = torch.tensor([[0.0, 1.0, 2.0]])
    >>> lambda_returns(torch.ones(1, 2), torch.zeros(1, 2), value, gamma=1.0, lam=0.5)
    tensor([[3., 3.]])
    """
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, value, value, gamma, lam, None, truncated, valid)


@public(_N_STEP)
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
    value 0 after a termination and the last entry's after a truncation.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Sutton and Barto 2018, section 7.1.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        value: ``[B, T+1]``; entry t+1 belongs to the step after t.
        gamma: discount, in [0, 1].
        n: steps, at least 1.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward and value, once. Without it the result is a target and has none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> value = torch.tensor([[0.0, 0.0, 0.0, 8.0]])
    >>> n_step_returns(torch.ones(1, 3), torch.zeros(1, 3), value, gamma=0.5, n=2)
    tensor([[1.5000, 3.5000, 5.0000]])
    """
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, value, value, gamma, 1.0, None, truncated, valid, limit("n", n))


@public(_PI)
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

    ``G_t = q_t + sum_{l < horizon} (gamma lam)^l (prod_{1 <= j <= l} pi_{t+j}) delta_{t+l}`` with
    ``delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Precup, Sutton and Singh 2000.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: Q_tot of the actions taken ``[B, T+1]``; entry t+1 belongs to the step after t.
        v: its expectation under the policy ``[B, T+1]``; ``v[:, 0]`` is not used.
        pi: the policy's probability of the joint action taken, in [0, 1] (the product over agents) ``[B, T+1]``;
            ``pi[:, 0]`` is not used.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        horizon: the number of terms of the sum, at least 1 (DOP: 5); None: up to the episode's end.
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward, q, v and pi, once. Without it the result is a target and has none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.zeros(1, 3)
    >>> pi = torch.full((1, 3), 0.5)
    >>> tree_backup_returns(torch.ones(1, 2), torch.tensor([[0, 1]]), q, q, pi, gamma=1.0, lam=1.0)
    tensor([[1.5000, 1.0000]])
    """
    expect_tensor("pi", pi)
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, q, v, gamma, lam, pi, truncated, valid, limit("horizon", horizon))


@public()
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

    ``G_t = q_t + sum_l (gamma lam)^l delta_{t+l}`` with ``delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Harutyunyan et al. 2016, "Q(lambda) with off-policy corrections".

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: Q_tot of the actions taken ``[B, T+1]``; entry t+1 belongs to the step after t.
        v: its expectation under the policy ``[B, T+1]``; ``v[:, 0]`` is not used.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward, q and v, once. Without it the result is a target and has none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q, v = torch.zeros(1, 2), torch.full((1, 2), 2.0)
    >>> q_lambda_returns(torch.ones(1, 1), torch.zeros(1, 1), q, v, gamma=0.5, lam=0.8)
    tensor([[2.]])
    """
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, q, v, gamma, lam, None, truncated, valid)


@public(_RATIO)
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

    ``G_t = q_t + sum_l (gamma lam)^l (prod_{1 <= j <= l} min(1, ratio_{t+j})) delta_{t+l}`` with
    ``delta_t = r_t + gamma (1 - terminated_t) v_{t+1} - q_t``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Munos et al. 2016, "Safe and efficient off-policy reinforcement learning".

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        q: Q_tot of the actions taken ``[B, T+1]``; entry t+1 belongs to the step after t.
        v: its expectation under the policy ``[B, T+1]``; ``v[:, 0]`` is not used.
        ratio: pi/mu of the joint action taken, >= 0, mu being what the behaviour policy gave it ``[B, T+1]``;
            ``ratio[:, 0]`` is not used.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward, q, v and ratio, once. Without it the result is a target and has
            none.

    Returns:
        G ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.zeros(1, 3)
    >>> ratio = torch.full((1, 3), 7.0)
    >>> retrace_returns(torch.ones(1, 2), torch.tensor([[0, 1]]), q, q, ratio, gamma=1.0, lam=0.5)
    tensor([[1.5000, 1.0000]])
    """
    expect_tensor("ratio", ratio)
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, q, v, gamma, lam, ratio, truncated, valid, 0, True)


@public(_VALUE)
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

    ``A_t = delta_t + gamma lam A_{t+1}`` with ``delta_t = r_t + gamma (1 - terminated_t) value_{t+1} - value_t``.
    Any input may carry trailing axes (agents, members: up to four), to which the others are broadcast.
    Source: Schulman et al. 2016, eq. 16.

    Args:
        reward: ``[B, T]``; float16, bfloat16, float32 or float64, as all inputs but the masks.
        terminated: ``[B, T]``, bool or any dtype that holds 0 and 1: the environment ended with this step; nothing is
            bootstrapped, nothing carried over.
        value: ``[B, T+1]``; entry t+1 belongs to the step after t.
        gamma: discount, in [0, 1].
        lam: lambda, in [0, 1].
        truncated: ``[B, T]``, a mask as ``terminated``: a time limit; the step bootstraps from entry t+1 and carries
            nothing over. None: nowhere.
        valid: ``[B, T]``, a mask: False on padding, where the result is 0 and from where nothing, NaN included, reaches
            a valid step. The last valid step bootstraps like a truncated one. None: everywhere.
        differentiable: let gradients reach reward and value, once. Without it the result is a target and has none.

    Returns:
        A ``[B, T]`` and the trailing axes, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> gae(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 3), gamma=1.0, lam=0.5)
    tensor([[1.5000, 1.0000]])
    """
    op = differentiable_recursion if differentiable else recursion
    return op(reward, terminated, value, value, gamma, lam, None, truncated, valid, 0, False, True)
