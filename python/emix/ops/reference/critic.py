"""The ensemble of critics; see ``emix.ops.critic``."""

from __future__ import annotations

import torch
from torch import Tensor


def ensemble_critic(
    state: Tensor,
    obs: Tensor,
    w_encode: Tensor,
    b_encode: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    actions: Tensor | None = None,
) -> Tensor:
    """Concatenate state, obs and one-hot id; each member in a loop."""
    agents = obs.shape[-2]
    ids = torch.eye(agents, dtype=obs.dtype, device=obs.device).expand(*obs.shape[:-1], agents)
    states = state.unsqueeze(-2).expand(*obs.shape[:-1], state.shape[-1])
    inputs = torch.cat([states, obs, ids], -1)  # [..., n, S + O + n]
    members = []
    for member in range(len(w_encode)):
        x = torch.relu(inputs @ w_encode[member] + b_encode[member])  # [..., n, H]
        y = torch.relu(x @ w_hidden[member] + b_hidden[member])
        head = y @ w_head[member] + b_head[member]  # [..., n, A + 1]
        members.append(head[..., :-1] + head[..., -1:])
    q = torch.stack(members)  # [N, ..., n, A]
    if actions is None:
        return q
    taken = torch.where(torch.arange(q.shape[-1], device=q.device) == actions.unsqueeze(-1), q, 0.0).sum(-1)
    return taken.masked_fill((actions < 0) | (actions >= q.shape[-1]), torch.nan)
