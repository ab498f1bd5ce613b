"""The mixers' hypernetworks; see ``emix.ops.hypernetwork``."""

from __future__ import annotations

import torch
from torch import Tensor


def monotonic_weights(
    state: Tensor,
    w_first: Tensor,
    b_first: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    w_w1: Tensor | None = None,
    b_w1: Tensor | None = None,
    w_w2: Tensor | None = None,
    b_w2: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each member in a loop."""
    embed, values = w_v.shape[1:]
    members = []
    for k in range(len(w_v)):
        x = state @ w_first[k].t() + b_first[k]  # [..., C]
        b1, v, rest = x[..., :embed], x[..., embed : 2 * embed], x[..., 2 * embed :]
        if w_w1 is not None and b_w1 is not None and w_w2 is not None and b_w2 is not None:
            w1 = torch.relu(rest[..., : w_w1.shape[1]]) @ w_w1[k] + b_w1[k]
            w2 = torch.relu(rest[..., w_w1.shape[1] :]) @ w_w2[k] + b_w2[k]
        else:
            w1, w2 = rest[..., : rest.shape[-1] - embed * values], rest[..., rest.shape[-1] - embed * values :]
        w1, w2 = w1.unflatten(-1, (w1.shape[-1] // embed, embed)), w2.unflatten(-1, (embed, values))
        members.append((w1, b1, w2, torch.relu(v) @ w_v[k] + b_v[k]))
    w1, b1, w2, v = (torch.stack(each) for each in zip(*members, strict=True))
    return w1, b1, w2, v
