"""The critic of the others' actions, averaged over K of them; see ``emix.ops.marginal``."""

from __future__ import annotations

import torch
from torch import Tensor

from emix.ops.reference.sampling import sample_actions


def marginal_value(
    first: Tensor,
    actions: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> Tensor:
    """Build one-hot joint actions with the own slot 0, and run K forward passes."""
    n, choices, _ = w_action.shape
    if not actions.is_floating_point():
        actions = torch.nn.functional.one_hot(actions.long(), choices)
    others = 1 - torch.eye(n, dtype=first.dtype, device=first.device)  # [n, n]
    joint = actions.detach().to(first.dtype).unsqueeze(-3) * others.unsqueeze(-1)  # [K, ..., n, n, A]
    x = torch.relu(first + joint.flatten(-2) @ w_action.flatten(0, 1))  # [K, ..., n, H]
    y = torch.relu(x @ w_hidden + b_hidden)  # [K, ..., n, H2]
    return (y @ w_head + b_head).mean(0)


def sampled_marginal_value(
    first: Tensor,
    logits: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    avail: Tensor | None = None,
    *,
    samples: int,
    seed: Tensor,
    floor: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Draw, then average; see ``emix.ops.sampled_marginal_value``."""
    actions = sample_actions(logits, avail, seed, samples=samples, floor=floor)
    return marginal_value(first, actions, w_action, w_hidden, b_hidden, w_head, b_head), actions
