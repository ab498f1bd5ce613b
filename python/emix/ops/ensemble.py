r"""Ensembles: what N members say of one value, and what an actor makes of it. One launch each.

    mean = sum_j q_j / N            d_j = q_j - mean
    variance = sum_j d_j^2 / N      z_j = d_j / sqrt(variance)
    kurtosis = sum_j z_j^4 / N      3 for the normal distribution; between 1 and (N^2 - 3N + 3) / (N - 1)

Where the members agree, ``variance <= 1e-12 + 1e-10 mean^2``, kurtosis would measure rounding: it is 3 there, with
gradient 0.

What they all share:

Shapes: ``q`` [N, ...] holds 1 to 64 members on its first axis. ``logits`` and ``avail`` [..., A] hold 1 to 128 actions;
``q`` is [N, ..., A] there. Any strides; ``...`` may be nothing, or hold a size 0.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).
``avail`` is bool, or any dtype that holds 0 and 1; None means that every action is available. What stands in ``q`` at
unavailable actions, NaN included, reaches nothing. Keep the members in float32: values near 12 that differ by 0.01 are
one number in bfloat16, and their kurtosis is gone.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.ops._errors import explained
from emix.ops._floor import number_and_tensor

_moments = torch.ops.emix.ensemble_moments.default
_moments_backward = torch.ops.emix.ensemble_moments_backward.default
_weight = torch.ops.emix.uncertainty_weight.default
_explore_logits = torch.ops.emix.explore_logits.default
_explore_actions = torch.ops.emix.explore_actions.default

_NO_NAMES: dict[str, str] = {}
_SEEDS = 2**63 - 1


class Moments(NamedTuple):
    """Over the members, each [...]."""

    mean: Tensor
    variance: Tensor
    kurtosis: Tensor


def ensemble_moments(q: Tensor) -> Moments:
    """Compute mean, (biased) variance and (non-excess) kurtosis over the members: q [N, ...] -> each [...].

    Differentiable: ``d kurtosis / d q_j = 4 / (N sqrt(variance)) (z_j^3 - mean(z^3) - kurtosis z_j)``.
    Definitions, types and errors: see ``emix.ops.ensemble``. Source: Ensemble-MIX, eq. 6 and 7 (Westfall 2014).

    >>> ensemble_moments(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    Moments(mean=tensor([1.]), variance=tensor([3.]), kurtosis=tensor([2.3333]))
    """
    try:
        if isinstance(q, Tensor) and q.requires_grad and torch.is_grad_enabled():
            return Moments(*_EnsembleMoments.apply(q))
        return Moments(*_moments(q))
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def uncertainty_weight(q: Tensor, scale: float = 0.01) -> Tensor:
    """Compute the weight of a next value in Ensemble-MIX's targets: q [N, ...] -> [...], no gradient.

    ``0.5 + sigmoid(-scale kurtosis)``, in (0.5, 1) for scale > 0: the heavier the tails of the members' values, the
    less the value counts.
    Definitions, types and errors: see ``emix.ops.ensemble``. Source: Ensemble-MIX, section 5.1 (C_1 is ``scale``).

    >>> uncertainty_weight(torch.ones(10, 2), scale=1.0)
    tensor([0.5474, 0.5474])
    """
    try:
        return _weight(q, scale)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def explore_logits(logits: Tensor, q: Tensor, avail: Tensor | None = None, bonus: float = 0.001) -> Tensor:
    """Add the exploration bonus to an actor's logits: logits [..., A], q [N, ..., A] -> [..., A], no gradient.

    ``logits + bonus kurtosis`` where the gate is open, which is where the mean of ``kurtosis - 3`` over the available
    actions is above 0; ``logits`` elsewhere; -inf for actions that are not available. Fewer than 5 members never open
    it. ``explore_actions`` also draws the action.
    Definitions, types and errors: see ``emix.ops.ensemble``. Source: Ensemble-MIX, eq. 13 and 14 (beta is ``bonus``).

    >>> q = torch.zeros(10, 2)
    >>> q[0] = 1.0
    >>> explore_logits(torch.zeros(2), q, torch.tensor([True, False]), bonus=0.1)
    tensor([0.8111,   -inf])
    """
    try:
        return _explore_logits(logits, q, avail, bonus)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


class ExploreActions(NamedTuple):
    """What an actor did, each [...]."""

    action: Tensor
    """int64"""
    probability: Tensor
    """float32: what the behaviour policy gave the action, the mu of ``retrace_returns``"""
    open: Tensor
    """bool: whether the gate was open; its mean is the share of exploring agents"""


def explore_actions(
    logits: Tensor,
    q: Tensor,
    avail: Tensor | None = None,
    *,
    bonus: float = 0.001,
    floor: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> ExploreActions:
    """Draw an actor's exploring actions from members and logits, in one launch: logits [..., A], q [N, ..., A].

    Adds the bonus of ``explore_logits`` to the available actions where the gate is open, and draws from what
    ``sample_actions`` makes of these logits: the softmax over the available actions, or with ``floor`` the masked and
    renormalised ``(1 - floor) softmax + floor / A`` over all; ``floor`` is a number in [0, 1], or a 0-dim tensor as for
    ``policy_terms``. Gate closed, it is ``sample_actions`` draw for draw. Where no action is available (padding) the
    draw is action 0, of probability 1. No gradient.

    The seed is one int64 tensor that torch draws on the device of ``logits``, from ``generator`` or torch's default
    one (under torch.compile, see ``sample_actions``); the policy is computed in float32. Definitions,
    types and errors: see ``emix.ops.ensemble``. Source: Ensemble-MIX, algorithm 1.

    >>> q = torch.zeros(10, 2, 3)
    >>> q[0] = 1.0
    >>> explore_actions(torch.zeros(2, 3), q, torch.tensor([[1, 0, 0], [0, 1, 0]]))
    ExploreActions(action=tensor([0, 1]), probability=tensor([1., 1.]), open=tensor([True, True]))
    """
    if not isinstance(logits, Tensor):
        raise ValueError(f"logits must be a tensor, got {logits!r}")
    try:
        seed = torch.randint(_SEEDS, (1,), generator=generator, device=logits.device)
        return ExploreActions(*_explore_actions(logits, q, avail, seed, bonus, *number_and_tensor(floor)))
    except RuntimeError as error:
        if generator is not None and generator.device.type != logits.device.type:
            raise ValueError(f"generator must be on {logits.device.type} like logits, got {generator.device}") from None
        raise explained(error, _NO_NAMES) from None


class _EnsembleMoments(torch.autograd.Function):
    """A wrapper in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too."""

    @staticmethod
    def forward(ctx: Any, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q)
        ctx.set_materialize_grads(False)  # a moment that no one used costs nothing
        return _moments(q)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor | None, variance: Tensor | None, kurtosis: Tensor | None) -> Tensor:
        return _moments_backward(*ctx.saved_tensors, mean, variance, kurtosis)


def _wide(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


@torch.library.register_fake("emix::ensemble_moments")
def _(q):  # type: ignore[no-untyped-def]
    return tuple(q.new_empty(q.shape[1:], dtype=_wide(q)) for _ in range(3))


@torch.library.register_fake("emix::ensemble_moments_backward")
def _(q, mean_grad, variance_grad, kurtosis_grad):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape)


@torch.library.register_fake("emix::uncertainty_weight")
def _(q, scale):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape[1:], dtype=_wide(q))


@torch.library.register_fake("emix::explore_logits")
def _(logits, q, avail, bonus):  # type: ignore[no-untyped-def]
    return logits.new_empty(logits.shape, dtype=_wide(logits, q))


@torch.library.register_fake("emix::explore_actions")
def _(logits, q, avail, seed, bonus, floor, floor_tensor=None):  # type: ignore[no-untyped-def]
    shape = logits.shape[:-1]
    dtypes = (torch.int64, torch.float32, torch.bool)
    return tuple(logits.new_empty(shape, dtype=dtype) for dtype in dtypes)


# Without an entry for autograd torch would warn of a missing derivative; it is _EnsembleMoments, above the op.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
for _name in (
    "ensemble_moments",
    "ensemble_moments_backward",
    "uncertainty_weight",
    "explore_logits",
    "explore_actions",
):
    _autograd.impl(_name, torch.library.fallthrough_kernel)
