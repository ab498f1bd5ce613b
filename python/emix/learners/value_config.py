"""The hyperparameters of IQL, VDN, QMIX and SMIX(lambda), with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from emix.learners.checks import check_fields
from emix.learners.plan import Plan

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
