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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import check_actions, check_floor, check_members, check_shape, check_types, register_fake, wide
from emix.ops._floor import number_and_tensor
from emix.ops._gradient import Gradients, differentiable
from emix.ops._seed import new_seed

_moments = compiled("ensemble_moments")
_moments_backward = compiled("ensemble_moments_backward")
_weight = compiled("uncertainty_weight")
_explore_logits = compiled("explore_logits")
_explore_actions = compiled("explore_actions")


class Moments(NamedTuple):
    """Over the members, each [...]."""

    mean: Tensor
    variance: Tensor
    kurtosis: Tensor


@public()
def ensemble_moments(q: Tensor) -> Moments:
    """Compute mean, (biased) variance and (non-excess) kurtosis over the members.

    ``mean = sum_j q_j / N``, ``d_j = q_j - mean``, ``variance = sum_j d_j^2 / N``, ``z_j = d_j / sqrt(variance)``,
    ``kurtosis = sum_j z_j^4 / N``: 3 for the normal distribution, between 1 and ``(N^2 - 3N + 3) / (N - 1)``. Where the
    members agree, ``variance <= 1e-12 + 1e-10 mean^2``, it is 3, with gradient 0. Differentiable, once:
    ``d kurtosis / d q_j = 4 / (N sqrt(variance)) (z_j^3 - mean(z^3) - kurtosis z_j)``. Source: Ensemble-MIX, eq. 6 and
    7 (Westfall 2014).

    Args:
        q: the members' values ``[N, ...]``, 1 to 64 members; float16, bfloat16, float32 or float64. Keep them in
            float32: values near 12 that differ by 0.01 are one number in bfloat16, and their kurtosis is gone.

    Returns:
        ``Moments(mean, variance, kurtosis)``, each ``[...]``, float32; float64 where q is.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> ensemble_moments(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    Moments(mean=tensor([1.]), variance=tensor([3.]), kurtosis=tensor([2.3333]))
    """
    return Moments(*_ensemble_moments(q))


@public()
def uncertainty_weight(q: Tensor, scale: float = 0.01) -> Tensor:
    """Compute the weight of a next value in Ensemble-MIX's targets.

    ``0.5 + sigmoid(-scale kurtosis)``, in (0.5, 1) for scale > 0, with the kurtosis of ``ensemble_moments``: the
    heavier the tails of the members' values, the less the value counts. No gradient. Source: Ensemble-MIX, section 5.1.

    Args:
        q: the members' values ``[N, ...]``, 1 to 64 members; float16, bfloat16, float32 or float64.
        scale: C_1.

    Returns:
        ``[...]``, float32; float64 where q is.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> uncertainty_weight(torch.ones(10, 2), scale=1.0)
    tensor([0.5474, 0.5474])
    """
    return _weight(q, scale)


@public()
def explore_logits(logits: Tensor, q: Tensor, avail: Tensor | None = None, bonus: float = 0.001) -> Tensor:
    """Add the exploration bonus to an actor's logits.

    ``logits + bonus kurtosis`` where the gate is open, which is where the mean of ``kurtosis - 3`` over the available
    actions is above 0; ``logits`` elsewhere; -inf for actions that are not available. Fewer than 5 members never open
    it. ``explore_actions`` also draws the action. No gradient. Source: Ensemble-MIX, eq. 13 and 14.

    Args:
        logits: ``[..., A]``, 1 to 128 actions; float16, bfloat16, float32 or float64.
        q: the members' values ``[N, ..., A]``, 1 to 64 members, of those types, too. What stands at unavailable
            actions, NaN included, reaches nothing.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions.
        bonus: beta.

    Returns:
        ``[..., A]``, float32; float64 where logits or q are.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.zeros(10, 2)
    >>> q[0] = 1.0
    >>> explore_logits(torch.zeros(2), q, torch.tensor([True, False]), bonus=0.1)
    tensor([0.8111,   -inf])
    """
    return _explore_logits(logits, q, avail, bonus)


class ExploreActions(NamedTuple):
    """What an actor did, each [...]."""

    action: Tensor
    """int64"""
    probability: Tensor
    """float32: what the behaviour policy gave the action, the mu of ``retrace_returns``"""
    open: Tensor
    """bool: whether the gate was open; its mean is the share of exploring agents"""


@public()
def explore_actions(
    logits: Tensor,
    q: Tensor,
    avail: Tensor | None = None,
    *,
    bonus: float = 0.001,
    floor: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> ExploreActions:
    """Draw an actor's exploring actions from members and logits, in one launch.

    Adds the bonus of ``explore_logits`` to the available actions where the gate is open, and draws from what
    ``sample_actions`` makes of these logits: the softmax over the available actions, or with ``floor`` the masked and
    renormalised ``(1 - floor) softmax + floor / A`` over all. Gate closed, it is ``sample_actions`` draw for draw. The
    policy is computed in float32. No gradient. Source: Ensemble-MIX, algorithm 1.

    The seed is one int64 tensor that torch draws on the device of ``logits`` (under torch.compile, see
    ``sample_actions``).

    Args:
        logits: ``[..., A]``, 1 to 128 actions; float16, bfloat16, float32 or float64.
        q: the members' values ``[N, ..., A]``, 1 to 64 members, of those types, too. What stands at unavailable
            actions, NaN included, reaches nothing.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions. Where there is none (padding) the
            draw is action 0, of probability 1.
        bonus: beta.
        floor: a number in [0, 1], or a 0-dim floating tensor on the device of ``logits``, which is read when the op
            runs (so that a CUDA graph's replay sees what it is by then) and not checked.
        generator: what the seed is drawn from, on the device of ``logits``; None: torch's default one.

    Returns:
        ``ExploreActions(action, probability, open)``, each ``[...]``: int64; float32, what the behaviour policy gave
        the action; bool, whether the gate was open.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.zeros(10, 2, 3)
    >>> q[0] = 1.0
    >>> explore_actions(torch.zeros(2, 3), q, torch.tensor([[1, 0, 0], [0, 1, 0]]))
    ExploreActions(action=tensor([0, 1]), probability=tensor([1., 1.]), open=tensor([True, True]))
    """
    seed = new_seed(logits, generator)
    return ExploreActions(*_explore_actions(logits, q, avail, seed, bonus, *number_and_tensor(floor)))


def _gradients(wanted: Sequence[bool], grads: Gradients, q: Tensor) -> Gradients:
    return [_moments_backward(q, *grads)]


_ensemble_moments = differentiable("ensemble_moments", _moments, _gradients, places=(0,))


@register_fake("ensemble_moments")
def _(q):  # type: ignore[no-untyped-def]
    check_types({"q": q})
    check_members("q", q)
    return tuple(q.new_empty(q.shape[1:], dtype=wide(q)) for _ in range(3))


@register_fake("ensemble_moments_backward")
def _(q, mean_grad, variance_grad, kurtosis_grad):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape)


@register_fake("uncertainty_weight")
def _(q, scale):  # type: ignore[no-untyped-def]
    check_types({"q": q})
    check_members("q", q)
    return q.new_empty(q.shape[1:], dtype=wide(q))


@register_fake("explore_logits")
def _(logits, q, avail, bonus):  # type: ignore[no-untyped-def]
    _check_exploration(logits, q, avail)
    return logits.new_empty(logits.shape, dtype=wide(logits, q))


@register_fake("explore_actions")
def _(logits, q, avail, seed, bonus, floor, floor_tensor=None):  # type: ignore[no-untyped-def]
    _check_exploration(logits, q, avail)
    check_floor(floor, floor_tensor, logits)
    shape = logits.shape[:-1]
    dtypes = (torch.int64, torch.float32, torch.bool)
    return tuple(logits.new_empty(shape, dtype=dtype) for dtype in dtypes)


def _check_exploration(logits: Tensor, q: Tensor, avail: Tensor | None) -> None:
    check_types({"logits": logits, "q": q}, masks={"avail": avail})
    check_actions("logits", logits)
    check_members("q", q)
    check_shape("q", q, (q.shape[0], *logits.shape))
    check_shape("avail", avail, logits.shape)
