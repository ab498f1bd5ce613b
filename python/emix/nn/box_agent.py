"""The agent network for actions that are vectors: recurrent or not, one set of weights for all agents."""

from typing import cast

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision


class BoxAgent(nn.Module):
    """[observation, last action, agent id] -> FC + ReLU -> FC + ReLU (or a GRU) -> FC, the numbers that make a policy.

    Source: MLPAgent and RNNAgent of oxwhirl/facmac, without their last tanh; ADER, appendix C2.

    Args:
        obs_dim: O, length of one agent's observation.
        action_dim: D, length of an action.
        n_agents: n.
        outputs: numbers for each of the D: 1, or 2 for mean and deviation.
        hidden_dims: H and H', units of the two hidden layers. The GRU, where there is one, has H.
        recurrent: whether the second layer is a GRU over the episode.
        last_action: whether the action before is an input.
        agent_id: whether a one-hot id lets agents differ.
        init_scale: what the last layer starts with is multiplied by this.
        precision: of the GRU's matrix products on CUDA.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        n_agents: int,
        outputs: int,
        hidden_dims: tuple[int, int],
        *,
        recurrent: bool,
        last_action: bool,
        agent_id: bool,
        init_scale: float = 1.0,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.n_agents, self.outputs = n_agents, outputs
        self.last_action, self.agent_id, self.precision = last_action, agent_id, precision
        self.encode = nn.Linear(obs_dim + action_dim * last_action + n_agents * agent_id, hidden_dims[0])
        self.gru = nn.GRU(hidden_dims[0], hidden_dims[0]) if recurrent else None
        self.second = None if recurrent else nn.Linear(*hidden_dims)
        self.head = nn.Linear(hidden_dims[0 if recurrent else 1], outputs * action_dim)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.mul_(init_scale)

    @property
    def memory_dim(self) -> int:
        """Units of the memory that goes from step to step."""
        return 0 if self.gru is None else self.gru.hidden_size

    def forward(self, obs: Tensor, last_actions: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The policies' numbers at T consecutive steps; acting is T = 1.

        Args:
            obs: observations ``[B, T, n, O]``.
            last_actions: the action before each observation, ``[B, T, n, D]``; zeros at an episode's first step.
            hidden: the memory before the first step ``[B, n, memory_dim]``; zeros where not given.

        Returns:
            ``[B, T, n, outputs * D]`` and the memory after the last step ``[B, n, memory_dim]``.
        """
        inputs = [obs, last_actions] if self.last_action else [obs]
        if self.agent_id:
            inputs.append(torch.eye(self.n_agents, device=obs.device, dtype=obs.dtype).expand(*obs.shape[:-1], -1))
        x = self.encode(torch.cat(inputs, dim=-1)).relu()  # [B, T, n, H]
        if self.second is not None:
            no_memory = obs.new_zeros(obs.shape[0], obs.shape[2], 0)
            return self.head(self.second(x).relu()), no_memory
        rows = x.transpose(1, 2).flatten(0, 1)  # [B n, T, H]
        h0 = None if hidden is None else hidden.flatten(0, 1)
        h = ops.gru_sequence(rows, h0, *cast("nn.GRU", self.gru).all_weights[0], precision=self.precision)
        h = h.unflatten(0, (obs.shape[0], self.n_agents))  # [B, n, T, H]
        return self.head(h.transpose(1, 2)), h[:, :, -1]
