r"""Mixers: from the agents' values to the value of their joint action. One launch each, and one for the gradients.

    linear     m_i = weight_i / (sum_j weight_j + 1e-10)        Q_tot = sum_i m_i q_i + bias
    expected   E_pi Q_tot = sum_i m_i sum_a pi_i(a) uncertainty_i(a) q_i(a) + bias
    monotonic  h_e = sum_i q_i |w1_ie| + b1_e                   Q_tot = sum_e ELU(h_e) |w2_e| + v

What they all share:

Shapes: n agents, A actions, E hidden units. Each function gives the shapes of its inputs; ``...`` is any shape and is
the same for all of them: nothing is broadcast, ``expand`` what should be. Any strides; any size may be 0.

Weights: a linear mixer's are >= 0 and are divided by their sum here, so that a hypernetwork's raw outputs and weights
that already sum to 1 give the same; where all are 0, as on padding, the mix is the bias. A monotonic mixer's w1 and
w2 are a hypernetwork's raw outputs, too: their absolute values are taken here.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64). A
gradient has its input's type.

Gradient: reaches every input, where asked for; not twice.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.ops._errors import explained

_linear = torch.ops.emix.linear_mix.default
_linear_backward = torch.ops.emix.linear_mix_backward.default
_expected = torch.ops.emix.expected_linear_mix.default
_expected_backward = torch.ops.emix.expected_linear_mix_backward.default
_monotonic = torch.ops.emix.monotonic_mix.default
_monotonic_backward = torch.ops.emix.monotonic_mix_backward.default
_monotonic_grad = torch.ops.emix.monotonic_mix_grad.default

_NO_NAMES: dict[str, str] = {}


def linear_mix(q: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mix with weights that sum to 1: q, weight [..., n], bias [...] -> Q_tot [...].

    ``Q_tot = sum_i m_i q_i + bias``, ``m_i = weight_i / (sum_j weight_j + 1e-10)``, weight >= 0 (not checked). Types,
    gradient and errors: see ``emix.ops.mixing``. Source: DOP (Wang et al. 2021), eq. 5; Ensemble-MIX, eq. 10; DOP's
    code has no bias.

    >>> linear_mix(torch.tensor([[2.0, 6.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([1.0]))
    tensor([4.])
    """
    try:
        call = _LinearMix.apply if _wants_gradient(q, weight, bias) else _linear
        return call(q, weight, bias)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def expected_linear_mix(
    q: Tensor, pi: Tensor, weight: Tensor, bias: Tensor | None = None, uncertainty: Tensor | None = None
) -> Tensor:
    """Compute the expected Q_tot under independent policies: q, pi, uncertainty [..., n, A], weight [..., n], bias
    [...] -> [...].

    ``E_pi Q_tot = sum_i m_i sum_a pi_i(a) uncertainty_i(a) q_i(a) + bias``, ``m`` as in ``linear_mix``: because the
    mixer is linear this is the exact expectation over all A^n joint actions. ``uncertainty``: the members' weight of
    each value (``uncertainty_weight``), 1 where not given. An action of probability 0 drops out, even where its q is
    infinite or NaN. Types, gradient and errors: see ``emix.ops.mixing``. Source: DOP, appendix; Ensemble-MIX, eq. 9
    and 10.

    >>> q = torch.tensor([[[1.0, 3.0], [0.0, torch.nan]]])
    >>> expected_linear_mix(q, torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.ones(1, 2))
    tensor([1.])
    """
    try:
        call = _ExpectedLinearMix.apply if _wants_gradient(q, pi, weight, bias, uncertainty) else _expected
        return call(q, pi, weight, bias, uncertainty)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def monotonic_mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> Tensor:
    """Mix as QMIX does: q [..., n], w1 [..., n, E], b1 and w2 [..., E], v [...] -> Q_tot [...], which rises with
    every q.

    ``Q_tot = sum_e ELU(sum_i q_i |w1_ie| + b1_e) |w2_e| + v``. All but q are what hypernetworks make of the state, as
    they come: the absolute values are taken here. Types, gradient and errors: see ``emix.ops.mixing``. Source: Rashid
    et al. 2018, "QMIX", section 4.

    >>> w1 = torch.tensor([[1.0], [-2.0]])
    >>> monotonic_mix(torch.tensor([3.0, 1.0]), w1, torch.zeros(1), torch.tensor([-1.0]), torch.tensor(0.5))
    tensor(5.5000)
    """
    try:
        call = _MonotonicMix.apply if _wants_gradient(q, w1, b1, w2, v) else _monotonic
        return call(q, w1, b1, w2, v)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def monotonic_mix_grad(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
    """Compute dQ_tot/dq_i of ``monotonic_mix``, inputs as there: -> [..., n], >= 0, no gradient of its own.

    ``sum_e |w1_ie| ELU'(h_e) |w2_e|``: how much the team's value depends on each agent's, from which ADER allots its
    target entropies. Types and errors: see ``emix.ops.mixing``. Source: ADER (Kim and Sung 2023), eq. 13.

    >>> w1 = torch.tensor([[1.0], [-2.0]])
    >>> monotonic_mix_grad(torch.tensor([3.0, 1.0]), w1, torch.zeros(1), torch.tensor([-1.0]))
    tensor([1., 2.])
    """
    try:
        return _monotonic_grad(q, w1, b1, w2)
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def _wants_gradient(*inputs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in inputs)


# Wrappers in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too. A
# gradient's dtype is mended by autograd itself.


class _LinearMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, weight)
        return _linear(q, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q_grad, weight_grad = _linear_backward(grad, *ctx.saved_tensors)
        return q_grad, weight_grad, grad if ctx.needs_input_grad[2] else None


class _ExpectedLinearMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> Tensor:
        q, pi, weight, _, uncertainty = inputs
        ctx.save_for_backward(q, pi, weight, uncertainty)
        return _expected(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad
        q_grad, pi_grad, weight_grad, uncertainty_grad = _expected_backward(
            grad, *ctx.saved_tensors, wanted[0], wanted[1], wanted[2], wanted[4]
        )
        grads = (q_grad, pi_grad, weight_grad, grad, uncertainty_grad)
        return tuple(each if needed else None for each, needed in zip(grads, wanted, strict=True))


class _MonotonicMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, w1, b1, w2)
        return _monotonic(q, w1, b1, w2, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad
        grads = (*_monotonic_backward(grad, *ctx.saved_tensors, any(wanted[1:4])), grad)
        return tuple(each if needed else None for each, needed in zip(grads, wanted, strict=True))


def _wide(*tensors: Tensor | None) -> torch.dtype:
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def _inputs_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The type that inputs are read in, and that the larger gradients are written in."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    return dtypes.pop() if len(dtypes) == 1 else _wide(*tensors)


def _if(wanted: bool, like: Tensor, dtype: torch.dtype) -> Tensor:
    return like.new_empty(like.shape if wanted else (0,), dtype=dtype)


@torch.library.register_fake("emix::linear_mix")
def _(q, weight, bias=None):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape[:-1], dtype=_wide(q, weight, bias))


@torch.library.register_fake("emix::linear_mix_backward")
def _(grad, q, weight):  # type: ignore[no-untyped-def]
    dtype = _wide(q, weight)
    return q.new_empty(q.shape, dtype=dtype), weight.new_empty(weight.shape, dtype=dtype)


@torch.library.register_fake("emix::expected_linear_mix")
def _(q, pi, weight, bias=None, uncertainty=None):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape[:-2], dtype=_wide(q, pi, weight, bias, uncertainty))


@torch.library.register_fake("emix::expected_linear_mix_backward")
def _(grad, q, pi, weight, uncertainty, q_wanted, pi_wanted, weight_wanted, uncertainty_wanted):  # type: ignore[no-untyped-def]
    dtype = _inputs_dtype(q, pi, weight, uncertainty)
    weight_grad = _if(weight_wanted, weight, _wide(q, pi, weight, uncertainty))
    return _if(q_wanted, q, dtype), _if(pi_wanted, q, dtype), weight_grad, _if(uncertainty_wanted, q, dtype)


@torch.library.register_fake("emix::monotonic_mix")
def _(q, w1, b1, w2, v):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape[:-1], dtype=_wide(q, w1, b1, w2, v))


@torch.library.register_fake("emix::monotonic_mix_backward")
def _(grad, q, w1, b1, w2, weights_wanted):  # type: ignore[no-untyped-def]
    q_grad = q.new_empty(q.shape, dtype=_wide(q, w1, b1, w2))
    return q_grad, *(_if(weights_wanted, weights, _inputs_dtype(q, w1, b1, w2)) for weights in (w1, b1, w2))


@torch.library.register_fake("emix::monotonic_mix_grad")
def _(q, w1, b1, w2):  # type: ignore[no-untyped-def]
    return q.new_empty(q.shape, dtype=_wide(q, w1, b1, w2))


# Without an entry for autograd torch would warn of a missing derivative; the derivatives are the Functions above.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
for _name in ("linear_mix", "expected_linear_mix", "monotonic_mix"):
    _autograd.impl(_name, torch.library.fallthrough_kernel)
    _autograd.impl(f"{_name}_backward", torch.library.fallthrough_kernel)
_autograd.impl("monotonic_mix_grad", torch.library.fallthrough_kernel)
