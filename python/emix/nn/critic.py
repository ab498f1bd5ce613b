"""The critics of DOP and Ensemble-MIX: N networks of one shape, run as one."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class EnsembleCritic(nn.Module):
    """N times FC + ReLU -> FC + ReLU -> the heads a (A units) and v (one unit), Q = a + v, over [state, obs, agent id].

    All agents share a member's weights. Members have the same input, so that their first layers are one matrix product;
    the second layers and the heads are one batched product each. The one-hot id is never built, and what depends on the
    state alone is computed once for all agents. Source: OffPGCritic of TonghanWang/DOP; Ensemble-MIX, eq. 9.

    Each member's weights start as those of ``torch.nn.Linear``.

    Args:
        members: N.
        state_dim: S, length of the state.
        obs_dim: O, length of one agent's observation.
        n_actions: A, actions of an agent.
        n_agents: n.
        hidden_dim: H, units of both hidden layers.
    """

    def __init__(
        self, members: int, state_dim: int, obs_dim: int, n_actions: int, n_agents: int, hidden_dim: int = 256
    ) -> None:
        super().__init__()
        self.input_dims = (state_dim, obs_dim, n_agents)
        self.encode = nn.Linear(sum(self.input_dims), members * hidden_dim)  # member j has the outputs j*H to (j+1)*H
        bound = 1 / math.sqrt(hidden_dim)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.hidden_weight = uniform(members, hidden_dim, hidden_dim)  # [N, in, out]
        self.hidden_bias = uniform(members, 1, hidden_dim)
        self.head_weight = uniform(members, hidden_dim, n_actions + 1)  # a, then v
        self.head_bias = uniform(members, 1, n_actions + 1)

    def forward(self, state: Tensor, obs: Tensor) -> Tensor:
        """Every member's value of every action: state ``[..., S]``, obs ``[..., n, O]`` -> ``[N, ..., n, A]``."""
        from_state, from_obs, from_id = self.encode.weight.split(self.input_dims, dim=1)  # [N*H, S], [N*H, O], [N*H, n]
        shared = functional.linear(state, from_state, self.encode.bias)  # [..., N*H]
        x = (shared.unsqueeze(-2) + from_id.t()).flatten(end_dim=-2)  # [R, N*H], R = ... n
        x = x.addmm_(obs.flatten(end_dim=-2), from_obs.t()).relu_()
        x = x.unflatten(1, (len(self.hidden_weight), -1)).transpose(0, 1)  # [N, R, H]
        x = torch.baddbmm(self.hidden_bias, x, self.hidden_weight).relu_()  # [N, R, H]
        x = torch.baddbmm(self.head_bias, x, self.head_weight)  # [N, R, A+1]
        return (x[..., :-1] + x[..., -1:]).unflatten(1, obs.shape[:-1])  # [N, ..., n, A]
