"""Mixers: from the agents' values of their taken actions to the value of the joint action."""

import torch
from torch import Tensor, nn

from emix import ops
from emix.nn.stacked import StackedLinear


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

    m_i is ``u_i = sum_e |W1(s)|_ie |w2(s)|_e`` divided by the sum over agents; W1 and w2 are linear in the state.

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
    """``Q_tot = ELU(q |W1(s)| + b1(s)) |w2(s)| + V(s)``: rises with every Q_i (QMIX, Rashid et al. 2018).

    Hypernetworks make W1, b1, w2 and V from the state: b1 is one linear layer, V = Linear-ReLU-Linear.

    Args:
        n_agents: n.
        state_dim: S.
        embed_dim: E, width of the mixer's hidden layer.
        hypernet_layers: 1, one linear layer makes W1 and w2 (SMIX, PyMARL's first version), or 2, with a hidden layer
            of ``hypernet_dim`` units between (PyMARL now).
        init_scale: what W1, b1, w2 and V are multiplied by at the start. At 1 (PyMARL) Q_tot starts far from 0 where
            states are large: near 8 on a grid's coordinates.
        positive_weights: whether the absolute values of W1 and w2 are taken. Without, Q_tot may fall where a Q_i rises.
    """

    def __init__(
        self,
        n_agents: int,
        state_dim: int,
        embed_dim: int = 32,
        hypernet_layers: int = 1,
        hypernet_dim: int = 64,
        init_scale: float = 1.0,
        positive_weights: bool = True,
    ) -> None:
        super().__init__()

        def hypernet(out_features: int) -> nn.Module:
            if hypernet_layers == 1:
                return nn.Linear(state_dim, out_features)
            return nn.Sequential(nn.Linear(state_dim, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, out_features))

        self.n_agents, self.positive_weights = n_agents, positive_weights
        self.w1 = hypernet(n_agents * embed_dim)
        self.b1 = nn.Linear(state_dim, embed_dim)
        self.w2 = hypernet(embed_dim)
        self.v = nn.Sequential(nn.Linear(state_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, 1))
        with torch.no_grad():
            for net in (self.w1, self.b1, self.w2, self.v):
                last = net[-1] if isinstance(net, nn.Sequential) else net
                for parameter in last.parameters():
                    parameter.mul_(init_scale)

    def weights(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[..., S] ->`` w1 ``[..., n, E]``, b1 and w2 ``[..., E]``, v ``[...]``, as ``ops.monotonic_mix`` takes
        them."""
        w1 = self.w1(state).unflatten(-1, (self.n_agents, -1))  # [..., n, E]
        return w1, self.b1(state), self.w2(state), self.v(state).squeeze(-1)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[..., n]``, state ``[..., S]`` -> Q_tot ``[...]``."""
        if self.positive_weights:
            return ops.monotonic_mix(q, *self.weights(state))  # [...]
        w1, b1, w2, v = self.weights(state)
        hidden = nn.functional.elu((q.unsqueeze(-2) @ w1).squeeze(-2) + b1)  # [..., E]
        return (hidden * w2).sum(-1) + v


class MixerEnsemble(nn.Module):
    """N monotonic mixers with weights of their own, run as one, each with one value or with m of them.

    One value is ``MonotonicMixer``'s. m values share the hidden layer: ``ELU(q |W1(s)| + b1(s)) |W2(s)| + V(s)``, W2(s)
    of m columns; each rises with every Q_i. That is the mixer of ADER's entropy critics, with a value for each agent's
    entropy; the published code has one module from n utilities to n values, whose body is not in what is stored of it.

    The hypernetworks' first layers, of all members, are one product.

    Args:
        members: N.
        n_agents: n.
        state_dim: S.
        outputs: m; None for one value, without an axis of its own.
        embed_dim: E, width of the mixers' hidden layers.
        hypernet_layers: see ``MonotonicMixer``.
        hypernet_dim: see ``MonotonicMixer``.
    """

    def __init__(
        self,
        members: int,
        n_agents: int,
        state_dim: int,
        outputs: int | None = None,
        *,
        embed_dim: int = 32,
        hypernet_layers: int = 2,
        hypernet_dim: int = 64,
    ) -> None:
        super().__init__()
        self.members, self.n_agents, self.outputs, self.embed_dim = members, n_agents, outputs, embed_dim
        self.sizes = (n_agents * embed_dim, embed_dim * (outputs or 1), outputs or 1)  # of W1, W2 and V
        deep = hypernet_layers == 2
        self.hidden = (hypernet_dim, hypernet_dim) if deep else self.sizes[:2]  # of the first layers of W1 and W2
        self.first = nn.Linear(state_dim, members * (2 * embed_dim + sum(self.hidden)))  # b1; V's, W1's and W2's hidden
        self.v = StackedLinear(members, embed_dim, self.sizes[2])
        self.w1 = StackedLinear(members, hypernet_dim, self.sizes[0]) if deep else None
        self.w2 = StackedLinear(members, hypernet_dim, self.sizes[1]) if deep else None

    def weights(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[..., S] ->`` w1 ``[N, ..., n, E]``, b1 ``[N, ..., E]``, w2 ``[N, ..., E]`` and v ``[N, ...]``, as
        ``ops.monotonic_mix`` takes them; of m values w2 ``[N, ..., E, m]`` and v ``[N, ..., m]``."""
        first = self.first.weight.unflatten(0, (self.members, -1)), self.first.bias.unflatten(0, (self.members, -1))
        layers = [layer for layer in (self.v, self.w1, self.w2) if layer is not None]
        second = [each for layer in layers for each in (layer.weight, layer.bias.squeeze(1))]
        w1, b1, w2, v = ops.monotonic_weights(state, *first, *second)
        return (w1, b1, w2.squeeze(-1), v.squeeze(-1)) if self.outputs is None else (w1, b1, w2, v)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """``[N, ..., n]``, state ``[..., S]`` -> ``[N, ...]``, or ``[N, ..., m]``."""
        return ops.monotonic_mix(q, *self.weights(state))
