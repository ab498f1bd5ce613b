"""The hyperparameters of FACMAC, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from emix.data import EnvSpec, require_box
from emix.errors import UsageError
from emix.learners.checks import check_fields
from emix.learners.plan import Plan

OptimizerKind = Literal["adam", "rmsprop"]

_CHOICES = {"optimizer": get_args(OptimizerKind), "hypernet_layers": (1, 2)}


@dataclass(frozen=True)
class FacmacConfig:
    """Hyperparameters; the defaults are FACMAC's on multi-agent MuJoCo.

    Source: [C] the code, oxwhirl/facmac@d7e62b8, facmac_mujoco.yaml and its learner.
    """

    vectors_only: ClassVar[bool] = True  # what measures learners at SMAC's sizes leaves it out

    gamma: float = 0.99
    """Discount. [C]"""
    bootstrap_truncated: bool = True
    """Whether a step that the time limit ends bootstraps from the next observation. [C]"""
    action_noise: float = 0.1
    """Standard deviation of the exploration's normal noise, of actions scaled to [-1, 1]. [C]"""
    action_penalty: float = 1e-3
    """Weight of the mean square of the actions in the policies' loss; 0: none. [C]"""
    recurrent: bool = False
    """Whether policies have a GRU; it learns from episodes. [C]: on predator-prey."""
    agent_id: bool = False
    """Whether policies see which agent it is. [C]: on predator-prey."""
    critic_agent_id: bool = False
    """Whether critics do. [C]: never."""
    last_action: bool = False
    """Whether policies see the action before. [C]: on predator-prey."""
    hidden_dim: int = 400
    """Units of the policies' first layer and of the GRU. [C]"""
    second_dim: int = 400
    """Units of the second layer of policies without a GRU: 300 as ADER's paper has it. [C]"""
    critic_dim: int = 400
    """Units of the critic's first layer. [C]"""
    critic_second_dim: int = 400
    """Units of the critic's second layer: 300 as ADER's paper has it. [C]"""
    mixing_embed_dim: int = 64
    """Width of the mixer's hidden layer. [C]"""
    hypernet_layers: int = 2
    """1: the mixer's weights are linear in the state; 2: through a hidden layer [C]."""
    hypernet_dim: int = 64
    """Units of that hidden layer. [C]"""
    optimizer: OptimizerKind = "adam"
    """Of policies and critic. [C]"""
    optimizer_eps: float = 0.01
    """Added to the root of the optimiser's mean square. [C]"""
    lr: float = 1e-3
    """Learning rate of the policies. [C]"""
    critic_lr: float = 1e-3
    """Learning rate of critic and mixer. [C]"""
    grad_norm_clip: float = 0.5
    """The policies' and the critic's gradients are scaled down to this norm, each for itself. [C]"""
    target_tau: float = 0.001
    """Share of the live networks that each update mixes into the targets, policies among them. [C]"""
    plan: Plan = Plan(
        unit="transition",
        batch_size=100,
        buffer_size=1_000_000,
        updates_per_rollout=0,
        updates_per_step=1,
        random_steps=10_000,
    )
    """When updates are made and from what. [C]"""

    def __post_init__(self) -> None:
        not_negative = {"action_noise", "action_penalty"}
        check_fields(self, choices=_CHOICES, fractions={"gamma", "target_tau"}, not_negative=not_negative)
        if self.recurrent and self.plan.unit == "transition":
            raise UsageError("recurrent: policies with a memory learn from episodes: take plan.unit episode")

        if self.last_action and self.plan.unit == "transition":
            raise UsageError("last_action: a single step does not know the action before: take plan.unit episode")

    def check(self, spec: EnvSpec) -> None:
        """Raise UsageError where it does not go with the environment."""
        require_box(spec, "FACMAC")
