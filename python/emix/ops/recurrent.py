r"""A GRU over whole sequences, alone or with the layers of an agent around it: one call forward, one backward.

    e_t = ReLU(w_in [x_t, one-hot last action, one-hot id] + b_in)              the agent's; a plain GRU has e_t = x_t
    r_t = sigmoid(w_ir e_t + b_ir + w_hr h_{t-1} + b_hr)
    z_t = sigmoid(w_iz e_t + b_iz + w_hz h_{t-1} + b_hz)
    n_t = tanh(w_in e_t + b_in + r_t (w_hn h_{t-1} + b_hn))
    h_t = (1 - z_t) n_t + z_t h_{t-1}
    q_t = w_out h_t + b_out                                                     the agent's; a plain GRU gives h_t

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

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.errors import UsageError
from emix.ops._errors import explained

_gru = torch.ops.emix.gru_sequence.default
_gru_backward = torch.ops.emix.gru_sequence_backward.default
_agent = torch.ops.emix.agent_sequence.default
_agent_backward = torch.ops.emix.agent_sequence_backward.default

Precision = Literal["float32", "tf32", "bf16"]
_PRECISIONS: tuple[Precision, ...] = get_args(Precision)  # the library takes the index

_NO_NAMES: dict[str, str] = {}


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
    """Run a GRU over R sequences of T steps: x [R, T, I], h0 [R, H] (None: zeros) -> h [R, T, H].

    The equations, order of gates and weights of ``torch.nn.GRU`` (one layer, batch first): ``gru_sequence(x, h0,
    *gru.parameters())`` is ``gru(x, h0[None])[0]``. Padding, types, ``precision``, gradient and errors: see
    ``emix.ops.recurrent``. Source: Cho et al. 2014, in cuDNN's form.

    >>> gru = torch.nn.GRU(3, 4, batch_first=True)
    >>> x = torch.randn(2, 5, 3)
    >>> torch.allclose(gru_sequence(x, None, *gru.parameters()), gru(x)[0], atol=1e-5)
    True
    """
    inputs = (x, h0, w_ih, w_hh, b_ih, b_hh)
    try:
        if _wants_gradient(*inputs):
            return _GruSequence.apply(_index(precision), *inputs)
        return _gru(*inputs, precision=_index(precision))[0]
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def agent_sequence(
    obs: Tensor,
    last_action: Tensor | None,
    h0: Tensor | None,
    w_in: Tensor,
    b_in: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    *,
    precision: Precision = "float32",
) -> tuple[Tensor, Tensor]:
    """Run the recurrent agent, linear + ReLU, GRU, linear, over whole episodes; acting is T = 1.

    All n agents share the weights. One-hot inputs are never built: a last action and an agent's index each select a
    column of ``w_in`` ``[H, O + A + n]``, whose columns belong to the observation, the last action and the id. Where
    ``last_action`` is None there are no such columns, and ``w_in`` may end before the ids'. Padding, types, gradient
    and errors: see ``emix.ops.recurrent``. Source: the agents of oxwhirl/pymarl; SMIX(lambda), section VI-B.

    Args:
        obs: observations ``[B, T, n, O]``.
        last_action: the action before each observation, integers ``[B, T, n]``; outside 0 .. A - 1 (an episode's first
            step): none, which adds nothing. Or None.
        h0: state before the first step ``[B, n, H]``; None: zeros.
        w_in: ``[H, O + A + n]``, and b_in ``[H]``: the first layer.
        b_in: see w_in.
        w_ih: ``[3 H, H]``, w_hh ``[3 H, H]``, b_ih and b_hh ``[3 H]``: the GRU, as in ``torch.nn.GRU``.
        w_hh: see w_ih.
        b_ih: see w_ih.
        b_hh: see w_ih.
        w_out: ``[A, H]``, and b_out ``[A]``: the last layer.
        b_out: see w_out.
        precision: of matrix products on CUDA, "float32", "tf32" or "bf16".

    Returns:
        Action values ``[B, T, n, A]`` and the state after the last step ``[B, n, H]``.
    """
    inputs = (obs, last_action, h0, w_in, b_in, w_ih, w_hh, b_ih, b_hh, w_out, b_out)
    try:
        if _wants_gradient(*inputs):
            return _AgentSequence.apply(_index(precision), *inputs)
        return _agent(*inputs, precision=_index(precision))[:2]
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def _index(precision: Precision) -> int:
    if precision not in _PRECISIONS:
        raise UsageError(f'precision must be "float32", "tf32" or "bf16", got {precision!r}')
    return _PRECISIONS.index(precision)


def _wants_gradient(*inputs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in inputs)


# Wrappers in place of ``torch.library.register_autograd``, which would tax every call with no gradient, too. A
# gradient's dtype is mended by autograd itself.


class _GruSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, precision: int, *inputs: Tensor | None) -> Tensor:
        out, saved = _gru(*inputs, True, precision)
        ctx.precision = precision
        ctx.save_for_backward(*inputs, out, saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = _gru_backward(grad, *ctx.saved_tensors, ctx.needs_input_grad[1], ctx.precision)
        return _if_needed(ctx, (None, *grads))


class _AgentSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, precision: int, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        q, hidden, saved = _agent(*inputs, True, precision)
        ctx.precision = precision
        ctx.save_for_backward(*inputs, saved)
        ctx.set_materialize_grads(False)
        return q, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, q_grad: Tensor | None, hidden_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        obs_grad, *grads = _agent_backward(
            q_grad, hidden_grad, *ctx.saved_tensors, ctx.needs_input_grad[1], ctx.precision
        )
        return _if_needed(ctx, (None, obs_grad, None, *grads))


def _if_needed(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=True))


def _wide(*tensors: Tensor | None) -> torch.dtype:
    wide = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def _if(wanted: bool, like: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty(shape if wanted else (0,), dtype=dtype)


def _like(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape, dtype=dtype) for tensor in tensors)


@torch.library.register_fake("emix::gru_sequence")
def _(x, h0, w_ih, w_hh, b_ih, b_hh, save=False, precision=0):  # type: ignore[no-untyped-def]
    dtype = _wide(x, h0, w_ih, w_hh, b_ih, b_hh)
    rows, steps, hidden = x.shape[0], x.shape[1], w_hh.shape[1]
    out = x.new_empty((rows, steps, hidden), dtype=dtype)
    return out, _if(save, x, steps, rows, 4 * hidden, dtype=dtype)


@torch.library.register_fake("emix::gru_sequence_backward")
def _(grad, x, h0, w_ih, w_hh, b_ih, b_hh, out, saved, x_wanted, precision=0):  # type: ignore[no-untyped-def]
    dtype = out.dtype
    x_grad = _if(x_wanted, x, *x.shape, dtype=dtype)
    h0_grad = _if(h0 is not None, x, x.shape[0], w_hh.shape[1], dtype=dtype)
    return x_grad, h0_grad, *_like(dtype, w_ih, w_hh, b_ih, b_hh)


@torch.library.register_fake("emix::agent_sequence")
def _(obs, last_action, h0, w_in, b_in, w_ih, w_hh, b_ih, b_hh, w_out, b_out, save=False, precision=0):  # type: ignore[no-untyped-def]
    dtype = _wide(obs, h0, w_in, b_in, w_ih, w_hh, b_ih, b_hh, w_out, b_out)
    episodes, steps, agents = obs.shape[0], obs.shape[1], obs.shape[2]
    hidden = w_hh.shape[1]
    q = obs.new_empty((episodes, steps, agents, w_out.shape[0]), dtype=dtype)
    last = obs.new_empty((episodes, agents, hidden), dtype=dtype)
    return q, last, _if(save, obs, steps, episodes * agents, 6 * hidden, dtype=dtype)


@torch.library.register_fake("emix::agent_sequence_backward")
def _(  # type: ignore[no-untyped-def]
    q_grad,
    hidden_grad,
    obs,
    last_action,
    h0,
    w_in,
    b_in,
    w_ih,
    w_hh,
    b_ih,
    b_hh,
    w_out,
    b_out,
    saved,
    obs_wanted,
    precision=0,
):
    dtype = saved.dtype
    obs_grad = _if(obs_wanted, obs, *obs.shape, dtype=dtype)
    h0_grad = _if(h0 is not None, obs, obs.shape[0], obs.shape[2], w_hh.shape[1], dtype=dtype)
    return obs_grad, h0_grad, *_like(dtype, w_in, b_in, w_ih, w_hh, b_ih, b_hh, w_out, b_out)


# Without an entry for autograd torch would warn of a missing derivative; the derivatives are the Functions above.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
for _name in ("gru_sequence", "agent_sequence"):
    _autograd.impl(_name, torch.library.fallthrough_kernel)
    _autograd.impl(f"{_name}_backward", torch.library.fallthrough_kernel)
