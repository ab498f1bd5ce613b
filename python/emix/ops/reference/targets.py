"""The targets of a critic with a linear mixer, from the other references; see ``emix.ops.targets``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from emix.ops.reference.ensemble import uncertainty_weight
from emix.ops.reference.mixing import expected_linear_mix, linear_mix
from emix.ops.reference.returns import trace_returns, tree_backup_returns


def _values(q: Tensor, uncertainty_scale: float | None) -> tuple[Tensor, Tensor]:
    """The members' mean and the next value, each [B, T+1, n, A]."""
    mean = q.mean(0) if q.dim() == 5 else q
    return mean, mean if uncertainty_scale is None else mean * uncertainty_weight(q, uncertainty_scale)


def _pick(value: Tensor, actions: Tensor) -> Tensor:
    return value.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)


def tree_backup_target(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    pi: Tensor,
    actions: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    uncertainty_scale: float | None = None,
    **rest: Any,
) -> Tensor:
    """Tree backup of the linear mix, its expectation under ``pi``, and the probability of the actions taken."""
    mean, following = _values(q, uncertainty_scale)
    joint_q = linear_mix(_pick(mean, actions), weight, bias)  # [B, T+1]
    v = expected_linear_mix(following, pi, weight, bias)
    return tree_backup_returns(reward, terminated, joint_q, v, _pick(pi, actions).prod(-1), **rest)


def td_lambda_target(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    actions: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    uncertainty_scale: float | None = None,
    **rest: Any,
) -> Tensor:
    """TD(lambda) of the linear mix of the actions taken."""
    mean, following = _values(q, uncertainty_scale)
    joint_q = linear_mix(_pick(mean, actions), weight, bias)  # [B, T+1]
    v = linear_mix(_pick(following, actions), weight, bias)
    return trace_returns(reward, terminated, joint_q, v, None, **rest)
