"""The mixers; see ``emix.ops.mixing``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def linear_mix(q: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``sum_i m_i q_i + bias``, ``m`` the weights over their sum."""
    m = weight / (weight.sum(-1, keepdim=True) + 1e-10)  # [..., n]
    mixed = (m * q).sum(-1)
    return mixed if bias is None else mixed + bias


def expected_linear_mix(
    q: Tensor, pi: Tensor, weight: Tensor, bias: Tensor | None = None, uncertainty: Tensor | None = None
) -> Tensor:
    """The linear mix of ``sum_a pi_i(a) uncertainty_i(a) q_i(a)``; values never taken may be infinite or NaN."""
    value = q if uncertainty is None else q * uncertainty  # [..., n, A]
    value = torch.where((pi == 0) & ~value.isfinite(), torch.zeros_like(value), value)
    return linear_mix((pi * value).sum(-1), weight, bias)


def monotonic_mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> Tensor:
    """``ELU(q |w1| + b1) |w2| + v``; one value, or where w2 has columns one for each."""
    hidden = functional.elu((q.unsqueeze(-1) * w1.abs()).sum(-2) + b1)  # [..., E]
    if w2.dim() == q.dim():
        return (hidden * w2.abs()).sum(-1) + v
    return (hidden.unsqueeze(-1) * w2.abs()).sum(-2) + v  # [..., m]


def monotonic_mix_grad(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, weight: Tensor | None = None) -> Tensor:
    """The derivative of ``monotonic_mix`` by q, of several values that of their sum with these weights."""
    h = (q.unsqueeze(-1) * w1.abs()).sum(-2) + b1  # [..., E]
    if weight is None:
        by_value = w2.abs()
    elif w2.dim() == q.dim():
        by_value = w2.abs() * weight.unsqueeze(-1)
    else:
        by_value = (w2.abs() * weight.unsqueeze(-2)).sum(-1)
    return (w1.abs() * (h.clamp(max=0).exp() * by_value).unsqueeze(-2)).sum(-1)  # [..., n]
