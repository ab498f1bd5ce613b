"""The hyperparameters of ADER and of what it is compared with, with their sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from emix.data import Box, Discrete, EnvSpec
from emix.errors import UsageError
from emix.learners.checks import check_fields
from emix.learners.plan import Plan

Allocation = Literal["adaptive", "reversed", "fixed"]
Metric = Literal["value", "entropy"]
Average = Literal["shares", "slopes"]
Critics = Literal["disentangled", "single"]
TemperatureMask = Literal["active", "all"]
OptimizerKind = Literal["rmsprop", "adam"]

_CHOICES = {
    "allocation": get_args(Allocation),
    "metric": get_args(Metric),
    "average": get_args(Average),
    "critics": get_args(Critics),
    "temperature_mask": get_args(TemperatureMask),
    "optimizer": get_args(OptimizerKind),
    "hypernet_layers": (1, 2),
}
_FRACTIONS = {"ema", "td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish", "target_tau"}


@dataclass(frozen=True)
class AderConfig:
    """Hyperparameters; the defaults are ADER's on SMAC's 3m and 8m.

    Sources: [P] Kim and Sung, "An Adaptive Entropy-Regularization Framework for Multi-Agent Reinforcement Learning",
    appendix C2 and its table 1; [C] its published code, wjkim1202/ader@616d0b4.
    """

    allocation: Allocation = "adaptive"
    """Who gets how much of the entropy budget: "adaptive", eq. 14 (ADER); "reversed", the same with the other sign
    (Reversed ADER); "fixed", what ``shares`` says (SER-MARL, SER-DCE). [P]"""
    shares: tuple[float, ...] = ()
    """Each agent's share of the budget where the allocation is "fixed", summing to 1; none: equal ones (SER-MARL)."""
    metric: Metric = "value"
    """What eq. 14 measures of agent i: "value", dV_tot/dV_i [P]; "entropy", that times dV_i/dH_i, how much its value
    rises with its entropy [C, of discrete actions]."""
    share_scale: float = 0.1
    """The softmax of eq. 14 is over the metric divided by this times its largest absolute value. [C]; "normalise" in
    [P]."""
    average: Average = "shares"
    """"shares": the softmax of every sample, and then their mean [C]; "slopes": the softmax of the metric's mean, eq.
    14 as it stands [P]."""
    ema: float = 0.9
    """Share of the old shares that is kept at an update, eq. 15; 0: no filter. [C]; [P]'s xi of 0.9 is of the new ones
    by its formula, and of the old ones by its text."""
    budget: float | None = None
    """H_0, the sum of the target entropies. None: for discrete actions ``k_ratio`` of the most that it can be, n log A,
    for vectors -n D. Of vectors it is the entropy of actions scaled to [-1, 1]. [P]"""
    k_ratio: float = 0.1
    """See ``budget``. [P]"""
    critics: Critics = "disentangled"
    """"disentangled", eq. 8 to 10: one value of the reward, one of each agent's entropy; or a "single" soft value, eq.
    6 (the ablation of fig. 5). [P]"""
    alpha_in_critic: bool = False
    """Whether the entropy critics' targets have the temperature, too, as eq. 10 has and eq. 9 has not; the policies'
    loss then has it twice. [C]"""
    alpha_init: float = math.exp(-2)
    """Every agent's temperature at the start. [P]"""
    alpha_min: float = 1e-4
    """Temperatures go no lower than this. [C]"""
    alpha_max: float = 0.5
    """Nor higher than this. [C]"""
    temperature_mask: TemperatureMask = "active"
    """Steps that the temperatures learn from: those at which the agent can choose ("active"), or "all", dead agents and
    padding, too, whose entropy is 0. [C]"""
    td_lambda: float = 0.8
    """Weight of the longer returns in the critics' targets; 0 is eq. 10. [C]"""
    gamma: float = 0.99
    """Discount. [C]"""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; not in [C], as in all of PyMARL on
    SMAC, where a timeout counts as a terminal state."""
    recurrent: bool = True
    """Whether policies have a GRU; those of discrete actions always have. [P]"""
    agent_id: bool = True
    """Whether policies of vectors see which agent it is. Those of discrete actions do."""
    critic_agent_id: bool = True
    """Whether critics of vectors do. Those of discrete actions do."""
    last_action: bool = True
    """Whether policies of vectors see the action before. Those of discrete actions do."""
    hidden_dim: int = 64
    """Units of the policies' first layer and of the GRU. [P]"""
    second_dim: int = 64
    """Units of the second layer of policies without a GRU."""
    policy_init_scale: float = 1.0
    """The last layer of policies of vectors is multiplied by this at the start: less of it starts nearer to 0."""
    critic_dim: int = 64
    """Units of the critics' first layer. [P]"""
    critic_second_dim: int = 64
    """Units of the critics' second layer; for discrete actions as many as in the first. [P]"""
    mixing_embed_dim: int = 32
    """Width of the mixers' hidden layers. [C]"""
    hypernet_layers: int = 2
    """1: the mixers' weights are linear in the state; 2: through a hidden layer [C]."""
    hypernet_dim: int = 64
    """Units of that hidden layer. [C]"""
    optimizer: OptimizerKind = "rmsprop"
    """Of policies, critics and temperatures, each with a norm of its own. [C]"""
    lr: float = 2.5e-3
    """Learning rate of the policies. [C]"""
    critic_lr: float = 5e-4
    """Learning rate of critics and mixers. [C]"""
    alpha_lr: float = 5e-4
    """Learning rate of the logarithms of the temperatures. [C]"""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square. [C]"""
    optimizer_eps: float = 1e-5
    """Added to the root of the optimiser's mean square. [C]"""
    grad_norm_clip: float = 10.0
    """The gradients of policies, reward critics and entropy critics are scaled down to this norm. [C]"""
    target_update_episodes: int = 200
    """The target critics become the live ones every so many training episodes. [C]"""
    target_tau: float | None = None
    """In place of that: the share of the live critics that each update mixes in. [P]"""
    epsilon_start: float = 1.0
    """Floor of the policies of discrete actions, shared by all actions, at the start. [C]"""
    epsilon_finish: float = 0.05
    """The same at the end of the annealing and ever after. [C]"""
    epsilon_anneal_time: int = 50_000
    """Environment steps over which the floor falls linearly. [C]"""
    plan: Plan = Plan(source="replay", batch_size=32, buffer_size=5000, updates_per_rollout=1)
    """When updates are made and from what. [P]"""

    def __post_init__(self) -> None:
        if isinstance(self.shares, list):  # of a YAML file
            object.__setattr__(self, "shares", tuple(self.shares))
        check_fields(self, choices=_CHOICES, fractions=_FRACTIONS, signed={"budget"})
        if self.shares and self.allocation != "fixed":
            raise UsageError(f"shares: expected none with allocation {self.allocation}, got {self.shares}")
        if self.shares and abs(sum(self.shares) - 1) > 1e-6:
            raise UsageError(f"shares: expected numbers that sum to 1, got {self.shares}")
        if not self.alpha_min <= self.alpha_init <= self.alpha_max:
            raise UsageError(
                f"alpha_init: expected a temperature from alpha_min ({self.alpha_min:g}) to alpha_max "
                f"({self.alpha_max:g}), got {self.alpha_init:g}"
            )
        if self.target_tau == 0:
            raise UsageError("target_tau: expected a share above 0, or none for hard copies")
        if self.alpha_in_critic and self.critics == "single":
            raise UsageError(
                "alpha_in_critic: a single soft critic has the temperatures in its target anyway; leave it"
            )

    def entropy_budget(self, spec: EnvSpec) -> float:
        """H_0 for the agents of ``spec``."""
        if self.budget is not None:
            return self.budget
        if isinstance(spec.action, Discrete):
            return self.k_ratio * spec.n_agents * math.log(spec.action.n)
        return -float(spec.action.numbers(spec.n_agents))

    def check(self, spec: EnvSpec) -> None:
        """Raise UsageError where it does not go with the environment."""
        if self.shares and len(self.shares) != spec.n_agents:
            raise UsageError(
                f"shares: expected one for each of {spec.n_agents} agents of {spec.name}, got {self.shares}"
            )
        box = isinstance(spec.action, Box)
        single_steps = self.plan.unit == "transition"
        if single_steps and (self.recurrent or not box):
            raise UsageError(
                "plan.unit transition: expected policies without a memory, which have actions that are vectors and "
                "recurrent False; take unit episode"
            )
        if single_steps and self.last_action:
            raise UsageError(
                "plan.unit transition: a single step does not know the action before: set last_action False"
            )
        if box and self.metric == "entropy":
            raise UsageError(f"metric entropy is of discrete actions, {spec.name} has {spec.action}: take metric value")
        if not box and not self.recurrent:
            raise UsageError("recurrent False: policies of discrete actions are recurrent")
        if not box and self.critic_second_dim != self.critic_dim:
            raise UsageError(
                f"critic_second_dim: expected critic_dim ({self.critic_dim}) for discrete actions, "
                f"got {self.critic_second_dim}"
            )
