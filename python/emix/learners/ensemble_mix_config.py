"""The hyperparameters of Ensemble-MIX and DOP, with their sources."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

from emix.errors import UsageError
from emix.learners.checks import check_fields
from emix.learners.plan import Plan

CriticUpdate = Literal["per_step", "batched"]
OnTarget = Literal["td_lambda", "retrace"]
Actor = Literal["mixed", "two_steps", "on_policy", "off_policy"]
ActorBatch = Literal["newest", "ring"]
Norm = Literal["bt", "bti"]
OffNorm = Literal["norm", "sum"]
Bonus = Literal["kurtosis", "variance", "none"]
GateOver = Literal["available", "all"]
Optimizer = Literal["rmsprop", "adam"]

_CHOICES = {
    "critic_update": get_args(CriticUpdate),
    "on_target": get_args(OnTarget),
    "actor": get_args(Actor),
    "actor_batch": get_args(ActorBatch),
    "norm": get_args(Norm),
    "off_norm": get_args(OffNorm),
    "bonus": get_args(Bonus),
    "gate_over": get_args(GateOver),
    "optimizer": get_args(Optimizer),
}
_FRACTIONS = {"c", "nu", "td_lambda", "tb_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}
_NOT_NEGATIVE = {"beta", "c1", "c2", "entropy"}
_MOST_MEMBERS = 64  # of the ops


@dataclass(frozen=True)
class EnsembleMixConfig:
    """Hyperparameters; the defaults are Ensemble-MIX's, and its letters are the names.

    Sources: [P] the paper, its appendix B; [DOP] the code of its base, TonghanWang/DOP@2016199, where the paper says
    "as DOP" or nothing; [A] the authors' code, tdanino12/ensemble_ddpg_on_off@7dc5343.
    """

    members: int = 10
    """N: critics in the ensemble; DOP has 1. [P]"""
    c1: float = 0.01
    """C_1: how much kurtosis takes from a next value, eq. 11; 0: no uncertainty weights. [P]"""
    c2: float = 0.001
    """C_2: weight of the diversity in the critics' loss, eq. 16; 0: none. [P]"""
    diversity_limit: float | None = None
    """The diversity's term in the loss, c2 times it, goes no further than this: 0.1 in [A], which at c2 0.001 is a
    diversity of 100; not limited in [P]."""
    bonus: Bonus = "kurtosis"
    """What exploring actors' logits get on top: beta times the members' "kurtosis" where the gate is open, eq. 14, beta
    times their "variance" everywhere (the ablation of fig. 4), or "none". [P]"""
    beta: float = 0.001
    """The bonus's factor. [P]; 1e-4 in [A]"""
    bonus_limit: float | None = None
    """The bonus, times beta, is cut to this: 0.1 in [A]; not limited in [P]."""
    gate_over: GateOver = "available"
    """Actions over which the gate takes the mean of the excess kurtosis, eq. 13: those "available", as the others'
    values were never trained, or "all" as in [A]."""
    actor: Actor = "mixed"
    """Which terms of eq. 12 train the actors: both, weighted by nu; both, each in an optimiser step of its own, the
    off-policy term first ("two_steps" [A], where nu is not used); or one of them alone, as DOP does ("on_policy")."""
    actor_batch: ActorBatch = "newest"
    """The actors' on-policy episodes: the "newest", or as [DOP] draws them, whose buffer of ``on_window`` is a "ring":
    the newest ones where they lie in one piece, else any of the buffer, which with [DOP]'s sizes is half of the
    updates."""
    nu: float = 0.5
    """Share of the off-policy term in eq. 12. [P]"""
    norm: Norm = "bt"
    """The actors' terms are sums over agents, averaged over episodes and steps ("bt", eq. 12), or are averaged over the
    agents, too ("bti", [DOP])."""
    off_norm: OffNorm = "norm"
    """The off-policy term is averaged as ``norm`` says, or is a "sum" over agents, episodes and steps [A]."""
    entropy: float = 0.0
    """Weight of the policies' entropy over its own value; 0: none [P], [DOP]. (PyMARL2's DOP)"""
    c: float | None = None
    """Share of the on-policy batch in the critics' loss, eq. 1. None: all steps of both batches count alike. [DOP]"""
    on_target: OnTarget = "td_lambda"
    """Target of the on-policy batch: eq. 3, or "retrace" (the ablation of fig. 6)."""
    td_lambda: float = 0.8
    """lambda of the on-policy target. [DOP]"""
    tb_lambda: float = 0.93
    """lambda of the tree backup. [DOP]"""
    tb_steps: int = 5
    """m: terms of the tree backup, eq. 2. [DOP]"""
    critic_update: CriticUpdate = "per_step"
    """An optimiser step for each time step of the batch, in ascending order [DOP], or one for all of them."""
    on_batch: int = 16
    """Episodes of the on-policy batch, and of the actors'. The off-policy one is ``plan.batch_size``. [DOP]"""
    on_window: int = 32
    """Newest episodes from which the on-policy batch is drawn; the actors' batch is the newest ones. [P: N_1]"""
    gamma: float = 0.99
    """Discount. [DOP]"""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; not in [DOP], as in all of PyMARL
    on SMAC, where a timeout counts as a terminal state."""
    mixer_bias: bool = False
    """Whether Q_tot has the bias b(s) of eq. 10, which [DOP] makes and does not add."""
    agent_id: bool = True
    """Whether the policies see which agent's they are; not on stag hunt. The critics always do. [DOP]"""
    hidden_dim: int = 64
    """Units of the actor's first layer and of its GRU. [DOP]"""
    critic_dim: int = 256
    """Units of each critic's two hidden layers. [DOP]"""
    mixing_embed_dim: int = 32
    """Width of the mixer. [DOP]"""
    optimizer: Optimizer = "rmsprop"
    """"rmsprop" [DOP] or "adam" (PyMARL2's DOP), for actors and critics."""
    lr: float = 5e-4
    """Learning rate of the actors. [DOP]"""
    critic_lr: float = 1e-4
    """Learning rate of critics and mixer. [DOP]"""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square. [DOP]"""
    rms_eps: float = 1e-5
    """Added to the root of RMSprop's mean square. [DOP]"""
    grad_norm_clip: float = 20.0
    """The actors' and the critics' gradients are scaled down to this norm, each for itself. [DOP]"""
    target_update_interval: int = 600
    """The target networks become the live ones every so many time steps that the critics learned from. [DOP]"""
    epsilon_start: float = 0.5
    """Floor of the policies, shared by all actions, at the start. [DOP]"""
    epsilon_finish: float = 0.05
    """The same at the end of the annealing and ever after. [DOP]"""
    epsilon_anneal_time: int = 500_000
    """Environment steps over which the floor falls linearly. [DOP]"""
    test_sample: bool = False
    """Whether actors draw from their softmax in tests, as [P] says, in place of the likeliest action. [DOP]"""

    plan: Plan = Plan(source="replay", batch_size=32, buffer_size=5000, updates_per_rollout=1)
    """When updates are made and from what: ``batch_size`` off-policy episodes of the newest ``buffer_size``. [P]"""

    def __post_init__(self) -> None:
        check_fields(self, choices=_CHOICES, fractions=_FRACTIONS, not_negative=_NOT_NEGATIVE)
        self.plan.require_episodes()
        if self.members > _MOST_MEMBERS:
            raise UsageError(f"members: expected at most {_MOST_MEMBERS}, got {self.members}")
        if self.members < 2 and (self.bonus != "none" or self.c1 > 0 or self.c2 > 0):
            raise UsageError(
                f"members: expected at least 2 for an ensemble, got {self.members}; "
                f"a single critic (dop) goes with bonus none, c1 0 and c2 0"
            )
        if self.on_window < self.on_batch:
            raise UsageError(f"on_window: expected at least on_batch ({self.on_batch}), got {self.on_window}")
        if self.bonus == "kurtosis" and self.members < 5:
            warnings.warn(
                f"members={self.members}: the kurtosis of fewer than 5 values is never above 3, "
                f"so that the exploration gate stays shut; take 5 or more, or bonus none",
                stacklevel=3,
            )
