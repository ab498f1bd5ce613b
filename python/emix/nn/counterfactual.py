"""The critic that says what every action of an agent would be worth, given what the others do."""

from torch import Tensor, nn
from torch.nn import functional

from emix.nn.multi_agent import selected


class CounterfactualCritic(nn.Module):
    """Linear and ReLU twice, then A values, over [state, observation, the others' actions, last actions, agent id].

    The actions of all n agents take n blocks of A numbers, one-hot, agent i's own block zero; so do the last actions,
    agent i's own among them. All agents share the weights. ``first`` is one linear layer over all of it: its one-hot
    inputs are never built, the columns that they select are added up once for all agents. Source: COMA (Foerster et al.
    2018), section 4 and figure 1c; COMACritic of oxwhirl/pymarl.

    Args:
        state_dim: S, length of the state.
        obs_dim: O, length of one agent's observation.
        n_actions: A, actions of an agent.
        n_agents: n.
        hidden_dim: H, units of both hidden layers.
    """

    def __init__(self, state_dim: int, obs_dim: int, n_actions: int, n_agents: int, hidden_dim: int = 128) -> None:
        super().__init__()
        joint = n_agents * n_actions
        self.sizes = (state_dim, obs_dim, joint, joint, n_agents)
        self.n_agents = n_agents
        self.first = nn.Linear(sum(self.sizes), hidden_dim)
        self.hidden = nn.Linear(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, n_actions)

    def forward(self, state: Tensor, obs: Tensor, actions: Tensor, last_actions: Tensor) -> Tensor:
        """Every agent's values of its own actions, given the others': ``[..., n, A]``.

        Args:
            state: ``[..., S]``.
            obs: ``[..., n, O]``.
            actions: int64 ``[..., n]``.
            last_actions: int64 ``[..., n]``, the actions before; A before the first step.
        """
        w_state, w_obs, w_action, w_last, w_id = self.first.weight.split(self.sizes, dim=1)
        own = selected(self._columns(w_action), actions)  # [..., n, H]
        last = selected(functional.pad(self._columns(w_last), (0, 0, 0, 1)), last_actions)  # [..., n, H]; no action: 0
        shared = functional.linear(state, w_state, self.first.bias) + (own + last).sum(-2)  # [..., H]
        x = shared.unsqueeze(-2) - own + functional.linear(obs, w_obs) + w_id.t()  # [..., n, H]
        return self.head(self.hidden(x.relu()).relu())

    def _columns(self, weight: Tensor) -> Tensor:
        """``[H, n A] -> [n, A, H]``."""
        return weight.t().unflatten(0, (self.n_agents, -1))
