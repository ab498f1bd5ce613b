"""Networks of PPO's agents and critics: one set of weights for all agents, told apart by their ids, or one for each.

All but ``ActionCritic`` map inputs ``[B, T, n, I]``, or ``[B, T, I]`` where all agents see the same, and a state before
the first step, ``[B, n, H]`` or None, to ``[B, T, n, outputs]`` and the state after the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from emix import ops
from emix._precision import Precision
from emix.nn.gru import GRU


class InputLayer(nn.Module):
    """The linear layer over [input, one-hot agent id], whose one-hot part is never built.

    Args:
        inputs: I.
        n_agents: n.
        outputs: H.
    """

    def __init__(self, inputs: int, n_agents: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.n_agents = inputs, n_agents
        self.linear = nn.Linear(inputs + n_agents, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, n, I]``, or ``[B, T, I]``, which is multiplied once for all agents -> ``[B, T, n, H]``."""
        w_x, w_id = self.linear.weight.split([self.inputs, self.n_agents], dim=1)
        first = functional.linear(x, w_x, self.linear.bias)
        # Row by row, as the sum then is, too: torch multiplies others state by state.
        return (first.unsqueeze(-2) if x.dim() == 3 else first) + w_id.t().contiguous()


class FeedForward(nn.Module):
    """Linear and ReLU twice, then linear (EPyMARL's), which is one op; or with a LayerNorm of the input and after every
    layer, and a GRU before the last where it is recurrent (on-policy's, Yu et al. 2022).

    Args:
        inputs: I.
        outputs: of an agent.
        n_agents: n.
        hidden_dim: H, of every layer.
        layer_norm: whether there are LayerNorms.
        recurrent: whether there is a GRU.
        precision: of the GRU's matrix products on CUDA: see ``emix.ops.recurrent``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        n_agents: int,
        hidden_dim: int,
        *,
        layer_norm: bool = False,
        recurrent: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()

        def norm(size: int) -> nn.Module:
            return nn.LayerNorm(size) if layer_norm else nn.Identity()

        self.is_one_op = not layer_norm and not recurrent
        self.norm = norm(inputs)
        self.first = InputLayer(inputs, n_agents, hidden_dim)
        self.body = nn.Sequential(
            nn.ReLU(), norm(hidden_dim), nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), norm(hidden_dim)
        )
        self.gru = GRU(hidden_dim, hidden_dim, precision=precision) if recurrent else None
        self.gru_norm = norm(hidden_dim) if recurrent else nn.Identity()
        self.head = nn.Linear(hidden_dim, outputs)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See the module; without a GRU there is no state, and none is returned."""
        if self.is_one_op:
            return self._as_critic(x), None
        y = self.body(self.first(self.norm(x)))  # [B, T, n, H]
        if self.gru is not None:
            b, _, n, _ = y.shape
            rows = y.transpose(1, 2).flatten(0, 1)  # [B n, T, H]
            start = None if hidden is None else hidden.flatten(0, 1)
            rows = self.gru(rows, start)
            y, hidden = rows.unflatten(0, (b, n)).transpose(1, 2), rows[:, -1].unflatten(0, (b, n))
        return self.head(self.gru_norm(y)), hidden

    def _as_critic(self, x: Tensor) -> Tensor:
        """``[B, T, n, outputs]`` by one op: those of a single critic whose v is 0."""
        first, second, head = self.first.linear, cast(nn.Linear, self.body[2]), self.head
        n = self.first.n_agents
        state, obs = (x, x.new_empty(*x.shape[:-1], n, 0)) if x.dim() == 3 else (x.new_empty(*x.shape[:-2], 0), x)
        weights = [first.weight.t(), first.bias, second.weight.t(), second.bias]
        weights += [functional.pad(w, (0, 1)) for w in (head.weight.t(), head.bias)]  # a column for v
        return ops.ensemble_critic(state, obs, *(weight.unsqueeze(0) for weight in weights)).squeeze(0)


class GruNetwork(nn.Module):
    """FC + ReLU -> GRU -> FC over [input, one-hot agent id], one op for all of it: EPyMARL's, without last actions.

    Args:
        inputs: I.
        outputs: of an agent.
        n_agents: n.
        hidden_dim: H.
        precision: of its matrix products on CUDA: see ``emix.ops.recurrent``.
    """

    def __init__(
        self, inputs: int, outputs: int, n_agents: int, hidden_dim: int, *, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.n_agents, self.precision = n_agents, precision
        self.first = nn.Linear(inputs + n_agents, hidden_dim)
        self.gru = GRU(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, outputs)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the module."""
        if x.dim() == 3:
            x = x.unsqueeze(2).expand(-1, -1, self.n_agents, -1)
        weights = self.first.weight, self.first.bias, *self.gru.weights, self.head.weight, self.head.bias
        return ops.agent_sequence(x, None, hidden, *weights, precision=self.precision)


class PerAgent(nn.Module):
    """A network for each agent, nothing shared.

    Args:
        make: makes one of them, for one agent.
        n_agents: n.
    """

    def __init__(self, make: Callable[[], nn.Module], n_agents: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(make() for _ in range(n_agents))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See the module."""
        outputs, states = [], []
        for i, network in enumerate(self.networks):
            own = x if x.dim() == 3 else x[:, :, i : i + 1]
            output, state = network(own, None if hidden is None else hidden[:, i : i + 1])
            outputs.append(output)
            states.append(state)
        return torch.cat(outputs, dim=2), None if states[0] is None else torch.cat(states, dim=1)


class ActionCritic(nn.Module):
    """PERLA's critic: Linear and ReLU twice, then one number, over [input, one-hot agent id, the agents' actions].

    The actions take n blocks of E numbers, one-hot or as they are; agent i's own block is zero, unless ``own`` fills
    it. ``first`` is one linear layer over all of it; its action part is added up from the columns that are selected.

    Args:
        inputs: I.
        encoding: E, numbers that stand for an action.
        discrete: whether actions are integers.
        n_agents: n.
        hidden_dim: H, of both layers.
    """

    def __init__(self, inputs: int, encoding: int, n_agents: int, hidden_dim: int, *, discrete: bool) -> None:
        super().__init__()
        self.inputs, self.encoding, self.n_agents, self.discrete = inputs, encoding, n_agents, discrete
        self.first = nn.Linear(inputs + n_agents + n_agents * encoding, hidden_dim)
        self.hidden = nn.Linear(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, 1)

    def forward(self, x: Tensor, actions: Tensor, own: Tensor | None = None) -> Tensor:
        """The mean over K joint actions of every agent's value, given the others' actions: ``[..., n]``.

        Args:
            x: ``[..., n, I]``, or ``[..., I]`` for all agents.
            actions: integers ``[K, ..., n]``, or ``[K, ..., n, E]``.
            own: what fills the agents' own blocks, without K: integers ``[..., n]``; nothing where not given.
        """
        w_x, w_id, w_action = self._weights()
        first = functional.linear(x, w_x, self.first.bias)
        for_all = x.dim() == actions.dim() - (1 if self.discrete else 2)
        first = (first.unsqueeze(-2) if for_all else first) + w_id  # [..., n, H]
        if own is not None:
            first = first + selected(w_action, own)
        return self._marginal(first, actions, w_action)

    def every_own(self, x: Tensor, actions: Tensor) -> Tensor:
        """``forward`` with each of the A actions as the agents' own: ``[..., n, A]``; x ``[B, T, n, I]`` or
        ``[B, T, I]``, actions ``[K, B, T, n]``."""
        w_x, w_id, w_action = self._weights()
        first = functional.linear(x, w_x, self.first.bias)
        first = (first.unsqueeze(-2) if x.dim() == actions.dim() - 1 else first) + w_id  # [B, T, n, H]
        own = w_action.transpose(0, 1)[:, None, None]  # [A, 1, 1, n, H]
        count = actions.unsqueeze(1).expand(-1, self.encoding, *actions.shape[1:])  # [K, A, B, T, n]
        return self._marginal(first + own, count, w_action).movedim(0, -1)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the first layer: ``[H, I]``, of the ids ``[n, H]``, of the actions ``[n, E, H]``."""
        n, e = self.n_agents, self.encoding
        w_x, w_id, w_action = self.first.weight.split([self.inputs, n, n * e], dim=1)
        return w_x, w_id.t(), w_action.t().unflatten(0, (n, e))

    def _marginal(self, first: Tensor, actions: Tensor, w_action: Tensor) -> Tensor:
        weights = self.hidden.weight.t(), self.hidden.bias, self.head.weight[0], self.head.bias[0]
        return ops.marginal_value(first, actions, w_action, *weights)


def orthogonal_(network: nn.Module, head_gain: float) -> None:
    """Orthogonal weights of gain sqrt 2, the last layer's of ``head_gain``, and biases of 0 (on-policy's)."""
    heads = {id(module.head) for module in network.modules() if hasattr(module, "head")}
    for module in network.modules():
        if isinstance(module, nn.Linear | GRU):
            gain = head_gain if id(module) in heads else 1.0 if isinstance(module, GRU) else math.sqrt(2)
            for name, parameter in module.named_parameters():
                if "bias" in name:
                    nn.init.zeros_(parameter)
                else:
                    nn.init.orthogonal_(parameter, gain)


def selected(w_action: Tensor, actions: Tensor) -> Tensor:
    """Each agent's column of its action: ``[n, A, H]``, ``[..., n]`` -> ``[..., n, H]``."""
    n, a, _ = w_action.shape
    offsets = a * torch.arange(n, device=actions.device)
    # An embedding's gradient is deterministic on a GPU, an index's would be sorted there.
    return functional.embedding(actions.long() + offsets, w_action.reshape(n * a, -1))
