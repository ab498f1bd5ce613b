"""Critics of single agents: N networks of one shape, run as one."""

import math

import torch
from torch import Tensor, nn

from emix import ops
from emix.nn.stacked import StackedLinear


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
        value_head: whether there is the head v; without it Q = a.
    """

    def __init__(
        self,
        members: int,
        state_dim: int,
        obs_dim: int,
        n_actions: int,
        n_agents: int,
        hidden_dim: int = 256,
        value_head: bool = True,
    ) -> None:
        super().__init__()
        self.value_head = value_head

        def uniform(inputs: int, *shape: int) -> nn.Parameter:
            bound = 1 / math.sqrt(inputs)
            return nn.Parameter(torch.empty(members, *shape).uniform_(-bound, bound))

        inputs = state_dim + obs_dim + n_agents
        self.w_encode = uniform(inputs, inputs, hidden_dim)
        self.b_encode = uniform(inputs, hidden_dim)
        self.w_hidden = uniform(hidden_dim, hidden_dim, hidden_dim)
        self.b_hidden = uniform(hidden_dim, hidden_dim)
        self.w_head = uniform(hidden_dim, hidden_dim, n_actions + value_head)  # a, then v
        self.b_head = uniform(hidden_dim, n_actions + value_head)

    def forward(self, state: Tensor, obs: Tensor, actions: Tensor | None = None) -> Tensor:
        """Every member's value of every action: state ``[..., S]``, obs ``[..., n, O]`` -> ``[N, ..., n, A]``; or of
        the given actions ``[..., n]`` -> ``[N, ..., n]``."""
        w_head: Tensor = self.w_head
        b_head: Tensor = self.b_head
        if not self.value_head:  # the op's v is then 0
            w_head, b_head = nn.functional.pad(w_head, (0, 1)), nn.functional.pad(b_head, (0, 1))
        return ops.ensemble_critic(
            state, obs, self.w_encode, self.b_encode, self.w_hidden, self.b_hidden, w_head, b_head, actions
        )


class ActionCritic(nn.Module):
    """N times FC + ReLU -> FC + ReLU -> one unit, the value of an action that is a vector: over [observation, action]
    and, where asked for, the agent's id.

    All agents share a member's weights, which start as those of ``torch.nn.Linear``. Source: FACMACCritic of
    oxwhirl/facmac, which has no id.

    Args:
        members: N.
        obs_dim: O, length of one agent's observation.
        action_dim: D, length of an action.
        n_agents: n.
        hidden_dims: H and H', units of the two hidden layers.
        agent_id: whether a one-hot id lets agents differ.
    """

    def __init__(
        self,
        members: int,
        obs_dim: int,
        action_dim: int,
        n_agents: int,
        hidden_dims: tuple[int, int] = (400, 300),
        agent_id: bool = True,
    ) -> None:
        super().__init__()
        self.n_agents, self.agent_id = n_agents, agent_id
        self.first = StackedLinear(members, obs_dim + action_dim + n_agents * agent_id, hidden_dims[0])
        self.second = StackedLinear(members, *hidden_dims)
        self.head = StackedLinear(members, hidden_dims[1], 1)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Every member's value: obs ``[..., n, O]``, actions ``[..., n, D]`` -> ``[N, ..., n]``."""
        inputs = [obs, actions]
        if self.agent_id:
            inputs.append(torch.eye(self.n_agents, device=obs.device, dtype=obs.dtype).expand(*obs.shape[:-1], -1))
        x = torch.cat(inputs, dim=-1).flatten(0, -2)  # [R, I]
        q = self.head(self.second(self.first(x).relu()).relu())  # [N, R, 1]
        return q.squeeze(-1).unflatten(1, obs.shape[:-1])
