"""Mixers: from the agents' values of their taken actions to the value of the joint action."""

import torch
from torch import Tensor, nn

from emix import ops


class IndependentMixer(nn.Module):
    """No mixing: each agent keeps a value of its own (IQL)."""

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[..., n] -> [..., n]``; the state is not used."""
        return q


class SumMixer(nn.Module):
    """Q_tot = sum_i Q_i (VDN, Sunehag et al. 2018)."""

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[..., n] -> [...]``; the state is not used."""
        return q.sum(-1)


class LinearMixer(nn.Module):
    """Q_tot = sum_i m_i(s) Q_i + b(s) with m_i >= 0 that sum to 1 (DOP; Ensemble-MIX, eq. 10 without its weights k_i).

    m_i is u_i = sum_e |W1(s)|_ie |w2(s)|_e divided by the sum over agents; W1 and w2 are linear in the state.

    Args:
        n_agents: n.
        state_dim: S.
        embed_dim: E.
        bias: whether there is a b(s) = Linear-ReLU-Linear: it is in both papers, but not in DOP's code.
    """

    def __init__(self, n_agents: int, state_dim: int, embed_dim: int = 32, bias: bool = False) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.w1 = nn.Linear(state_dim, n_agents * embed_dim)
        self.w2 = nn.Linear(state_dim, embed_dim)
        self.v = nn.Sequential(nn.Linear(state_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, 1)) if bias else None

    def weights(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[..., S] ->`` m ``[..., n]`` and b ``[...]``, None without a bias."""
        w1 = self.w1(state).unflatten(-1, (self.n_agents, -1)).abs()  # [..., n, E]
        u = (w1 @ self.w2(state).abs().unsqueeze(-1)).squeeze(-1)  # [..., n]
        return u / (u.sum(-1, keepdim=True) + 1e-10), None if self.v is None else self.v(state).squeeze(-1)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[..., n]``, state ``[..., S]`` -> Q_tot ``[...]``."""
        return ops.linear_mix(q, *self.weights(state))


class MonotonicMixer(nn.Module):
    """Q_tot = ELU(q |W1(s)| + b1(s)) |w2(s)| + V(s): rises with every Q_i (QMIX, Rashid et al. 2018).

    Hypernetworks make W1, b1, w2 and V from the state: b1 is one linear layer, V = Linear-ReLU-Linear.

    Args:
        n_agents: n.
        state_dim: S.
        embed_dim: E, width of the mixer's hidden layer.
        hypernet_layers: 1, one linear layer makes W1 and w2 (SMIX, PyMARL's first version), or 2, with a hidden layer
            of ``hypernet_dim`` units between (PyMARL now).
        init_scale: what W1, b1, w2 and V are multiplied by at the start. At 1 (PyMARL) Q_tot starts far from 0 where
            states are large: near 8 on a grid's coordinates.
    """

    def __init__(
        self,
        n_agents: int,
        state_dim: int,
        embed_dim: int = 32,
        hypernet_layers: int = 1,
        hypernet_dim: int = 64,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()

        def hypernet(out_features: int) -> nn.Module:
            if hypernet_layers == 1:
                return nn.Linear(state_dim, out_features)
            return nn.Sequential(nn.Linear(state_dim, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, out_features))

        self.n_agents = n_agents
        self.w1 = hypernet(n_agents * embed_dim)
        self.b1 = nn.Linear(state_dim, embed_dim)
        self.w2 = hypernet(embed_dim)
        self.v = nn.Sequential(nn.Linear(state_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, 1))
        with torch.no_grad():
            for net in (self.w1, self.b1, self.w2, self.v):
                last = net[-1] if isinstance(net, nn.Sequential) else net
                for parameter in last.parameters():
                    parameter.mul_(init_scale)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[..., n]``, state ``[..., S]`` -> Q_tot ``[...]``."""
        w1 = self.w1(state).unflatten(-1, (self.n_agents, -1))  # [..., n, E]
        return ops.monotonic_mix(q, w1, self.b1(state), self.w2(state), self.v(state).squeeze(-1))  # [...]
