"""The recurrent agent network of the PyMARL family, one set of weights for all agents."""

from torch import Tensor, nn
from torch.nn import functional


class RecurrentAgent(nn.Module):
    """FC + ReLU -> GRU -> FC over the history of [observation, last action, agent id] (SMIX, section VI-B).

    All agents share the weights; the one-hot id lets them differ. ``encode`` is the linear layer over the
    concatenation [obs, one-hot last action, one-hot id], weight ``[H, O + A + n]``. Its one-hot inputs are never built:
    multiplying by a one-hot vector selects a column.

    Args:
        obs_dim: O, length of one agent's observation.
        n_actions: A, actions of an agent.
        n_agents: n.
        hidden_dim: H, units of the first layer and of the GRU.
    """

    def __init__(self, obs_dim: int, n_actions: int, n_agents: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.input_dims = (obs_dim, n_actions, n_agents)
        self.hidden_dim = hidden_dim
        self.encode = nn.Linear(sum(self.input_dims), hidden_dim)
        self.gru = nn.GRU(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, n_actions)

    def forward(self, obs: Tensor, last_actions: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Action values of T consecutive steps; acting is T = 1.

        Args:
            obs: observations ``[B, T, n, O]``.
            last_actions: the action before each observation, int64 ``[B, T, n]``; A at an episode's first step.
            hidden: GRU state before the first step ``[B, n, H]``; zeros where not given.

        Returns:
            Action values ``[B, T, n, A]`` and the GRU state after the last step ``[B, n, H]``.
        """
        batch, _, n_agents, _ = obs.shape
        from_obs, from_action, from_id = self.encode.weight.split(self.input_dims, dim=1)  # [H, O], [H, A], [H, n]
        action_columns = functional.pad(from_action, (0, 1)).t()  # [A+1, H]: row A, no action yet, adds nothing
        x = (
            functional.linear(obs, from_obs, self.encode.bias)
            + functional.embedding(last_actions, action_columns)
            + from_id.t()
        )
        x = (
            functional.relu(x).transpose(0, 1).flatten(1, 2)
        )  # [T, B*n, H]: the GRU's own order, so that it copies nothing
        if hidden is not None:
            hidden = hidden.reshape(1, batch * n_agents, self.hidden_dim)  # [1, B*n, H]
        features, hidden = self.gru(x, hidden)  # [T, B*n, H], [1, B*n, H]
        q = self.head(features).unflatten(1, (batch, n_agents)).transpose(0, 1)  # [B, T, n, A]
        return q, hidden.reshape(batch, n_agents, self.hidden_dim)
