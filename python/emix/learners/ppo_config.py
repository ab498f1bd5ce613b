"""The hyperparameters of MAPPO, IPPO and PERLA, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from emix.errors import UsageError
from emix.learners.checks import check_fields
from emix.learners.plan import Plan

CriticInput = Literal["state", "obs", "state_obs"]
Critic = Literal["v", "q"]
Fit = Literal["marginal", "executed"]
Returns = Literal["n_step", "gae"]
TargetKind = Literal["soft", "hard", "none"]
ValueNorm = Literal["none", "debiased", "cumulative"]
Network = Literal["gru", "mlp"]
Init = Literal["default", "orthogonal"]
Distribution = Literal["gaussian", "tanh_gaussian"]
Optimizer = Literal["adam", "rmsprop"]

_CHOICES = {
    "critic_input": get_args(CriticInput),
    "critic": get_args(Critic),
    "fit": get_args(Fit),
    "returns": get_args(Returns),
    "target": get_args(TargetKind),
    "value_norm": get_args(ValueNorm),
    "network": get_args(Network),
    "critic_network": get_args(Network),
    "init": get_args(Init),
    "distribution": get_args(Distribution),
    "optimizer": get_args(Optimizer),
}
_FRACTIONS = {"gamma", "gae_lambda", "target_tau", "momentum"}
_NOT_NEGATIVE = {"samples", "entropy"}
_MOST_SAMPLES = 1 << 16  # each is a joint action for every step of a batch


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters; the defaults are MAPPO's in EPyMARL, on which PERLA was built.

    Sources: [E] EPyMARL, uoe-agents/epymarl, src/config/algs/mappo.yaml and its learner; [O] on-policy,
    marlbenchmark/on-policy (Yu et al. 2022); [P] PERLA's paper.
    """

    critic_input: CriticInput = "state"
    """What the critic sees of a state: the "state" (MAPPO), each agent's own "obs" (IPPO), or both."""
    samples: int = 0
    """K, joint actions over which PERLA's critic is averaged; 0: no PERLA, a critic that sees no actions. [P: 100]"""
    critic: Critic = "v"
    """PERLA's critic: "v", V(s, the others' actions), as in the paper's experiments, or "q", Q(s, a), as in its
    eq. 1 and 2, whose advantage is that of the agent's action over its policy's mean. [P]"""
    fit: Fit = "marginal"
    """What PERLA's V is learned by: the error of its mean over the samples (algorithm 1), or of its value at the
    "executed" actions, without which nothing says that it depend on them."""
    resample: bool = False
    """Whether the joint actions are drawn anew, from the same policies, and targets made anew, at every epoch."""
    returns: Returns = "n_step"
    """"n_step": targets are n-step returns by the target critic, advantages their differences from the present
    critic's values at every epoch [E]; "gae": both once an update, by generalised advantages [O]."""
    n_step: int = 5
    """Steps of "n_step". [E]"""
    gae_lambda: float = 0.95
    """lambda of "gae". [O]"""
    gamma: float = 0.99
    """Discount. [E, O]"""
    bootstrap_truncated: bool = False
    """Whether a step that the time limit ends bootstraps from the next observation; on SMAC it counts as a terminal
    state everywhere."""
    target: TargetKind = "soft"
    """How the target critic of "n_step" follows: "soft", by ``target_tau`` at each update, "hard", copied every
    ``target_every`` updates, or "none": the critic is its own target, as it always is with "gae". [E]"""
    target_tau: float = 0.01
    """Share of the critic that goes into a soft target at each update. [E]"""
    target_every: int = 200
    """Updates between two copies of a hard target. [E]"""
    epochs: int = 4
    """Times that an update goes through its batch. [E]"""
    minibatches: int = 1
    """Equal parts of the batch, each an optimiser step: of episodes, or without a GRU of single steps. [E, O]"""
    clip: float = 0.2
    """How far the ratio of the policies goes before it no longer counts. [E, O]"""
    entropy: float = 0.001
    """Weight of the policies' entropy. [E]; 0.01 in [O]"""
    huber_delta: float | None = None
    """Errors of values beyond it count linearly; 10 in [O]. None: squared errors. [E]"""
    value_clip: bool = False
    """Whether values more than ``clip`` away from those before the update no longer get better. [O]"""
    value_norm: ValueNorm = "none"
    """How the critic's scale follows the returns: "debiased" [O], "cumulative" (standardise_returns in [E]), "none"."""
    standardise_rewards: bool = True
    """Whether rewards are brought to mean 0 and deviation 1 by all that were seen. [E]"""
    normalise_advantage: bool = False
    """Whether advantages are brought to mean 0 and deviation 1 in every update. [O]"""
    active_only: bool = False
    """Whether only agents with a choice count in the actors' loss: dead ones have none. [O]"""
    network: Network = "gru"
    """The actors'. [E]"""
    critic_network: Network = "mlp"
    """The critic's; PERLA's is always "mlp". [E]"""
    hidden_dim: int = 128
    """Units of every layer. [E]; 64 in [O]"""
    layer_norm: bool = False
    """Whether networks normalise their input and every layer, but not PERLA's critic. [O]"""
    init: Init = "default"
    """Initial weights: torch's [E], or "orthogonal" [O]."""
    gain: float = 0.01
    """Of the orthogonal weights of the actors' last layer. [O]"""
    share: bool = True
    """Whether all agents have one actor and one critic, told apart by their ids, or each its own."""
    distribution: Distribution = "gaussian"
    """Of continuous actions: "gaussian", put back into the box by the environment's side of the actor, or
    "tanh_gaussian", squashed into it."""
    log_std_init: float = 0.0
    """The logarithm of the deviation of continuous actions at the start. [O]"""
    optimizer: Optimizer = "adam"
    """Of actors and critics. [E]"""
    lr: float = 3e-4
    """Learning rate of the actors. [E]"""
    critic_lr: float = 3e-4
    """Learning rate of the critics. [E]"""
    optimizer_eps: float = 1e-8
    """Added to the root of the optimiser's mean square. [E]; 1e-5 in [O]"""
    momentum: float = 0.0
    """Of RMSprop, whose smoothing is 0.99. [P: 0.9 on MA-MuJoCo]"""
    grad_norm_clip: float = 10.0
    """The actors' and the critics' gradients are scaled down to this norm, each for itself. [E, O]"""
    test_sample: bool = True
    """Whether actors draw from their policies in tests, too [E], or take the likeliest action [O]."""
    plan: Plan = Plan(source="fresh", batch_size=10)
    """Every episode is used in one update, ``batch_size`` at a time. [E]"""

    def __post_init__(self) -> None:
        ranges = {"fractions": _FRACTIONS, "not_negative": _NOT_NEGATIVE, "signed": {"log_std_init"}}
        check_fields(self, choices=_CHOICES, **ranges)
        if self.plan.source != "fresh":
            raise UsageError(f"plan.source: PPO expects fresh episodes, got {self.plan.source}")
        if self.plan.batch_size % self.minibatches and self._rows_are_episodes:
            raise UsageError(
                f"minibatches: expected a divisor of plan.batch_size ({self.plan.batch_size}), got {self.minibatches}: "
                f"networks with a GRU learn from whole episodes"
            )
        if self.momentum > 0 and self.optimizer != "rmsprop":
            raise UsageError(f"momentum: {self.optimizer} has none: expected 0, got {self.momentum}")
        self._check_perla()

    @property
    def _rows_are_episodes(self) -> bool:
        return "gru" in (self.network, self.critic_network)

    def _check_perla(self) -> None:
        if self.samples == 0:
            if (self.critic, self.fit, self.resample) != ("v", "marginal", False):
                raise UsageError(
                    f"samples: expected at least 1 with critic {self.critic}, fit {self.fit} and resample "
                    f"{self.resample}, which are PERLA's, got 0; take perla-mappo or perla-ippo, or set samples"
                )
            return
        if self.samples > _MOST_SAMPLES:
            raise UsageError(f"samples: expected at most {_MOST_SAMPLES:,}, got {self.samples}")
        if self.critic_network == "gru":
            raise UsageError("critic_network: expected mlp with samples, got gru: a critic of joint actions has no GRU")
        if not self.share:
            raise UsageError("share: expected true with samples: PERLA's critic is one for all agents, got false")
