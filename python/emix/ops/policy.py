r"""Policies of discrete actions: masked probabilities, and what losses take of them. One launch each way.

    floor = 0:  pi = softmax of the available actions' logits                                          (PPO)
    floor > 0:  p = softmax(z) over all A actions, pi_a = avail_a ((1 - floor) p_a + floor / A) / Z    (COMA, DOP)

Z makes pi sum to 1. With floor 0 the second form is the first, since masking and renormalising a softmax is a masked
softmax; the first does not mind how much mass the unavailable actions would hold, and they get no gradient. With a
floor they count in p, and do get one.

What both functions share:

Shapes: ``logits`` [..., A], 1 to 128 actions; ``avail`` and ``value`` like ``logits``; ``action`` [...]. Nothing is
broadcast: ``expand`` what should be. Any strides; any other axis may be empty.

``floor`` is a number in [0, 1], or a 0-dim tensor of any floating dtype on the device of ``logits``. A tensor is read
when the op runs, so that a CUDA graph's replay sees what it is by then; its value is not checked, and no gradient
reaches it.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).
Masks are bool, or any dtype that holds 0 and 1; actions any integer dtype. A gradient has its input's dtype.

Rows where nothing can be taken (no action available, or only logits of -inf): every result is 0 and so is the
gradient, whatever else stands there. One action available: log-probability and entropy are 0. An action of probability
0 adds nothing to an expectation, even where its value is infinite or NaN. A NaN among the logits that count makes its
row NaN.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.ops._errors import explained
from emix.ops._floor import number_and_tensor

_policy = torch.ops.emix.masked_policy.default
_policy_backward = torch.ops.emix.masked_policy_backward.default
_terms = torch.ops.emix.policy_terms.default
_terms_backward = torch.ops.emix.policy_terms_backward.default

_NO_NAMES: dict[str, str] = {}


class PolicyTerms(NamedTuple):
    """What losses take of a policy, each [...]; ``expected_value`` is None without a ``value``."""

    log_prob: Tensor
    entropy: Tensor
    expected_value: Tensor | None


def masked_policy(logits: Tensor, avail: Tensor | None = None, floor: float | Tensor = 0.0) -> Tensor:
    """Compute the probabilities of all actions: [..., A] -> [..., A]; 0 where not available. Differentiable.

    Definition, degenerate rows, types and errors: see ``emix.ops.policy``. Source: COMA (Foerster et al. 2018),
    section 4; the gradient with a floor is what autograd makes of DOP's code.

    >>> logits = torch.tensor([0.0, 0.0, 9.0])
    >>> masked_policy(logits, torch.tensor([1, 1, 0]))
    tensor([0.5000, 0.5000, 0.0000])
    >>> masked_policy(torch.tensor([50.0, 0.0]), floor=0.5)
    tensor([0.7500, 0.2500])
    """
    try:
        call = _MaskedPolicy.apply if _wants_gradient(logits) else _policy
        return call(logits, avail, *number_and_tensor(floor))
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def policy_terms(
    logits: Tensor,
    action: Tensor,
    avail: Tensor | None = None,
    value: Tensor | None = None,
    floor: float | Tensor = 0.0,
) -> PolicyTerms:
    """Compute ``log pi(action)``, the entropy ``-sum_a pi_a log pi_a`` and, with a value, ``sum_a pi_a value_a``.

    Gradients reach ``logits`` and ``value``. An action that cannot be taken (not available, or its logit is -inf) has
    the log-probability ``log 1e-10`` and no gradient: EPyMARL's ``log(pi + 1e-10)``, finite so that a loss may
    multiply it by a mask. One outside [0, A) gives NaN, as there is no host synchronisation to raise from. Definition,
    degenerate rows, types and errors: see ``emix.ops.policy``. Source: DOP (Wang et al. 2021), eq. 6; PPO (Schulman et
    al. 2017), eq. 9.

    >>> logits, avail = torch.tensor([0.0, 0.0, 9.0]), torch.tensor([1, 1, 0])
    >>> terms = policy_terms(logits, torch.tensor(1), avail, torch.tensor([2.0, 4.0, 7.0]))
    >>> terms.log_prob, terms.entropy, terms.expected_value
    (tensor(-0.6931), tensor(0.6931), tensor(3.))
    """
    try:
        call = _PolicyTerms.apply if _wants_gradient(logits, value) else _terms
        log_prob, entropy, expected_value = call(logits, action, avail, value, *number_and_tensor(floor))
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None
    return PolicyTerms(log_prob, entropy, None if value is None else expected_value)


def _wants_gradient(*inputs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in inputs)


# Wrappers in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too. A
# gradient's dtype is mended by autograd itself.


class _MaskedPolicy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, avail: Tensor | None, floor: float, floor_tensor: Tensor | None) -> Tensor:
        ctx.save_for_backward(logits, avail, floor_tensor)
        ctx.floor = floor
        return _policy(logits, avail, floor, floor_tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, avail, floor_tensor = ctx.saved_tensors
        return _policy_backward(grad, logits, avail, ctx.floor, floor_tensor), None, None, None


class _PolicyTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        action: Tensor,
        avail: Tensor | None,
        value: Tensor | None,
        floor: float,
        floor_tensor: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, action, avail, value, floor_tensor)
        ctx.floor = floor
        ctx.set_materialize_grads(False)  # a term that no loss uses costs nothing
        return _terms(logits, action, avail, value, floor, floor_tensor)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, log_prob: Tensor | None, entropy: Tensor | None, expected_value: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        value_wanted = ctx.needs_input_grad[3] and expected_value is not None
        *inputs, floor_tensor = ctx.saved_tensors
        logits_grad, value_grad = _terms_backward(
            log_prob, entropy, expected_value, *inputs, ctx.floor, value_wanted, floor_tensor
        )
        return logits_grad, None, None, value_grad if value_wanted else None, None, None


def _inputs_dtype(logits: Tensor, value: Tensor | None = None) -> torch.dtype:
    """The dtype that the inputs are read in, and that the gradients are written in."""
    return logits.dtype if value is None or value.dtype == logits.dtype else _result_dtype(logits, value)


def _result_dtype(logits: Tensor, value: Tensor | None = None) -> torch.dtype:
    wide = logits.dtype == torch.float64 or (value is not None and value.dtype == torch.float64)
    return torch.float64 if wide else torch.float32


@torch.library.register_fake("emix::masked_policy")
def _(logits, avail=None, floor=0.0, floor_tensor=None):  # type: ignore[no-untyped-def]
    return logits.new_empty(logits.shape, dtype=_result_dtype(logits))


@torch.library.register_fake("emix::masked_policy_backward")
def _(grad, logits, avail, floor, floor_tensor=None):  # type: ignore[no-untyped-def]
    return logits.new_empty(logits.shape)


@torch.library.register_fake("emix::policy_terms")
def _(logits, action, avail=None, value=None, floor=0.0, floor_tensor=None):  # type: ignore[no-untyped-def]
    rows, dtype = logits.shape[:-1], _result_dtype(logits, value)
    sizes = (rows, rows, (0,) if value is None else rows)
    return tuple(logits.new_empty(size, dtype=dtype) for size in sizes)


@torch.library.register_fake("emix::policy_terms_backward")
def _(log_prob_grad, entropy_grad, value_grad, logits, action, avail, value, floor, value_wanted, floor_tensor=None):  # type: ignore[no-untyped-def]
    dtype = _inputs_dtype(logits, value)
    return logits.new_empty(logits.shape, dtype=dtype), logits.new_empty(
        logits.shape if value_wanted else (0,), dtype=dtype
    )


# Without an entry for autograd torch would warn of a missing derivative; the derivatives are the Functions above.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
for _name in ("masked_policy", "policy_terms"):
    _autograd.impl(_name, torch.library.fallthrough_kernel)
    _autograd.impl(f"{_name}_backward", torch.library.fallthrough_kernel)
