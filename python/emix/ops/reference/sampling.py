"""Sampling by inversion of the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops.reference.policy import masked_policy

_LOW = 0xFFFFFFFF


def philox(seed: Tensor, block: Tensor, stream: Tensor) -> Tensor:
    """Philox4x32-10 under a 64-bit seed at counter (block, stream, stream >> 32, 0): int64 [..., 4], 32 bits each."""
    c = [block & _LOW, stream & _LOW, stream >> 32 & _LOW, torch.zeros_like(stream)]
    key = [seed & _LOW, seed >> 32 & _LOW]
    for _ in range(10):
        high, low = zip(_product(0xD2511F53, c[0]), _product(0xCD9E8D57, c[2]), strict=True)
        c = [high[1] ^ c[1] ^ key[0], low[1], high[0] ^ c[3] ^ key[1], low[0]]
        key = [key[0] + 0x9E3779B9 & _LOW, key[1] + 0xBB67AE85 & _LOW]
    return torch.stack(c, dim=-1)


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a product of 32-bit words, in int64, which has no room for all of it."""
    lower, upper = a * (b & 0xFFFF), a * (b >> 16)  # 48 bits each
    middle = (lower >> 16) + upper
    return middle >> 16, (middle << 16 | lower & 0xFFFF) & _LOW


def sample_actions(
    logits: Tensor, avail: Tensor | None, seed: Tensor, *, samples: int | None = None, floor: float | Tensor = 0.0
) -> Tensor:
    """Draw the first action a with ``u < sum_{b <= a} pi_b``, u having 31 bits; see ``emix.ops.sample_actions``."""
    logits = torch.where(logits.isnan(), -torch.inf, logits)
    pi = masked_policy(
        logits.reshape(-1, logits.shape[-1]), None if avail is None else avail.reshape(-1, logits.shape[-1]), floor
    )
    k = torch.arange(samples or 1, device=logits.device)[:, None]  # [K, 1]
    row = torch.arange(len(pi), device=logits.device)  # [R]
    words = philox(seed, k.expand(-1, len(pi)) // 4, row.expand(len(k), -1))  # [K, R, 4]
    u = words.gather(-1, (k % 4).expand(-1, len(pi))[..., None]) >> 1  # [K, R, 1]
    cumulative = pi.cumsum(-1)
    last = cumulative >= cumulative[:, -1:]  # from the last action of positive probability on
    action = (~last & (u >= cumulative * 2**31)).sum(-1)  # [K, R]
    return action.reshape(logits.shape[:-1]) if samples is None else action.reshape(samples, *logits.shape[:-1]).byte()
