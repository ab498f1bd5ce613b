"""The hyperparameters of QTRAN-base, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from emix.learners.checks import check_fields
from emix.learners.plan import Plan

TargetKind = Literal["max", "lambda"]

_FRACTIONS = {"td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}


@dataclass(frozen=True)
class QtranConfig:
    """Hyperparameters; the defaults are PyMARL's on SMAC: oxwhirl/pymarl@c971afd, its qtran.yaml and default.yaml."""

    target: TargetKind = "max"
    """"max": one step, the target network's value of the live agents' greedy actions; "lambda": the lambda-return of
    the actions taken (QTRAN-R)."""
    td_lambda: float = 0.8
    """Weight of the longer returns in the target "lambda": SMIX(lambda)'s."""
    gamma: float = 0.99
    """Discount."""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; not in PyMARL on SMAC, where a
    timeout counts as a terminal state."""
    opt_weight: float = 1.0
    """Weight of the loss at the agents' best actions, L_opt."""
    nopt_weight: float = 0.1
    """Weight of the loss at the actions taken, L_nopt."""
    hidden_dim: int = 64
    """Units of the agents' first layer and of their GRU."""
    mixing_embed_dim: int = 64
    """Units of the hidden layers of the joint action's value and of the state's."""
    lr: float = 5e-4
    """Learning rate of RMSprop."""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square."""
    rms_eps: float = 1e-5
    """Added to the root of RMSprop's mean square."""
    grad_norm_clip: float = 10.0
    """The gradient's norm over all parameters is scaled down to this."""
    target_update_episodes: int = 200
    """The target networks become the live ones every so many training episodes."""
    epsilon_start: float = 1.0
    """Probability that an agent acts at random, at the start."""
    epsilon_finish: float = 0.05
    """The same at the end of the annealing and ever after."""
    epsilon_anneal_time: int = 50_000
    """Environment steps over which epsilon falls linearly."""
    plan: Plan = Plan(source="replay", batch_size=32, buffer_size=5000, updates_per_rollout=1)
    """When updates are made and from what."""

    def __post_init__(self) -> None:
        choices, not_negative = {"target": get_args(TargetKind)}, {"opt_weight", "nopt_weight"}
        check_fields(self, choices=choices, fractions=_FRACTIONS, not_negative=not_negative)
        self.plan.require_episodes()
