r"""A GRU over whole sequences, alone or with the layers of an agent around it: one call forward, one backward.

    e_t = ReLU(w_encode [x_t, one-hot last action, one-hot id] + b_encode)      the agent's; a plain GRU has e_t = x_t
    r_t = sigmoid(w_ir e_t + b_ir + w_hr h_{t-1} + b_hr)
    z_t = sigmoid(w_iz e_t + b_iz + w_hz h_{t-1} + b_hz)
    n_t = tanh(w_in e_t + b_in + r_t (w_hn h_{t-1} + b_hn))
    h_t = (1 - z_t) n_t + z_t h_{t-1}
    q_t = w_head h_t + b_head                                                   the agent's; a plain GRU gives h_t

These are ``torch.nn.GRU``'s equations and weights: gates in the order r, z, n, w_ih ``[3 H, I]``, w_hh ``[3 H, H]``,
b_ih and b_hh ``[3 H]``. H from 1 to 256; 64 and 128 are fastest.

Padding: there is no mask. Rows whose episodes are shorter run on over whatever follows, which no earlier step sees.
Going back, a step is skipped where neither its own upstream gradient nor a later step's reaches it: nothing there, NaN
included, comes into any gradient.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64). A
gradient has its input's type. Any strides; any size but H may be 0. Bitwise repeatable, for any number of threads.

Precision: with ``precision`` "tf32" or "bf16" a GPU from compute capability 8.0 on multiplies on its matrix units. The
inputs of every matrix product, forward and backward, are rounded to that type (tf32 keeps 10 bits of the mantissa, bf16
7) and their products added up in float32; gates, states, gradients of biases and all results are float32. The CPU and
older GPUs have no such units and compute in float32 whatever it says. Where an input is float64 it must be "float32".

Gradient: reaches every input but the integers, where asked for; not twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from emix._precision import Precision
from emix.ops._call import compiled, public
from emix.ops._fake import MAX_HIDDEN, check_shape, check_types, empty_if, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable

_gru = compiled("gru_sequence")
_gru_backward = compiled("gru_sequence_backward")
_agent = compiled("agent_sequence")
_agent_backward = compiled("agent_sequence_backward")

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)  # the library takes the index


@public()
def gru_sequence(
    x: Tensor,
    h0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    precision: Precision = "float32",
) -> Tensor:
    """Run a GRU over R sequences of T steps.

    The equations, order of gates (r, z, n) and weights of ``torch.nn.GRU`` (one layer, batch first)::

        r_t = sigmoid(w_ir x_t + b_ir + w_hr h_{t-1} + b_hr)
        z_t = sigmoid(w_iz x_t + b_iz + w_hz h_{t-1} + b_hz)
        n_t = tanh(w_in x_t + b_in + r_t (w_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    ``gru_sequence(x, h0, *gru.parameters())`` is ``gru(x, h0[None])[0]``. Differentiable by all inputs, once.
    Source: Cho et al. 2014, in cuDNN's form.

    Args:
        x: ``[R, T, I]``; float16, bfloat16, float32 or float64, as all inputs. There is no mask: a shorter sequence
            runs on over whatever follows, which no earlier step sees; the backward pass skips steps that no gradient
            reaches.
        h0: state before the first step ``[R, H]``; None: zeros.
        w_ih: ``[3 H, I]``.
        w_hh: ``[3 H, H]``, H from 1 to 256; 64 and 128 are fastest.
        b_ih: ``[3 H]``.
        b_hh: ``[3 H]``.
        precision: of matrix products on a GPU from compute capability 8.0 on, "float32", "tf32" or "bf16"; see
            ``emix.ops.recurrent``. Where an input is float64 it must be "float32".

    Returns:
        The states h ``[R, T, H]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> gru = torch.nn.GRU(3, 4, batch_first=True)
    >>> x = torch.randn(2, 5, 3)
    >>> torch.allclose(gru_sequence(x, None, *gru.parameters()), gru(x)[0], atol=1e-5)
    True
    """
    return _gru_sequence(x, h0, w_ih, w_hh, b_ih, b_hh, _PRECISIONS.index(precision))[0]


@public()
def agent_sequence(
    obs: Tensor,
    last_action: Tensor | None,
    h0: Tensor | None,
    w_encode: Tensor,
    b_encode: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    *,
    precision: Precision = "float32",
) -> tuple[Tensor, Tensor]:
    """Run the recurrent agent, linear + ReLU, GRU, linear, over whole episodes; acting is T = 1.

    ``e_t = ReLU(w_encode [obs_t, one-hot last action, one-hot id] + b_encode)``, then ``gru_sequence`` over e, then
    ``q_t = w_head h_t + b_head``. All n agents share the weights. One-hot inputs are never built: a last action and an
    agent's index each select a column of ``w_encode``. Differentiable by all inputs but the integers, once. Source: the
    agents of oxwhirl/pymarl; SMIX(lambda), section VI-B.

    Args:
        obs: observations ``[B, T, n, O]``; float16, bfloat16, float32 or float64, as all inputs but the actions. There
            is no mask: a shorter episode runs on over its padding, which no earlier step sees; the backward pass skips
            steps that no gradient reaches.
        last_action: the action before each observation, integers ``[B, T, n]``; outside 0 .. A - 1 (an episode's first
            step): none, which adds nothing. None: w_encode has no columns for it.
        h0: state before the first step ``[B, n, H]``; None: zeros.
        w_encode: the first layer ``[H, O + A + n]``, whose columns belong to the observation, the last action and the
            id; it may end before the ids'.
        b_encode: ``[H]``.
        w_ih: the GRU's, as in ``torch.nn.GRU`` ``[3 H, H]``.
        w_hh: ``[3 H, H]``, H from 1 to 256; 64 and 128 are fastest.
        b_ih: ``[3 H]``.
        b_hh: ``[3 H]``.
        w_head: the last layer ``[A, H]``.
        b_head: ``[A]``.
        precision: of matrix products on a GPU from compute capability 8.0 on, "float32", "tf32" or "bf16"; see
            ``emix.ops.recurrent``. Where an input is float64 it must be "float32".

    Returns:
        Action values ``[B, T, n, A]`` and the state after the last step ``[B, n, H]``, float32; float64 where one input
        is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> B, T, n, O, A, H = 2, 5, 3, 7, 4, 64
    >>> weights = [torch.randn(H, O + A + n), torch.zeros(H), *torch.nn.GRU(H, H).parameters(), torch.randn(A, H),
    ...            torch.zeros(A)]
    >>> q, h = agent_sequence(torch.randn(B, T, n, O), torch.zeros(B, T, n, dtype=torch.int64), None, *weights)
    >>> q.shape, h.shape
    (torch.Size([2, 5, 3, 4]), torch.Size([2, 3, 64]))
    """
    inputs = (obs, last_action, h0, w_encode, b_encode, w_ih, w_hh, b_ih, b_hh, w_head, b_head)
    return _agent_sequence(*inputs, _PRECISIONS.index(precision))[:2]


def _run_gru(*inputs: Any, save: bool = False) -> tuple[Tensor, ...]:
    *tensors, precision = inputs
    return _gru(*tensors, save, precision)


def _gru_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Any) -> Gradients:
    *tensors, precision, h, saved = inputs
    return _gru_backward(grads[0], *tensors, h, saved, wanted[0], precision)


def _run_agent(*inputs: Any, save: bool = False) -> tuple[Tensor, ...]:
    *tensors, precision = inputs
    return _agent(*tensors, save, precision)


def _agent_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Any) -> Gradients:
    *tensors, precision, saved = inputs
    q_grad, hidden_grad, _ = grads
    obs_grad, *others = _agent_backward(q_grad, hidden_grad, *tensors, saved, wanted[0], precision)
    return obs_grad, None, *others


_gru_sequence = differentiable("gru_sequence", _run_gru, _gru_gradients, places=range(6), keep=(0, 1))
_agent_sequence = differentiable("agent_sequence", _run_agent, _agent_gradients, places=(0, *range(2, 11)), keep=(2,))


def _like(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape, dtype=dtype) for tensor in tensors)


def _check_gru(
    inputs: int, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, dtype: torch.dtype, precision: int
) -> int:
    """Give H."""
    sentence = "`w_hh` must have shape [3 H, H] with H from 1 to {}, got {}"
    require(w_hh.dim() == 2, sentence, MAX_HIDDEN, list(w_hh.shape))
    hidden = w_hh.shape[1]
    require(hidden >= 1, sentence, MAX_HIDDEN, list(w_hh.shape))
    require(hidden <= MAX_HIDDEN, sentence, MAX_HIDDEN, list(w_hh.shape))
    check_shape("w_hh", w_hh, (3 * hidden, hidden))
    check_shape("w_ih", w_ih, (3 * hidden, inputs))
    check_shape("b_ih", b_ih, (3 * hidden,))
    check_shape("b_hh", b_hh, (3 * hidden,))
    sentence = "`precision` must be float32 where an input is float64 (computed in float64), got {}"
    require(precision == 0 or dtype == torch.float32, sentence, _PRECISIONS[precision])
    return hidden


@register_fake("gru_sequence")
def _(x, h0, w_ih, w_hh, b_ih, b_hh, save=False, precision=0):  # type: ignore[no-untyped-def]
    check_types({"x": x, "h0": h0, "w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh})
    require(x.dim() == 3, "`x` must have shape [R, T, I], got {}", list(x.shape))
    rows, steps, inputs = x.shape
    dtype = wide(x, h0, w_ih, w_hh, b_ih, b_hh)
    hidden = _check_gru(inputs, w_ih, w_hh, b_ih, b_hh, dtype, precision)
    check_shape("h0", h0, (rows, hidden))
    out = x.new_empty((rows, steps, hidden), dtype=dtype)
    return out, empty_if(save, x, (steps, rows, 4 * hidden), dtype)


@register_fake("gru_sequence_backward")
def _(grad, x, h0, w_ih, w_hh, b_ih, b_hh, out, saved, x_wanted, precision=0):  # type: ignore[no-untyped-def]
    dtype = out.dtype
    x_grad = empty_if(x_wanted, x, x.shape, dtype)
    h0_grad = empty_if(h0 is not None, x, (x.shape[0], w_hh.shape[1]), dtype)
    return x_grad, h0_grad, *_like(dtype, w_ih, w_hh, b_ih, b_hh)


@register_fake("agent_sequence")
def _(obs, last_action, h0, w_encode, b_encode, w_ih, w_hh, b_ih, b_hh, w_head, b_head, save=False, precision=0):  # type: ignore[no-untyped-def]
    floats = {"obs": obs, "h0": h0, "w_encode": w_encode, "b_encode": b_encode, "w_ih": w_ih, "w_hh": w_hh}
    floats |= {"b_ih": b_ih, "b_hh": b_hh, "w_head": w_head, "b_head": b_head}
    check_types(floats, integers={"last_action": last_action})
    require(obs.dim() == 4, "`obs` must have shape [B, T, n, O], got {}", list(obs.shape))
    episodes, steps, agents, features = obs.shape
    dtype = wide(*floats.values())
    require(w_hh.dim() == 2, "`w_hh` must have shape [3 H, H], got {}", list(w_hh.shape))
    hidden = _check_gru(w_hh.shape[1], w_ih, w_hh, b_ih, b_hh, dtype, precision)
    require(w_head.dim() == 2, "`w_head` must have shape [A, H], got {}", list(w_head.shape))
    actions = w_head.shape[0]
    check_shape("last_action", last_action, (episodes, steps, agents))
    sentence = (
        "`w_encode` must have shape [H, O + A + n], without A where there is no last_action, or without n, got {}"
    )
    columns = features if last_action is None else features + actions
    require(w_encode.dim() == 2, sentence, list(w_encode.shape))
    require(w_encode.shape[1] in (columns, columns + agents), sentence, list(w_encode.shape))
    check_shape("w_encode", w_encode, (hidden, w_encode.shape[1]))
    check_shape("b_encode", b_encode, (hidden,))
    check_shape("w_head", w_head, (actions, hidden))
    check_shape("b_head", b_head, (actions,))
    check_shape("h0", h0, (episodes, agents, hidden))
    q = obs.new_empty((episodes, steps, agents, actions), dtype=dtype)
    last = obs.new_empty((episodes, agents, hidden), dtype=dtype)
    return q, last, empty_if(save, obs, (steps, episodes * agents, 6 * hidden), dtype)


@register_fake("agent_sequence_backward")
def _(  # type: ignore[no-untyped-def]
    q_grad,
    hidden_grad,
    obs,
    last_action,
    h0,
    w_encode,
    b_encode,
    w_ih,
    w_hh,
    b_ih,
    b_hh,
    w_head,
    b_head,
    saved,
    obs_wanted,
    precision=0,
):
    dtype = saved.dtype
    obs_grad = empty_if(obs_wanted, obs, obs.shape, dtype)
    h0_grad = empty_if(h0 is not None, obs, (obs.shape[0], obs.shape[2], w_hh.shape[1]), dtype)
    return obs_grad, h0_grad, *_like(dtype, w_encode, b_encode, w_ih, w_hh, b_ih, b_hh, w_head, b_head)
