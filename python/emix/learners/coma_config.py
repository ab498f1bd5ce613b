"""The hyperparameters of COMA, with their sources."""

from __future__ import annotations

from dataclasses import dataclass

from emix.learners.checks import check_fields
from emix.learners.plan import Plan

_FRACTIONS = {"td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}


@dataclass(frozen=True)
class ComaConfig:
    """Hyperparameters; the defaults are PyMARL's on SMAC: oxwhirl/pymarl@c971afd, its coma.yaml and default.yaml."""

    td_lambda: float = 0.8
    """lambda of the critic's target, the lambda-return of the actions taken."""
    gamma: float = 0.99
    """Discount."""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; not in PyMARL on SMAC, where a
    timeout counts as a terminal state."""
    hidden_dim: int = 64
    """Units of the agents' first layer and of their GRU."""
    critic_dim: int = 128
    """Units of the critic's two hidden layers."""
    lr: float = 5e-4
    """Learning rate of the policies."""
    critic_lr: float = 5e-4
    """Learning rate of the critic."""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square."""
    rms_eps: float = 1e-5
    """Added to the root of RMSprop's mean square."""
    grad_norm_clip: float = 10.0
    """The policies' and the critic's gradients are scaled down to this norm, each for itself."""
    target_update_interval: int = 200
    """The target critic becomes the live one every so many time steps that the critic learned from."""
    epsilon_start: float = 0.5
    """Floor of the policies, shared by all actions, at the start."""
    epsilon_finish: float = 0.01
    """The same at the end of the annealing and ever after."""
    epsilon_anneal_time: int = 100_000
    """Environment steps over which the floor falls linearly."""
    plan: Plan = Plan(source="fresh", batch_size=8)
    """When updates are made and from what: 8 new episodes, each used once; COMA-R replays them."""

    def __post_init__(self) -> None:
        check_fields(self, choices={}, fractions=_FRACTIONS)
        self.plan.require_episodes()
