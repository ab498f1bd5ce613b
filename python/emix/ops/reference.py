"""Every op in a few lines of plain PyTorch: the specification that the tests compare the fused ops with. Differentiable by autograd, slow."""

from __future__ import annotations

import torch
from torch import Tensor


def _align(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Give every tensor [B, T, ...] the same number of axes, new ones at the end."""
    dims = max(tensor.dim() for tensor in tensors if tensor is not None)
    return [None if tensor is None else tensor.reshape(tensor.shape + (1,) * (dims - tensor.dim())) for tensor in tensors]


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
    """``G_t = q_t + sum_{l < horizon} (prod_{j <= l} gamma lam trace_{t+j}) delta_{t+l}`` by loops over t and l; see ``emix.ops.trace_returns``."""
    steps = reward.shape[1]
    truncated = torch.zeros_like(reward, dtype=torch.bool) if truncated is None else truncated
    valid = torch.ones_like(reward, dtype=torch.bool) if valid is None else valid
    trace = torch.ones_like(q) if trace is None else trace
    reward, terminated, q, v, trace, truncated, valid = _align([reward, terminated, q, v, trace, truncated, valid])
    terminated, truncated, valid = terminated.bool(), truncated.bool(), valid.bool()
    zero = torch.zeros((), dtype=q.dtype, device=q.device)

    valid_next = torch.cat([valid[:, 1:], torch.zeros_like(valid[:, :1])], dim=1)
    linked = valid & valid_next & ~terminated & ~truncated  # [B, T, ...]
    bootstrap = torch.where(terminated, zero, gamma * v[:, 1:])
    delta = torch.where(valid, reward + bootstrap - q[:, :-1], zero)  # [B, T, ...]
    gain = torch.where(linked, gamma * lam * trace[:, 1:], zero)
    delta, gain, linked = torch.broadcast_tensors(delta, gain, linked)

    if horizon is None:
        x = [torch.zeros_like(delta[:, 0])] if steps else []
        for t in reversed(range(steps)):
            x.append(delta[:, t] + gain[:, t] * torch.where(linked[:, t], x[-1], zero))
        x = torch.stack(x[:0:-1], dim=1) if steps else delta
    else:
        x = torch.zeros_like(delta)
        for _ in range(min(horizon, steps)):  # one more term each time
            ahead = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)
            x = delta + gain * torch.where(linked, ahead, zero)
    return torch.where(valid, q[:, :-1] + x, zero)


def lambda_returns(reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, lam: float, **ends: Tensor | None) -> Tensor:
    """``G_t = r_t + gamma (1 - terminated_t) ((1 - lam) value_{t+1} + lam G_{t+1})``."""
    return trace_returns(reward, terminated, value, value, None, gamma=gamma, lam=lam, **ends)


def n_step_returns(reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, n: int, **ends: Tensor | None) -> Tensor:
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
    **ends: Tensor | None,
) -> Tensor:
    """Trace ``lam pi``."""
    return trace_returns(reward, terminated, q, v, pi, gamma=gamma, lam=lam, horizon=horizon, **ends)


def q_lambda_returns(
    reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, *, gamma: float, lam: float, **ends: Tensor | None
) -> Tensor:
    """Trace ``lam``."""
    return trace_returns(reward, terminated, q, v, None, gamma=gamma, lam=lam, **ends)


def retrace_returns(
    reward: Tensor, terminated: Tensor, q: Tensor, v: Tensor, ratio: Tensor, *, gamma: float, lam: float, **ends: Tensor | None
) -> Tensor:
    """Trace ``lam min(1, ratio)``."""
    return trace_returns(reward, terminated, q, v, ratio.clamp(max=1), gamma=gamma, lam=lam, **ends)


def gae(reward: Tensor, terminated: Tensor, value: Tensor, *, gamma: float, lam: float, **ends: Tensor | None) -> Tensor:
    """``A_t = delta_t + gamma lam A_{t+1}``: the return less the value."""
    returns = lambda_returns(reward, terminated, value, gamma=gamma, lam=lam, **ends)
    aligned, value = _align([returns, value])
    advantage = aligned - value[:, :-1]
    valid = ends.get("valid")
    if valid is None:
        return advantage
    (valid, _) = _align([valid.bool(), advantage])
    return torch.where(valid, advantage, torch.zeros_like(advantage))
