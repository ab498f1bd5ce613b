"""QTRAN's value of a joint action and of a state."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class JointValue(nn.Module):
    """Q_jt(s, u) = Linear-ReLU-Linear-ReLU-Linear over [state, sum_i e(h_i, u_i)], and V(s) likewise over the state.

    e = Linear-ReLU-Linear of the width of its input, an agent's GRU state and its action, one-hot, which is never
    built: multiplying by a one-hot vector selects a column. Source: Son et al. 2019, "QTRAN", appendix; QTranBase of
    oxwhirl/pymarl ("qtran_paper", "small").

    Args:
        state_dim: S, length of the state.
        n_actions: A, actions of an agent.
        hidden_dim: H, of the agents' GRU.
        embed_dim: E, units of the hidden layers of Q_jt and V.
    """

    def __init__(self, state_dim: int, n_actions: int, hidden_dim: int, embed_dim: int = 64) -> None:
        super().__init__()
        width = hidden_dim + n_actions

        def value(inputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(inputs, embed_dim),
                nn.ReLU(),
                nn.Linear(embed_dim, embed_dim),
                nn.ReLU(),
                nn.Linear(embed_dim, 1),
            )

        self.sizes = (hidden_dim, n_actions)
        self.q = value(state_dim + width)
        self.v = value(state_dim)
        self.encode = nn.Linear(width, width)
        self.encode_head = nn.Linear(width, width)

    def forward(self, state: Tensor, hidden: Tensor, actions: Tensor) -> Tensor:
        """Q_jt ``[...]`` of the state ``[..., S]``, the GRUs' states ``[..., n, H]`` and actions int64 ``[..., n]``."""
        w_hidden, w_action = self.encode.weight.split(self.sizes, dim=1)
        x = functional.linear(hidden, w_hidden, self.encode.bias) + functional.embedding(actions, w_action.t())
        encoding = self.encode_head(x.relu()).sum(-2)  # [..., H + A]
        return self.q(torch.cat([state, encoding], dim=-1)).squeeze(-1)

    def value(self, state: Tensor) -> Tensor:
        """V ``[...]`` of the state ``[..., S]``."""
        return self.v(state).squeeze(-1)
