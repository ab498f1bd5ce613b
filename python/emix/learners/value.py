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

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Episodes, require_discrete
from emix.learners.learner import BaseLearner
from emix.learners.parts import Optimiser, Parts, Schedule, Target
from emix.learners.plan import Plan
from emix.learners.recurrent_actors import EpsilonGreedyActor
from emix.learners.seeded import seeded
from emix.learners.shared import check_fields, greedy, pick, previous_actions
from emix.nn.agent import RecurrentAgent
from emix.nn.mixer import IndependentMixer, MonotonicMixer, SumMixer
from emix.ops.recurrent import Precision

Mixer = Literal["none", "vdn", "qmix"]
TargetKind = Literal["max", "lambda", "n_step"]

_CHOICES = {"mixer": get_args(Mixer), "target": get_args(TargetKind), "hypernet_layers": (1, 2)}
_FRACTIONS = {"td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}


@dataclass(frozen=True)
class ValueConfig:
    """Hyperparameters; the defaults are SMIX(lambda)'s on SMAC.

    Sources: [P] the paper, section VI-B; [C] its code, chaovven/SMIX@69a0867.
    """

    mixer: Mixer = "qmix"
    """How Q_tot is made of the agents' values: "none" (IQL), "vdn" (their sum), "qmix" (monotonic). [P]"""
    target: TargetKind = "lambda"
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
    positive_weights: bool = True
    """Whether the monotonic mixer takes the absolute values of its weights; False is the ablation without it. [P]"""
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
    plan: Plan = Plan(source="replay", batch_size=32, buffer_size=1500, updates_per_rollout=1)
    """When updates are made and from what; the numbers are [P]'s."""

    def __post_init__(self) -> None:
        check_fields(self, choices=_CHOICES, fractions=_FRACTIONS)
        self.plan.require_episodes()


class ValueLearner(BaseLearner):
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
        require_discrete(spec, "the value learner")
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            networks = nn.ModuleDict(
                {"agent": _make_agent(config, spec, precision), "mixer": _make_mixer(config, spec)}
            )
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.networks = networks.to(self.device)  # theta
        self.targets = Target(self.networks, every=config.target_update_episodes)  # theta^-
        self.optimiser = Optimiser(
            self.networks,
            "rmsprop",
            lr=config.lr,
            alpha=config.rms_alpha,
            eps=config.rms_eps,
            clip=config.grad_norm_clip,
        )
        self.epsilon = Schedule(
            config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time, device=self.device
        )
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = EpsilonGreedyActor(self.networks["agent"], self.epsilon, generator, spec, config.hidden_dim)
        self.parts = Parts(
            networks=self.networks,
            targets=self.targets,
            optimiser=self.optimiser,
            epsilon=self.epsilon,
            generator=generator,
        )

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One gradient step on B episodes (Algorithm 1, lines 13 and 14).

        Returns:
            ``loss``, ``grad_norm`` (before clipping), and over the valid steps ``td_error_abs``, ``q_taken_mean`` and
            ``target_mean``: 0-dim tensors on the device.
        """
        last_actions = previous_actions(batch.actions, self.spec)  # [B, T+1, n]
        q, _ = self.networks["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        q_taken = pick(q, batch.actions)[:, :-1]  # [B, T, n]
        q_tot = self.networks["mixer"](q_taken, batch.state[:, :-1])  # [B, T], or [B, T, n] without a mixer
        y = self._target(batch, last_actions, q.detach())  # as q_tot

        valid = batch.valid if q_tot.dim() == 2 else batch.valid.unsqueeze(-1).expand_as(q_tot)
        count = valid.sum().clamp(min=1)
        error = torch.where(valid, y - q_tot, 0.0)
        loss_sum = error.square().sum()  # eq. 11, below as a mean over the valid steps

        grad_norm = self.optimiser.descend(loss_sum, count)
        with torch.no_grad():
            return {
                "loss": loss_sum / count,
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
        target_q, _ = self.targets.module["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        value = self.targets.module["mixer"](
            pick(target_q, actions), batch.state
        )  # [B, T+1], or [B, T+1, n] without a mixer
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
        self.epsilon.advance(env_steps)
        self.targets.follow(episodes)


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
        positive_weights=config.positive_weights,
    )
