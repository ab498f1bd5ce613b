"""The recurrent agent network of the PyMARL family, one set of weights for all agents."""

from torch import Tensor, nn
from torch.nn import functional

from emix import ops
from emix._precision import Precision
from emix.nn.gru import GRU


class RecurrentAgent(nn.Module):
    """FC + ReLU -> GRU -> FC over the history of [observation, last action, agent id] (SMIX, section VI-B).

    All agents share the weights; the one-hot id lets them differ. ``encode`` is the linear layer over the
    concatenation [obs, one-hot last action, one-hot id], weight ``[H, O + A + n]``. Its one-hot inputs are never built:
    multiplying by a one-hot vector selects a column. The modules hold the weights; ``ops.agent_sequence`` runs them.

    Args:
        obs_dim: O, length of one agent's observation.
        n_actions: A, actions of an agent.
        n_agents: n.
        hidden_dim: H, units of the first layer and of the GRU, 1 to 256.
        agent_id: whether there is the id; without it all agents act alike on the same history.
        precision: of all its matrix products on CUDA, forward and backward: see ``emix.ops.recurrent``.
    """

    def __init__(
        self,
        obs_dim: int,
        n_actions: int,
        n_agents: int,
        hidden_dim: int = 64,
        *,
        agent_id: bool = True,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.sizes = (obs_dim, n_actions, n_agents if agent_id else 0)
        self.encode = nn.Linear(sum(self.sizes), hidden_dim)
        self.gru = GRU(hidden_dim, hidden_dim, precision=precision)
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
        first, last = self.encode, self.head
        weights = first.weight, first.bias, *self.gru.weights, last.weight, last.bias
        return ops.agent_sequence(obs, last_actions, hidden, *weights, precision=self.precision)

    def unroll(self, obs: Tensor, last_actions: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` from an episode's start with the GRU's state after every step, which the op of ``forward`` keeps
        to itself: action values ``[B, T, n, A]`` and states ``[B, T, n, H]``; ``precision`` is the GRU's alone."""
        w_obs, w_action, w_id = self.encode.weight.split(self.sizes, dim=1)
        columns = functional.pad(w_action.t(), (0, 0, 0, 1))  # [A + 1, H]; no action: 0
        x = functional.linear(obs, w_obs, self.encode.bias) + functional.embedding(last_actions, columns)
        if w_id.numel() > 0:
            x = x + w_id.t()
        rows = self.gru(x.relu().transpose(1, 2).flatten(0, 1))  # [B n, T, H]
        states = rows.unflatten(0, (len(obs), -1)).transpose(1, 2)  # [B, T, n, H]
        return self.head(states), states
