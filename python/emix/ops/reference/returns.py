"""The returns; see ``emix.ops.returns``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _align(*tensors: Tensor) -> list[Tensor]:
    """Give every tensor [B, T, ...] the same number of axes, new ones at the end."""
    dims = max(tensor.dim() for tensor in tensors)
    return [tensor.reshape(tensor.shape + (1,) * (dims - tensor.dim())) for tensor in tensors]


def trace_returns(
    reward: Tensor,
    terminated: Tensor,
    q: Tensor,
    v: Tensor,
    trace: Tensor | None,
    *,
    gamma: float,
    lam: float = 1.0,
    horizon: int | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """``G_t = q_t + sum_{l < horizon} (prod_{j <= l} gamma lam trace_{t+j}) delta_{t+l}`` by loops over t and l; see
    ``emix.ops.trace_returns``."""
    steps = reward.shape[1]
    truncated = torch.zeros_like(reward, dtype=torch.bool) if truncated is None else truncated
    valid = torch.ones_like(reward, dtype=torch.bool) if valid is None else valid
    trace = torch.ones_like(q) if trace is None else trace
    reward, terminated, q, v, trace, truncated, valid = _align(reward, terminated, q, v, trace, truncated, valid)
    terminated, truncated, valid = terminated.bool(), truncated.bool(), valid.bool()
    zero = torch.zeros((), dtype=q.dtype, device=q.device)

    valid_next = torch.cat([valid[:, 1:], torch.zeros_like(valid[:, :1])], dim=1)
    linked = valid & valid_next & ~terminated & ~truncated  # [B, T, ...]
    bootstrap = torch.where(terminated, zero, gamma * v[:, 1:])
    delta = torch.where(valid, reward + bootstrap - q[:, :-1], zero)  # [B, T, ...]
    gain = torch.where(linked, gamma * lam * trace[:, 1:], zero)
    delta, gain, linked = torch.broadcast_tensors(delta, gain, linked)

    if horizon is None:
        later = torch.zeros_like(delta[:, :1])  # [B, 1, ...]
        found = []
        for t in reversed(range(steps)):
            later = delta[:, t : t + 1] + gain[:, t : t + 1] * torch.where(linked[:, t : t + 1], later, zero)
            found.append(later)
        x = torch.cat([delta[:, :0], *reversed(found)], dim=1)
    else:
        x = torch.zeros_like(delta)
        for _ in range(min(horizon, steps)):  # one more term each time
            ahead = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)
            x = delta + gain * torch.where(linked, ahead, zero)
    return torch.where(valid, q[:, :-1] + x, zero)


def lambda_returns(
    reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, lam: float, **ends: Any
) -> Tensor:
    """``G_t = r_t + gamma (1 - terminated_t) ((1 - lam) value_{t+1} + lam G_{t+1})``."""
    return trace_returns(reward, terminated, value, value, None, gamma=gamma, lam=lam, **ends)


def n_step_returns(reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, n: int, **ends: Any) -> Tensor:
    """``G_t = sum_{l < n} gamma^l r_{t+l} + gamma^n value_{t+n}``, shorter where the episode is."""
    return trace_returns(reward, terminated, value, value, None, gamma=gamma, horizon=n, **ends)


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
    **ends: Any,
) -> Tensor:
    """Trace ``lam pi``."""
    return trace_returns(reward, terminated, q, v, pi, gamma=gamma, lam=lam, horizon=horizon, **ends)


def q_lambda_returns(
    reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, *, gamma: float, lam: float, **ends: Any
) -> Tensor:
    """Trace ``lam``."""
    return trace_returns(reward, terminated, q, v, None, gamma=gamma, lam=lam, **ends)


def retrace_returns(
    reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, ratio: Tensor, *, gamma: float, lam: float, **ends: Any
) -> Tensor:
    """Trace ``lam min(1, ratio)``."""
    return trace_returns(reward, terminated, q, v, ratio.clamp(max=1), gamma=gamma, lam=lam, **ends)


def gae(reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, lam: float, **ends: Any) -> Tensor:
    """``A_t = delta_t + gamma lam A_{t+1}``: the return less the value."""
    returns = lambda_returns(reward, terminated, value, gamma=gamma, lam=lam, **ends)
    valid = ends.get("valid")
    returns, value, valid = _align(
        returns, value, torch.ones_like(reward, dtype=torch.bool) if valid is None else valid
    )
    return torch.where(valid.bool(), returns - value[:, :-1], torch.zeros_like(returns))
