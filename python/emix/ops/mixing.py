r"""Mixers: from the agents' values to the value of their joint action. One launch each, and one for the gradients.

    linear     m_i = weight_i / (sum_j weight_j + 1e-10)        Q_tot = sum_i m_i q_i + bias
    expected   E_pi Q_tot = sum_i m_i sum_a pi_i(a) uncertainty_i(a) q_i(a) + bias
    monotonic  h_e = sum_i q_i |w1_ie| + b1_e                   Q_tot = sum_e ELU(h_e) |w2_e| + v, or m of them

What they all share:

Shapes: n agents, A actions, E hidden units, m values of a monotonic mixer; ``...`` is any shape and is the same for
all inputs of a call: nothing is broadcast, ``expand`` what should be. Any strides; any size may be 0.

Weights: a linear mixer's are >= 0 and are divided by their sum here, so that a hypernetwork's raw outputs and weights
that already sum to 1 give the same; where all are 0, as on padding, the mix is the bias. A monotonic mixer's w1 and
w2 are a hypernetwork's raw outputs, too: their absolute values are taken here.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64). A
gradient has its input's type.

Gradient: reaches every input, where asked for; not twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_shape, check_types, common, empty_if, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable

_linear = compiled("linear_mix")
_linear_backward = compiled("linear_mix_backward")
_expected = compiled("expected_linear_mix")
_expected_backward = compiled("expected_linear_mix_backward")
_monotonic = compiled("monotonic_mix")
_monotonic_backward = compiled("monotonic_mix_backward")
_monotonic_grad = compiled("monotonic_mix_grad")


@public()
def linear_mix(q: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mix the agents' values with weights that sum to 1.

    ``Q_tot = sum_i m_i q_i + bias``, ``m_i = weight_i / (sum_j weight_j + 1e-10)``. Differentiable, once.
    Source: DOP (Wang et al. 2021), eq. 5; Ensemble-MIX, eq. 10; DOP's code has no bias.

    Args:
        q: the agents' values ``[..., n]``; float16, bfloat16, float32 or float64, as all inputs.
        weight: ``[..., n]``, >= 0 (not checked), divided by their sum here. Where all are 0 the mix is the bias.
        bias: ``[...]``; None: 0.

    Returns:
        Q_tot ``[...]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> linear_mix(torch.tensor([[2.0, 6.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([1.0]))
    tensor([4.])
    """
    return _linear_mix(q, weight, bias)


@public()
def expected_linear_mix(
    q: Tensor, pi: Tensor, weight: Tensor, bias: Tensor | None = None, uncertainty: Tensor | None = None
) -> Tensor:
    """Compute the expected Q_tot of a linear mixer under independent policies.

    ``E_pi Q_tot = sum_i m_i sum_a pi_i(a) uncertainty_i(a) q_i(a) + bias``, ``m`` as in ``linear_mix``: because the
    mixer is linear this is the exact expectation over all A^n joint actions. Differentiable, once. Source: DOP,
    appendix; Ensemble-MIX, eq. 9 and 10.

    Args:
        q: the agents' values of their actions ``[..., n, A]``; float16, bfloat16, float32 or float64, as all inputs.
        pi: the policies' probabilities ``[..., n, A]``. An action of probability 0 drops out, with gradient 0, even
            where its q is infinite or NaN.
        weight: ``[..., n]``, >= 0 (not checked), divided by their sum here. Where all are 0 the mix is the bias.
        bias: ``[...]``; None: 0.
        uncertainty: the members' weight of each value (``uncertainty_weight``) ``[..., n, A]``; None: 1.

    Returns:
        E_pi Q_tot ``[...]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> q = torch.tensor([[[1.0, 3.0], [0.0, torch.nan]]])
    >>> expected_linear_mix(q, torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.ones(1, 2))
    tensor([1.])
    """
    return _expected_linear_mix(q, pi, weight, bias, uncertainty)


@public()
def monotonic_mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor) -> Tensor:
    """Mix as QMIX does: a value that rises with every agent's.

    ``Q_tot = sum_e ELU(sum_i q_i |w1_ie| + b1_e) |w2_e| + v``. All but q are what hypernetworks make of the state, as
    they come: the absolute values are taken here. Differentiable, once. Source: Rashid et al. 2018, "QMIX", section 4.

    With an axis of m values behind w2 and v there are m Q_tot, which share the hidden layer:
    ``Q_tot,k = sum_e ELU(h_e) |w2_ek| + v_k``, as ADER's entropy critics have one for each agent.

    Args:
        q: the agents' values ``[..., n]``; float16, bfloat16, float32 or float64, as all inputs.
        w1: weights of the hidden layer ``[..., n, E]``, of any sign; the gradient at 0 is 0.
        b1: its bias ``[..., E]``.
        w2: weights of the last layer ``[..., E]``, or ``[..., E, m]``, of any sign; the gradient at 0 is 0.
        v: its bias ``[...]``, or ``[..., m]``.

    Returns:
        Q_tot ``[...]``, or ``[..., m]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> w1 = torch.tensor([[1.0], [-2.0]])
    >>> monotonic_mix(torch.tensor([3.0, 1.0]), w1, torch.zeros(1), torch.tensor([-1.0]), torch.tensor(0.5))
    tensor(5.5000)
    >>> monotonic_mix(torch.tensor([3.0, 1.0]), w1, torch.zeros(1), torch.tensor([[-1.0, 2.0]]), torch.zeros(2))
    tensor([ 5., 10.])
    """
    return _monotonic_mix(q, w1, b1, w2, v)


@public()
def monotonic_mix_grad(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute dQ_tot/dq_i of ``monotonic_mix``: how much the team's value depends on each agent's.

    ``sum_e |w1_ie| ELU'(h_e) |w2_e|`` with ``h_e = sum_i q_i |w1_ie| + b1_e``; from it ADER allots its target
    entropies. Of m values it is the derivative of ``sum_k weight_k Q_tot,k``. No gradient of its own. Source: ADER (Kim
    and Sung 2023), eq. 13.

    Args:
        q: the agents' values ``[..., n]``; float16, bfloat16, float32 or float64, as all inputs.
        w1: weights of the hidden layer ``[..., n, E]``, of any sign.
        b1: its bias ``[..., E]``.
        w2: weights of the last layer ``[..., E]``, or with a weight ``[..., E, m]``, of any sign.
        weight: of the values, ``[...]``, or ``[..., m]``; None: 1, of one value.

    Returns:
        ``[..., n]``, >= 0 where the weight is, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> w1 = torch.tensor([[1.0], [-2.0]])
    >>> monotonic_mix_grad(torch.tensor([3.0, 1.0]), w1, torch.zeros(1), torch.tensor([-1.0]))
    tensor([1., 2.])
    """
    return _monotonic_grad(q, w1, b1, w2, weight)


def _linear_gradients(wanted: Sequence[bool], grads: Gradients, q: Tensor, weight: Tensor, bias: object) -> Gradients:
    return *_linear_backward(grads[0], q, weight), grads[0]


def _expected_gradients(
    wanted: Sequence[bool],
    grads: Gradients,
    q: Tensor,
    pi: Tensor,
    weight: Tensor,
    bias: object,
    uncertainty: Tensor | None,
) -> Gradients:
    *first, uncertainty_grad = _expected_backward(grads[0], q, pi, weight, uncertainty, *wanted[:3], wanted[4])
    return *first, grads[0], uncertainty_grad


def _monotonic_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    return *_monotonic_backward(grads[0], *inputs[:4], any(wanted[1:4])), grads[0]


_linear_mix = differentiable("linear_mix", _linear, _linear_gradients, places=range(3))
_expected_linear_mix = differentiable("expected_linear_mix", _expected, _expected_gradients, places=range(5))
_monotonic_mix = differentiable("monotonic_mix", _monotonic, _monotonic_gradients, places=range(5))


@register_fake("linear_mix")
def _(q, weight, bias=None):  # type: ignore[no-untyped-def]
    check_types({"q": q, "weight": weight, "bias": bias})
    _check_values(q, 1)
    check_shape("weight", weight, q.shape)
    check_shape("bias", bias, q.shape[:-1])
    return q.new_empty(q.shape[:-1], dtype=wide(q, weight, bias))


@register_fake("linear_mix_backward")
def _(grad, q, weight):  # type: ignore[no-untyped-def]
    dtype = wide(q, weight)
    return q.new_empty(q.shape, dtype=dtype), weight.new_empty(weight.shape, dtype=dtype)


@register_fake("expected_linear_mix")
def _(q, pi, weight, bias=None, uncertainty=None):  # type: ignore[no-untyped-def]
    check_types({"q": q, "pi": pi, "weight": weight, "bias": bias, "uncertainty": uncertainty})
    _check_values(q, 2)
    check_shape("pi", pi, q.shape)
    check_shape("weight", weight, q.shape[:-1])
    check_shape("bias", bias, q.shape[:-2])
    check_shape("uncertainty", uncertainty, q.shape)
    return q.new_empty(q.shape[:-2], dtype=wide(q, pi, weight, bias, uncertainty))


@register_fake("expected_linear_mix_backward")
def _(grad, q, pi, weight, uncertainty, q_wanted, pi_wanted, weight_wanted, uncertainty_wanted):  # type: ignore[no-untyped-def]
    dtype = common(q, pi, weight, uncertainty)
    weight_grad = empty_if(weight_wanted, weight, weight.shape, wide(q, pi, weight, uncertainty))
    return (
        empty_if(q_wanted, q, q.shape, dtype),
        empty_if(pi_wanted, q, q.shape, dtype),
        weight_grad,
        empty_if(uncertainty_wanted, q, q.shape, dtype),
    )


@register_fake("monotonic_mix")
def _(q, w1, b1, w2, v):  # type: ignore[no-untyped-def]
    outputs = w2.shape[-1:] if w2.dim() == q.dim() + 1 else ()
    _check_monotonic(q, w1, b1, w2, v, outputs)
    return q.new_empty((*q.shape[:-1], *outputs), dtype=wide(q, w1, b1, w2, v))


@register_fake("monotonic_mix_backward")
def _(grad, q, w1, b1, w2, weights_wanted):  # type: ignore[no-untyped-def]
    q_grad = q.new_empty(q.shape, dtype=wide(q, w1, b1, w2))
    return q_grad, *(
        empty_if(weights_wanted, weights, weights.shape, common(q, w1, b1, w2)) for weights in (w1, b1, w2)
    )


@register_fake("monotonic_mix_grad")
def _(q, w1, b1, w2, weight=None):  # type: ignore[no-untyped-def]
    sentence = "`w2` must have shape [..., E] like `b1` where there is no `weight`, got {}"
    require(weight is not None or w2.dim() <= q.dim(), sentence, list(w2.shape))
    outputs = w2.shape[-1:] if w2.dim() == q.dim() + 1 else ()
    _check_monotonic(q, w1, b1, w2, None, outputs)
    if weight is not None:
        check_types({"q": q, "weight": weight})
    check_shape("weight", weight, (*q.shape[:-1], *outputs))
    return q.new_empty(q.shape, dtype=wide(q, w1, b1, w2))


def _check_values(q: Tensor, inner_axes: int) -> None:
    shape = "[..., n]" if inner_axes == 1 else "[..., n, A]"
    sentence = "`q` must have shape {} and {} axes at most, got {}"
    require(inner_axes <= q.dim() <= MAX_AXES, sentence, shape, MAX_AXES, list(q.shape))


def _check_monotonic(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, v: Tensor | None, outputs: tuple[int, ...]) -> None:
    check_types({"q": q, "w1": w1, "b1": b1, "w2": w2, "v": v})
    _check_values(q, 1)
    require(b1.dim() > 0, "`b1` must have shape [..., E], got []")
    check_shape("b1", b1, (*q.shape[:-1], b1.shape[-1]))
    check_shape("w1", w1, (*q.shape, b1.shape[-1]))
    check_shape("w2", w2, (*b1.shape, *outputs))
    check_shape("v", v, (*q.shape[:-1], *outputs))
