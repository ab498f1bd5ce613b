"""The GRU and the agent around it; see ``emix.ops.recurrent``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gru_sequence(x: Tensor, h0: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """``torch.nn.GRU``'s equations, unrolled over time."""
    h = x.new_zeros(x.shape[0], w_hh.shape[1]) if h0 is None else h0  # [R, H]
    sequence = []
    for step in x.unbind(1):
        from_x_r, from_x_z, from_x_n = functional.linear(step, w_ih, b_ih).chunk(3, -1)  # [R, H] each
        from_h_r, from_h_z, from_h_n = functional.linear(h, w_hh, b_hh).chunk(3, -1)
        r, z = torch.sigmoid(from_x_r + from_h_r), torch.sigmoid(from_x_z + from_h_z)
        n = torch.tanh(from_x_n + r * from_h_n)
        h = (1 - z) * n + z * h
        sequence.append(h)
    return torch.stack(sequence, 1) if sequence else h.unsqueeze(1)[:, :0]


def agent_sequence(
    obs: Tensor,
    last_action: Tensor | None,
    h0: Tensor | None,
    w_encode: Tensor,
    b_encode: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> tuple[Tensor, Tensor]:
    """Concatenate obs, one-hot last action and one-hot id; linear + ReLU, GRU, linear."""
    episodes, steps, agents, _ = obs.shape
    inputs = [obs]
    if last_action is not None:
        classes = torch.arange(w_head.shape[0], device=obs.device)
        inputs.append((last_action.unsqueeze(-1) == classes).to(obs.dtype))  # [B, T, n, A]
    if w_encode.shape[1] > sum(each.shape[-1] for each in inputs):
        inputs.append(torch.eye(agents, dtype=obs.dtype, device=obs.device).expand(episodes, steps, -1, -1))
    e = torch.relu(functional.linear(torch.cat(inputs, -1), w_encode, b_encode))  # [B, T, n, H]
    rows = e.transpose(1, 2).flatten(0, 1)  # [B n, T, H]
    if h0 is None:
        h0 = obs.new_zeros(episodes, agents, w_hh.shape[1])
    h = gru_sequence(rows, h0.flatten(0, 1), w_ih, w_hh, b_ih, b_hh).unflatten(0, (episodes, agents))  # [B, n, T, H]
    return functional.linear(h, w_head, b_head).transpose(1, 2), torch.cat([h0.unsqueeze(2), h], 2)[:, :, -1]
