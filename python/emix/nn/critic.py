"""The critics of DOP and Ensemble-MIX: N networks of one shape, run as one."""

import math

import torch
from torch import Tensor, nn

from emix import ops


class EnsembleCritic(nn.Module):
    """N times FC + ReLU -> FC + ReLU -> the heads a (A units) and v (one unit), Q = a + v, over [state, obs, agent id].

    All agents share a member's weights; ``ops.ensemble_critic`` runs all members at once. Each member's weights start
    as those of ``torch.nn.Linear``. Source: OffPGCritic of TonghanWang/DOP; Ensemble-MIX, eq. 9.

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

        def uniform(inputs: int, *shape: int) -> nn.Parameter:
            bound = 1 / math.sqrt(inputs)
            return nn.Parameter(torch.empty(members, *shape).uniform_(-bound, bound))

        inputs = state_dim + obs_dim + n_agents
        self.w_encode = uniform(inputs, inputs, hidden_dim)
        self.b_encode = uniform(inputs, hidden_dim)
        self.w_hidden = uniform(hidden_dim, hidden_dim, hidden_dim)
        self.b_hidden = uniform(hidden_dim, hidden_dim)
        self.w_head = uniform(hidden_dim, hidden_dim, n_actions + 1)  # a, then v
        self.b_head = uniform(hidden_dim, n_actions + 1)

    def forward(self, state: Tensor, obs: Tensor) -> Tensor:
        """Every member's value of every action: state ``[..., S]``, obs ``[..., n, O]`` -> ``[N, ..., n, A]``."""
        return ops.ensemble_critic(
            state, obs, self.w_encode, self.b_encode, self.w_hidden, self.b_hidden, self.w_head, self.b_head
        )
