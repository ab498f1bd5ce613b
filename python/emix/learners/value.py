"""IQL, VDN, QMIX and SMIX(lambda): one value learner, a mixer times a target.

============  =====  ===========  ==========================================================================
method        mixer  target       source
============  =====  ===========  ==========================================================================
SMIX(lambda)  qmix   lambda       Yao et al., "SMIX(lambda): Enhancing Centralized Value Functions for
                                  Cooperative Multi-Agent Reinforcement Learning"; the numbers of equations,
                                  sections and lines of Algorithm 1 below are this paper's
SMIX(n)       qmix   n_step       the same, section VI-F
QMIX          qmix   max          Rashid et al. 2018, as in oxwhirl/pymarl
VDN, VDN-R    vdn    max, lambda  Sunehag et al. 2018; with SMIX's target
IQL, IQL-R    none   max, lambda  Tan 1993, as in oxwhirl/pymarl; with SMIX's target
============  =====  ===========  ==========================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from emix import ops
from emix.learners import shared
from emix.learners.episodes import Episodes, EpisodeSource
from emix.learners.shared import Memory, check_fields, greedy, initial_memory, pick, previous_actions, section
from emix.nn.agent import RecurrentAgent
from emix.nn.mixer import IndependentMixer, MonotonicMixer, SumMixer
from emix.ops.recurrent import Precision

if TYPE_CHECKING:
    from emix.envs.core import EnvSpec, Step

Mixer = Literal["none", "vdn", "qmix"]
Target = Literal["max", "lambda", "n_step"]

_CHOICES = {"mixer": get_args(Mixer), "target": get_args(Target), "hypernet_layers": (1, 2)}
_FRACTIONS = {"td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}


@dataclass(frozen=True)
class ValueConfig:
    """Hyperparameters; the defaults are SMIX(lambda)'s on SMAC.

    Sources: [P] the paper, section VI-B; [C] its code, chaovven/SMIX@69a0867.
    """

    mixer: Mixer = "qmix"
    """How Q_tot is made of the agents' values: "none" (IQL), "vdn" (their sum), "qmix" (monotonic). [P]"""
    target: Target = "lambda"
    """"lambda": lambda-return of taken actions, eq. 9 [P]; "n_step": their n-step return; "max": double Q-learning."""
    td_lambda: float = 0.8
    """Weight of the longer returns in the target "lambda": 0 is one step, 1 Monte Carlo. [P]"""
    n_step: int = 4
    """Steps of the target "n_step": the paper's best on 3s5z (16 on 2s_vs_1sc). [P, Fig. 7]"""
    gamma: float = 0.99
    """Discount. [P]"""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; not in [C], as in all of PyMARL on
    SMAC, where a timeout counts as a terminal state."""
    hidden_dim: int = 64
    """Units of the agent's first layer and of its GRU. [P]"""
    mixing_embed_dim: int = 32
    """Width of the monotonic mixer's hidden layer. [C]"""
    hypernet_layers: int = 1
    """1: the mixer's weights are linear in the state [C]; 2: through a hidden layer (PyMARL's QMIX now)."""
    hypernet_dim: int = 64
    """Units of that hidden layer. (PyMARL)"""
    mixer_init_scale: float = 1.0
    """The monotonic mixer's weights are multiplied by this at the start; 1 in [C], less where states are large."""
    lr: float = 5e-4
    """Learning rate of RMSprop. [P]"""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square. [P]"""
    rms_eps: float = 1e-5
    """Added to the root of RMSprop's mean square. [C]"""
    grad_norm_clip: float = 10.0
    """The gradient's norm over all parameters is scaled down to this. [C]"""
    target_update_episodes: int = 200
    """The target networks become the live ones every so many training episodes. [P]"""
    epsilon_start: float = 1.0
    """Probability that an agent acts at random, at the start. [P]"""
    epsilon_finish: float = 0.05
    """The same at the end of the annealing and ever after. [P]"""
    epsilon_anneal_time: int = 50_000
    """Environment steps over which epsilon falls linearly. [P]"""

    def __post_init__(self) -> None:
        check_fields(self, choices=_CHOICES, fractions=_FRACTIONS)


class ValueLearner:
    """Learns Q_tot(s, a) from replayed episodes; each agent acts on its own Q_i (section IV).

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of exploration; torch's global random state is neither used nor changed.
        precision: of the agent networks' matrix products on CUDA, live and target.
    """

    capturable = True

    def __init__(
        self,
        config: ValueConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            networks = nn.ModuleDict(
                {"agent": _make_agent(config, spec, precision), "mixer": _make_mixer(config, spec)}
            )
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.networks = networks.to(self.device)  # theta
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)  # theta^-
        self.generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.optimizer = torch.optim.RMSprop(
            self.networks.parameters(),
            lr=config.lr,
            alpha=config.rms_alpha,
            eps=config.rms_eps,
            capturable=self.device.type == "cuda",
        )
        self._epsilon = shared.Epsilon(config, self.device)
        self.episodes = 0
        self.target_updated_at = 0  # episodes

    @property
    def epsilon(self) -> float:
        """Probability that an agent acts at random while exploring."""
        return self._epsilon.value

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode in each of E environments."""
        return initial_memory(num_envs, self.spec, self.config.hidden_dim, self.device)

    @torch.no_grad()
    def act(self, step: Step, memory: Memory, *, explore: bool) -> tuple[Tensor, Memory]:
        """Choose every agent's action: epsilon-greedy while exploring (Algorithm 1, line 6), else greedy.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing random is used.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory.
        """
        q, hidden = self.networks["agent"](step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        actions = greedy(q.squeeze(1), step.avail)  # [E, n]
        if explore:
            scores = torch.rand(step.avail.shape, generator=self.generator, device=self.device)  # [E, n, A]
            coins = torch.rand(actions.shape, generator=self.generator, device=self.device)  # [E, n]
            actions = torch.where(coins < self._epsilon.tensor, greedy(scores, step.avail), actions)
        return actions, Memory(hidden, actions)

    def draw(self, replay: EpisodeSource, episodes: int) -> Episodes:
        """Any of the replayed episodes."""
        return replay.sample(episodes)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One gradient step on B episodes (Algorithm 1, lines 13 and 14).

        Returns:
            ``loss``, ``grad_norm`` (before clipping), and over the valid steps ``td_error_abs``, ``q_taken_mean`` and
            ``target_mean``: 0-dim tensors on the device.
        """
        last_actions = previous_actions(batch.actions, self.spec.n_actions)  # [B, T+1, n]
        q, _ = self.networks["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        q_taken = pick(q, batch.actions)[:, :-1]  # [B, T, n]
        q_tot = self.networks["mixer"](q_taken, batch.state[:, :-1])  # [B, T], or [B, T, n] without a mixer
        y = self._target(batch, last_actions, q.detach())  # as q_tot

        valid = batch.valid if q_tot.dim() == 2 else batch.valid.unsqueeze(-1).expand_as(q_tot)
        count = valid.sum().clamp(min=1)
        error = torch.where(valid, y - q_tot, 0.0)
        loss = error.square().sum() / count  # eq. 11, as a mean over the valid steps

        grad_norm = shared.descend(self.optimizer, self.networks, loss, self.config.grad_norm_clip)
        with torch.no_grad():
            return {
                "loss": loss.detach(),
                "grad_norm": grad_norm,
                "td_error_abs": error.abs().sum() / count,
                "q_taken_mean": torch.where(valid, q_tot, 0.0).sum() / count,
                "target_mean": torch.where(valid, y, 0.0).sum() / count,
            }

    @torch.no_grad()
    def _target(self, batch: Episodes, last_actions: Tensor, q: Tensor) -> Tensor:
        """y of every step, ``[B, T]`` or ``[B, T, n]``, by the targets; q ``[B, T+1, n, A]`` is the live network's."""
        config = self.config
        # The max target evaluates the live network's greedy actions (double Q-learning). The others evaluate the
        # actions that were taken: a sample of eq. 9's expectation, off-policy without correction.
        actions = greedy(q, batch.avail) if config.target == "max" else batch.actions  # [B, T+1, n]
        target_q, _ = self.targets["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        value = self.targets["mixer"](pick(target_q, actions), batch.state)  # [B, T+1], or [B, T+1, n] without a mixer
        if config.target == "lambda":  # eq. 9
            returns = partial(ops.lambda_returns, lam=config.td_lambda)
        else:
            returns = partial(ops.n_step_returns, n=config.n_step if config.target == "n_step" else 1)
        terminated = batch.terminated if config.bootstrap_truncated else batch.terminated | batch.truncated  # [B, T]
        return returns(
            batch.reward, terminated, value, gamma=config.gamma, truncated=batch.truncated, valid=batch.valid
        )

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: epsilon falls, and the targets are renewed when due (line 15).

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self._epsilon.env_steps += env_steps
        self.episodes += episodes
        if self.episodes - self.target_updated_at >= self.config.target_update_episodes:
            self.targets.load_state_dict(self.networks.state_dict())  # copies into the tensors that a CUDA graph knows
            self.target_updated_at = self.episodes

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides what comes next, flat: after ``load_state_dict`` training goes on bit for bit.

        As in torch, the networks' tensors are the live ones: save or copy them before the next update.
        """
        state = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        state |= {f"targets.{name}": value for name, value in self.targets.state_dict().items()}
        state |= shared.optimizer_state("optimizer", self.optimizer, self.networks.named_parameters())
        state["counters"] = torch.tensor([self._epsilon.env_steps, self.episodes, self.target_updated_at])
        state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a ``state_dict`` of a learner with the same config and environment.

        Raises:
            UsageError: a tensor is missing, unknown or of another shape; nothing is changed then.
        """
        shared.refuse_foreign_state(self.state_dict(), state, self.spec.name)
        self.networks.load_state_dict(section(state, "networks."))
        self.targets.load_state_dict(section(state, "targets."))
        shared.load_optimizer_state("optimizer", self.optimizer, self.networks.named_parameters(), state)
        self._epsilon.env_steps, self.episodes, self.target_updated_at = state["counters"].tolist()
        self.generator.set_state(state["generator"].cpu())


def _make_agent(config: ValueConfig, spec: EnvSpec, precision: Precision) -> nn.Module:
    return RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim, precision=precision)


def _make_mixer(config: ValueConfig, spec: EnvSpec) -> nn.Module:
    if config.mixer == "none":
        return IndependentMixer()
    if config.mixer == "vdn":
        return SumMixer()
    return MonotonicMixer(
        spec.n_agents,
        spec.state_dim,
        embed_dim=config.mixing_embed_dim,
        hypernet_layers=config.hypernet_layers,
        hypernet_dim=config.hypernet_dim,
        init_scale=config.mixer_init_scale,
    )
