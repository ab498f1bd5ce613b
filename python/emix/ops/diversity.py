r"""Diversity: how far the members of an ensemble are from their mean, one launch, and one for the gradient.

    distance_j = -ln sum_a sqrt(softmax(q_j)_a softmax(mean q)_a)     over the available actions
               = LSE(mean) / 2 + LSE(q_j) / 2 - LSE((mean + q_j) / 2)

0 where member j's softmax is the mean's, else positive; adding a constant to a member changes nothing; for small gaps
it is an eighth of the variance of ``q_j - mean q`` under the softmax. Computed as ``-log1p(-h)`` with
``h = sum_a (sqrt(softmax(mean))_a - sqrt(softmax(q_j))_a)^2 / 2``, which keeps its digits near agreement, and by the
logarithms of the sums where the two are so far apart that the products underflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import check_actions, check_members, check_shape, check_types, register_fake, wide
from emix.ops._gradient import Gradients, differentiable

_distance = compiled("bhattacharyya")
_distance_backward = compiled("bhattacharyya_backward")


@public()
def bhattacharyya(q: Tensor, avail: Tensor | None = None, detach_mean: bool = True) -> Tensor:
    """Compute the sum over an ensemble's members of the Bhattacharyya distance to their mean.

    ``sum_j -ln sum_a sqrt(softmax(q_j)_a softmax(mean q)_a)`` over the available actions: 0 where all members' softmax
    is the mean's, else positive. Differentiable by q, once: ``d distance_j / d q_j = (softmax(q_j) - r_j) / 2`` with
    ``r_j = softmax((mean + q_j) / 2)``. Ensemble-MIX subtracts ``1e-3`` times the masked mean over [B, T] of the sum
    over agents from the critic's loss. Source: Ensemble-MIX, eq. 15 and 16.

    Args:
        q: the members' values ``[N, ..., A]``, 1 to 64 members, 1 to 128 actions; float16, bfloat16, float32 or
            float64. What stands at unavailable actions, NaN included, reaches nothing; the gradient there is 0.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions. A row without one has distance 0.
        detach_mean: let no gradient reach q through the mean. False adds ``(softmax(mean) - r_j) / 2``, which to first
            order sums to 0.

    Returns:
        ``[...]``, float32; float64 where q is. A row at whose distance the gradient 0 arrives (padding) gets the
        gradient 0, NaN or not.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> bhattacharyya(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor(0.0583)
    """
    return _bhattacharyya[detach_mean](q, avail)


def _gradients(
    detach_mean: bool, wanted: Sequence[bool], grads: Gradients, q: Tensor, avail: Tensor | None
) -> Gradients:
    return [_distance_backward(grads[0], q, avail, detach_mean)]


_bhattacharyya = {
    detach: differentiable("bhattacharyya", _distance, partial(_gradients, detach), places=(0,))
    for detach in (True, False)
}


@register_fake("bhattacharyya")
def _(q, avail):  # type: ignore[no-untyped-def]
    check_types({"q": q}, masks={"avail": avail})
    check_members("q", q, axes=2)
    check_actions("q", q)
    check_shape("avail", avail, q.shape[1:])
    return q.new_empty(q.shape[1:-1], dtype=wide(q))


@register_fake("bhattacharyya_backward")
def _(grad, q, avail, detach_mean):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape)
