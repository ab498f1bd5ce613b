"""How PPO's agents act, and their networks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from emix._precision import Precision
from emix.data import Discrete, EnvSpec, Step
from emix.learners.learner import Acted, BaseActor
from emix.learners.parts import Parts
from emix.learners.policies import Categorical, Gaussian, Policy
from emix.learners.ppo_config import Network, PPOConfig
from emix.nn.multi_agent import FeedForward, GruNetwork, PerAgent, orthogonal_


class ActorNetworks(nn.Module):
    """theta: the network of all agents, or one for each, and what else their policies have."""

    def __init__(self, config: PPOConfig, spec: EnvSpec, precision: Precision) -> None:
        super().__init__()
        self.policy = _make_policy(config, spec)
        self.network = make_network(config, config.network, spec.obs_dim, self.policy.outputs, spec.n_agents, precision)
        if config.init == "orthogonal":
            orthogonal_(self.network, config.gain)

    def forward(self, obs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``[B, T, n, O]`` -> what the policy reads, ``[B, T, n, outputs]``, and the GRU's state ``[B, n, H]``."""
        return self.network(obs, hidden)


def make_network(
    config: PPOConfig, kind: Network, inputs: int, outputs: int, n_agents: int, precision: Precision
) -> nn.Module:
    """One network for all agents, or one for each."""

    def make(agents: int) -> nn.Module:
        sizes = (inputs, outputs, agents, config.hidden_dim)
        if kind == "gru" and not config.layer_norm:
            return GruNetwork(*sizes, precision=precision)
        recurrent = kind == "gru"
        return FeedForward(*sizes, layer_norm=config.layer_norm, recurrent=recurrent, precision=precision)

    return make(n_agents) if config.share else PerAgent(partial(make, 1), n_agents)


class PPOActor(BaseActor):
    """Draws from the policies; tests do, too, or take the likeliest actions.

    Args:
        networks: of the agents.
        config: hyperparameters.
        spec: sizes of the environment.
        device: where they live.
        seeds: of the draws while exploring and in tests.
    """

    def __init__(
        self,
        networks: ActorNetworks,
        config: PPOConfig,
        spec: EnvSpec,
        device: torch.device,
        seeds: tuple[int, int],
    ) -> None:
        self.networks, self.spec, self.device = networks, spec, device
        self.hidden_dim = config.hidden_dim if config.network == "gru" else None
        self.test_sample = config.test_sample
        self.record = networks.policy.record
        self.generator, self.test_generator = (torch.Generator(device).manual_seed(seed) for seed in seeds)
        self.parts = Parts(networks=networks, generator=self.generator, test_generator=self.test_generator)

    def initial_memory(self, num_envs: int) -> Tensor | None:
        """The GRU's state ``[E, n, H]``, zeros, at the start of an episode in each of E environments; else None."""
        if self.hidden_dim is None:
            return None
        return torch.zeros(num_envs, self.spec.n_agents, self.hidden_dim, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def act(self, step: Step, memory: Tensor | None, *, explore: bool) -> Acted:
        """Choose every agent's action.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing is drawn from there.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), or ``[E, n, D]``; the next memory; and
            what the update needs of them, ``log_prob`` ``[E, n]`` first.
        """
        outputs, memory = self.networks(step.obs.unsqueeze(1), memory)
        generator = self.generator if explore else self.test_generator if self.test_sample else None
        drawn = self.networks.policy.draw(outputs.squeeze(1), step.avail, generator)
        return Acted(drawn.actions, memory, drawn.record)


def _make_policy(config: PPOConfig, spec: EnvSpec) -> Policy:
    if isinstance(spec.action, Discrete):
        return Categorical(spec.action, spec.n_agents)
    return Gaussian(
        spec.action,
        spec.n_agents,
        squash=config.distribution == "tanh_gaussian",
        log_std_init=config.log_std_init,
        share=config.share,
    )
