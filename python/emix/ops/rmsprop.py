r"""A step of RMSprop that scales the gradients down to a norm first, in one pass over memory.

    g' = g min(1, max_norm / (|g| + 1e-6))                  |g|: over all tensors
    s  = alpha s + (1 - alpha) g'^2
    p  = p - lr g' / (sqrt(s) + eps)

What ``torch.nn.utils.clip_grad_norm_`` and ``torch.optim.RMSprop`` do in some ten passes. On a GPU it is torch's
``foreach`` functions, each of few launches for all tensors at once. g becomes g' in place, as torch does it.

Types: on the CPU float32, or all float64, and contiguous. Bitwise repeatable, for any number of threads. No gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emix.ops._call import public
from emix.ops._fake import check_shape, register_fake, require

_step = torch.ops.emix.rmsprop_step.default


@public()
def rmsprop_step(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    max_norm: float = float("inf"),
) -> Tensor:
    """Change parameters, gradients and mean squares in place by a step of RMSprop.

    ``g' = g min(1, max_norm / (|g| + 1e-6))``, ``|g|`` over all tensors; ``s = alpha s + (1 - alpha) g'^2``;
    ``p = p - lr g' / (sqrt(s) + eps)``. No gradient. Source: ``torch.optim.RMSprop`` without momentum, not centered,
    after ``torch.nn.utils.clip_grad_norm_``.

    Args:
        parameters: tensors of any shapes; on the CPU float32, or all float64, and contiguous, as are the others.
        grads: g, one for each parameter, of its shape and dtype; becomes g'.
        square_avgs: s, one for each parameter, of its shape and dtype.
        lr: learning rate.
        alpha: smoothing of the mean square.
        eps: added to its root.
        max_norm: the norm to which the gradients are scaled down, where theirs is larger.

    Returns:
        The norm ``|g|`` that the gradients had, ``[]``.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> p, s = torch.ones(3), torch.zeros(3)
    >>> norm = rmsprop_step([p], [torch.tensor([3.0, 0.0, 4.0])], [s], lr=0.1, alpha=0.75, eps=0.0, max_norm=1.0)
    >>> round(norm.item(), 4), [round(x, 4) for x in s.tolist()]
    (5.0, [0.09, 0.0, 0.16])
    """
    parameters, grads, square_avgs = list(parameters), list(grads), list(square_avgs)
    if not parameters:
        raise ValueError("parameters must have at least one tensor, got none")
    if parameters[0].device.type == "cuda":
        return _foreach(parameters, grads, square_avgs, lr, alpha, eps, max_norm)
    with torch.no_grad():
        return _step(parameters, grads, square_avgs, lr, alpha, eps, max_norm)


@torch.no_grad()
def _foreach(
    parameters: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    lr: float,
    alpha: float,
    eps: float,
    max_norm: float,
) -> Tensor:
    """The same by torch's functions of many tensors."""
    _check(parameters, grads, square_avgs)
    norm = torch.nn.utils.get_total_norm(grads)
    torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1))
    torch._foreach_mul_(square_avgs, alpha)
    torch._foreach_addcmul_(square_avgs, grads, grads, 1 - alpha)
    root = torch._foreach_sqrt(square_avgs)
    torch._foreach_add_(root, eps)
    torch._foreach_addcdiv_(parameters, grads, root, -lr)
    return norm


def _check(parameters: list[Tensor], grads: list[Tensor], square_avgs: list[Tensor]) -> None:
    for name, tensors in (("grads", grads), ("square_avgs", square_avgs)):
        sentence = "`{}` must have as many tensors as `parameters` ({}), got {}"
        require(len(tensors) == len(parameters), sentence, name, len(parameters), len(tensors))
        for i, (tensor, parameter) in enumerate(zip(tensors, parameters, strict=True)):
            form = (tensor.dtype, tensor.device)
            expected = (parameter.dtype, parameter.device)
            check_shape(f"{name}[{i}]", tensor, parameter.shape)
            require(form == expected, "`{}[{}]` must be like its parameter {}, got {}", name, i, expected, form)


@register_fake("rmsprop_step")
def _(parameters, grads, square_avgs, lr, alpha, eps, max_norm):  # type: ignore[no-untyped-def]
    _check(parameters, grads, square_avgs)
    types = {parameter.dtype for parameter in parameters}
    sentence = "`parameters` must be float32, or all float64, on the CPU, got {}"
    require(types in ({torch.float32}, {torch.float64}), sentence, types)
    return parameters[0].new_empty(())
