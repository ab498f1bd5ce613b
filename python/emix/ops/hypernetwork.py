r"""The hypernetworks of N monotonic mixers, run as one: from the state to the weights that ``monotonic_mix`` takes.

    x = w_first s + b_first                                     for each member; each head has columns of its own:
    b1 = x_b1
    v  = w_v' ReLU(x_v) + b_v
    w1 = w_w1' ReLU(x_w1) + b_w1    or x_w1                     two layers, or one
    w2 = w_w2' ReLU(x_w2) + b_w2    or x_w2

The first layers of all heads are one product. On the CPU it is one compiled op forward and one backward: a core takes
128 rows through all layers of a member, and of what lies between them only the hidden layers are kept for the backward
pass. On a GPU the layers are matrix products of cuBLAS, all members in one.

Types: float16, bfloat16, float32 or float64. On the CPU computed and returned in float32, or in float64 where one input
is float64; on a GPU in the inputs' own type. Any strides, any sizes but N, E, m >= 1. On the CPU bitwise repeatable,
for any number of threads.

Gradient: reaches every input, where asked for; on the CPU not twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_shape, check_types, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable

_forward = compiled("monotonic_weights")
_backward = compiled("monotonic_weights_backward")


class MonotonicWeights(NamedTuple):
    """What ``monotonic_mix`` takes beside q."""

    w1: Tensor  # [N, ..., n, E]
    b1: Tensor  # [N, ..., E]
    w2: Tensor  # [N, ..., E, m]
    v: Tensor  # [N, ..., m]


@public()
def monotonic_weights(
    state: Tensor,
    w_first: Tensor,
    b_first: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    w_w1: Tensor | None = None,
    b_w1: Tensor | None = None,
    w_w2: Tensor | None = None,
    b_w2: Tensor | None = None,
) -> MonotonicWeights:
    """Make the weights of N monotonic mixers, each of m values, from the state.

    ``x = w_first s + b_first``; of its C columns b1 has the first E, as they are; then v has E, w1 and w2 theirs, with
    a ReLU and a second layer each: ``v = w_v' ReLU(x_v) + b_v``. Without second layers of w1 and w2 their columns are
    the weights. Differentiable by all inputs; on the CPU once. Source: Rashid et al. 2018, "QMIX", section 4; two
    layers: PyMARL's ``QMixer`` with ``hypernet_layers`` 2.

    Args:
        state: ``[..., S]``; float16, bfloat16, float32 or float64, as all inputs (on a GPU all of one type).
        w_first: the first layers of all heads ``[N, C, S]``, as ``torch.nn.Linear`` has it; C = 2 E + K + K', or
            without second layers of w1 and w2 C = 2 E + n E + E m.
        b_first: ``[N, C]``.
        w_v: v's second layer ``[N, E, m]``.
        b_v: ``[N, m]``.
        w_w1: w1's second layer ``[N, K, n E]``; None, with the three that follow: w1 and w2 have one layer.
        b_w1: ``[N, n E]``.
        w_w2: w2's second layer ``[N, K', E m]``.
        b_w2: ``[N, E m]``.

    Returns:
        w1 ``[N, ..., n, E]``, b1 ``[N, ..., E]``, w2 ``[N, ..., E, m]`` and v ``[N, ..., m]``, as ``monotonic_mix``
        takes them; on the CPU float32 (float64 where one input is float64), on a GPU the inputs' type.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> N, S, n, E, m = 2, 10, 3, 32, 5
    >>> one_layer = monotonic_weights(torch.randn(8, 20, S), torch.randn(N, 2 * E + n * E + E * m, S),
    ...                          torch.zeros(N, 2 * E + n * E + E * m), torch.randn(N, E, m), torch.zeros(N, m))
    >>> [tuple(each.shape) for each in one_layer]
    [(2, 8, 20, 3, 32), (2, 8, 20, 32), (2, 8, 20, 32, 5), (2, 8, 20, 5)]
    """
    inputs = (state, w_first, b_first, w_v, b_v, w_w1, b_w1, w_w2, b_w2)
    if isinstance(state, Tensor) and state.device.type == "cuda":
        return _products(*inputs)
    return MonotonicWeights(*_monotonic_weights(*inputs)[:4])


@public()
def _products(
    state: Tensor,
    w_first: Tensor,
    b_first: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    w_w1: Tensor | None = None,
    b_w1: Tensor | None = None,
    w_w2: Tensor | None = None,
    b_w2: Tensor | None = None,
) -> MonotonicWeights:
    """The same by torch's own products."""
    weights = {"w_first": w_first, "b_first": b_first, "w_v": w_v, "b_v": b_v}
    optional = {"w_w1": w_w1, "b_w1": b_w1, "w_w2": w_w2, "b_w2": b_w2}
    widths = _check(state, w_first, b_first, w_v, b_v, **optional)
    sentence = "`{}` must be of `state`'s type on a GPU, {}, got {}"
    for name, tensor in {**weights, **optional}.items():
        if tensor is not None:
            require(tensor.dtype == state.dtype, sentence, name, state.dtype, tensor.dtype)
    lead, states, (members, embed, values) = state.shape[:-1], state.shape[-1], w_v.shape
    rows = state.reshape(lead.numel(), states)
    x = torch.addmm(b_first.flatten(), rows, w_first.flatten(0, 1).t())  # [R, N C]
    b1, v, w1, w2 = x.unflatten(-1, (members, -1)).transpose(0, 1).split((embed, embed, *widths), dim=-1)  # [N, R, ...]
    v = torch.baddbmm(b_v.unsqueeze(1), v.relu(), w_v)
    if w_w1 is not None and b_w1 is not None and w_w2 is not None and b_w2 is not None:
        w1 = torch.baddbmm(b_w1.unsqueeze(1), w1.relu(), w_w1)
        w2 = torch.baddbmm(b_w2.unsqueeze(1), w2.relu(), w_w2)
    shapes = ((w1.shape[-1] // embed, embed), (embed,), (embed, values), (values,))
    return MonotonicWeights(
        *(each.reshape(members, *lead, *shape) for each, shape in zip((w1, b1, w2, v), shapes, strict=True))
    )


def _check(
    state: Tensor,
    w_first: Tensor,
    b_first: Tensor,
    w_v: Tensor,
    b_v: Tensor,
    w_w1: Tensor | None,
    b_w1: Tensor | None,
    w_w2: Tensor | None,
    b_w2: Tensor | None,
) -> tuple[int, int]:
    """Refuse a wrong call; how many columns of the first layer w1 and w2 have."""
    first = {"state": state, "w_first": w_first, "b_first": b_first, "w_v": w_v, "b_v": b_v}
    check_types(first | {"w_w1": w_w1, "b_w1": b_w1, "w_w2": w_w2, "b_w2": b_w2})
    sentence = "`state` must have shape [..., S] with up to {} axes, got {}"
    require(1 <= state.dim() <= MAX_AXES - 2, sentence, MAX_AXES - 2, list(state.shape))
    sentence = "`w_v` must have shape [N, E, m], all at least 1, got {}"
    require(w_v.dim() == 3, sentence, list(w_v.shape))
    for size in w_v.shape:
        require(size >= 1, sentence, list(w_v.shape))
    require(w_first.dim() == 3, "`w_first` must have shape [N, C, S], got {}", list(w_first.shape))
    (members, embed, values), columns = w_v.shape, w_first.shape[1]
    widths = (columns - 2 * embed - embed * values, embed * values)
    size = widths[0]
    given = [each for each in (w_w1, b_w1, w_w2, b_w2) if each is not None]
    if w_w1 is not None and w_w2 is not None and len(given) == 4:
        require(w_w1.dim() == 3, "`w_w1` must have shape [N, K, n E], got {}", list(w_w1.shape))
        require(w_w2.dim() == 3, "`w_w2` must have shape [N, K', E m], got {}", list(w_w2.shape))
        widths, size = (w_w1.shape[1], w_w2.shape[1]), w_w1.shape[2]
    else:
        require(not given, "`w_w1`, `b_w1`, `w_w2` and `b_w2` must be given together, got {} of them", len(given))
    sentence = "`w_first` must have E + E columns and those of w1 and w2, with E = {} and m = {}, got {}"
    shown = (embed, values, list(w_first.shape))
    for fits in (size >= 0, size % embed == 0, sum(widths) == columns - 2 * embed):
        require(fits, sentence, *shown)
    check_shape("w_first", w_first, (members, columns, state.shape[-1]))
    check_shape("b_first", b_first, (members, columns))
    check_shape("b_v", b_v, (members, values))
    check_shape("w_w1", w_w1, (members, widths[0], size))
    check_shape("b_w1", b_w1, (members, size))
    check_shape("w_w2", w_w2, (members, widths[1], embed * values))
    check_shape("b_w2", b_w2, (members, embed * values))
    return widths


def _gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    return _backward(*grads[:4], *inputs, wanted[0])


_monotonic_weights = differentiable("monotonic_weights", _forward, _gradients, places=range(9), keep=(4,))


@register_fake("monotonic_weights")
def _(state, w_first, b_first, w_v, b_v, w_w1=None, b_w1=None, w_w2=None, b_w2=None, save=False):  # type: ignore[no-untyped-def]
    widths = _check(state, w_first, b_first, w_v, b_v, w_w1, b_w1, w_w2, b_w2)
    dtype = wide(state, w_first, b_first, w_v, b_v, w_w1, b_w1, w_w2, b_w2)
    lead, (members, embed, values) = state.shape[:-1], w_v.shape
    size, hidden = (widths[0], embed) if w_w1 is None else (w_w1.shape[2], embed + sum(widths))
    shapes = ((size // embed, embed), (embed,), (embed, values), (values,))
    results = [state.new_empty((members, *lead, *shape), dtype=dtype) for shape in shapes]
    return *results, state.new_empty((members if save else 0, lead.numel(), hidden), dtype=dtype)


@register_fake("monotonic_weights_backward")
def _(w1_grad, b1_grad, w2_grad, v_grad, *others):  # type: ignore[no-untyped-def]
    *inputs, saved, state_wanted = others
    state, *weights = inputs
    shapes = [state.shape if state_wanted else (0,), *((0,) if each is None else each.shape for each in weights)]
    return tuple(state.new_empty(shape, dtype=saved.dtype) for shape in shapes)
