r"""Diversity: how far the members of an ensemble are from their mean, one launch, and one for the gradient.

    distance_j = -ln sum_a sqrt(softmax(q_j)_a softmax(mean q)_a)     over the available actions
               = LSE(mean) / 2 + LSE(q_j) / 2 - LSE((mean + q_j) / 2)

0 where member j's softmax is the mean's, else positive; adding a constant to a member changes nothing; for small gaps
it is an eighth of the variance of ``q_j - mean q`` under the softmax. Computed as ``-log1p(-h)`` with
``h = sum_a (sqrt(softmax(mean))_a - sqrt(softmax(q_j))_a)^2 / 2``, which keeps its digits near agreement, and by the
logarithms of the sums where the two are so far apart that the products underflow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.ops._errors import explained

_forward = torch.ops.emix.bhattacharyya.default
_backward = torch.ops.emix.bhattacharyya_backward.default

_NO_NAMES: dict[str, str] = {}


def bhattacharyya(q: Tensor, avail: Tensor | None = None, detach_mean: bool = True) -> Tensor:
    """Sum over the members of the Bhattacharyya distance to their mean: q [N, ..., A] -> [...], differentiable.

    q: float16 to float64, any strides, 1 to 128 actions; computed and returned in float32 (float64 for float64).
    avail: [..., A], bool or 0/1; what stands in ``q`` at unavailable actions, NaN included, reaches nothing, and the
    gradient there is 0. A row without available actions has distance 0. A row at whose distance the gradient 0 arrives
    (padding) gets the gradient 0, NaN or not.

    Gradient: ``d distance_j / d q_j = (softmax(q_j) - r_j) / 2`` with ``r_j = softmax((mean + q_j) / 2)``. With
    ``detach_mean=False`` also through the mean: ``(softmax(mean) - r_j) / 2``, which to first order sums to 0.

    Ensemble-MIX subtracts ``1e-3`` times the masked mean over [B, T] of the sum over agents from the critic's loss.
    Errors: ValueError that names the argument, what was expected and what came. Source: Ensemble-MIX, eq. 15 and 16.

    >>> bhattacharyya(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor(0.0583)
    """
    try:
        if isinstance(q, Tensor) and q.requires_grad and torch.is_grad_enabled():
            return _Bhattacharyya.apply(q, avail, detach_mean)
        return _forward(q, avail)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


class _Bhattacharyya(torch.autograd.Function):
    """A wrapper in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, avail: Tensor | None, detach_mean: bool) -> Tensor:
        ctx.save_for_backward(q, avail)
        ctx.detach_mean = detach_mean
        return _forward(q, avail)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _backward(grad, *ctx.saved_tensors, ctx.detach_mean), None, None


@torch.library.register_fake("emix::bhattacharyya")
def _(q, avail):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape[1:-1], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


@torch.library.register_fake("emix::bhattacharyya_backward")
def _(grad, q, avail, detach_mean):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape)


# Without an entry for autograd torch would warn of a missing derivative; it is _Bhattacharyya, above the op.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
_autograd.impl("bhattacharyya", torch.library.fallthrough_kernel)
_autograd.impl("bhattacharyya_backward", torch.library.fallthrough_kernel)
