r"""N critics of one shape, an ensemble, run as one: what Ensemble-MIX and DOP learn from.

    x = ReLU(w_encode' [s, o_i, one-hot i] + b_encode)
    y = ReLU(w_hidden' x + b_hidden)
    (a, v) = w_head' y + b_head
    q = a + v                    for each member, step and agent i; of every action, or of one that is given

All agents share a member's weights. One-hot ids are never built, and what depends on the state alone is computed once
for all agents of a step.

On the CPU it is one compiled op forward and one backward: a core takes 64 rows through all layers of a member, and of
what lies between them only y is kept for the backward pass, and x where it has no more than 16 Mi elements. On a GPU
the layers are matrix products of cuBLAS, all members in one.

Types: float16, bfloat16, float32 or float64. On the CPU computed and returned in float32, or in float64 where one input
is float64; on a GPU in the inputs' own type. Any strides, any sizes but N, H >= 1. On the CPU bitwise repeatable, for
any number of threads.

Gradient: reaches every input, where asked for; on the CPU not twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_shape, check_types, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable

_critic = compiled("ensemble_critic")
_critic_backward = compiled("ensemble_critic_backward")


@public()
def ensemble_critic(
    state: Tensor,
    obs: Tensor,
    w_encode: Tensor,
    b_encode: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    actions: Tensor | None = None,
) -> Tensor:
    """Run every member of an ensemble of critics on every agent's input.

    ``x = ReLU(w_encode' [s, o_i, one-hot i] + b_encode)``, ``y = ReLU(w_hidden' x + b_hidden)``, ``(a, v) = w_head' y +
    b_head``, ``q = a + v`` for each member, step and agent i. Differentiable by all inputs; on the CPU once. Source:
    ``OffPGCritic`` of TonghanWang/DOP, whose Q = a + v has no mean subtracted; N of them: Ensemble-MIX, eq. 9.

    Args:
        state: ``[..., S]``; float16, bfloat16, float32 or float64, as all inputs (on a GPU all of one type).
        obs: ``[..., n, O]``, the same leading axes.
        w_encode: the first layer ``[N, S + O + n, H]``, its rows for the state, the observation and the agent's id.
        b_encode: ``[N, H]``.
        w_hidden: the second layer, from x to y ``[N, H, H]``.
        b_hidden: ``[N, H]``.
        w_head: the last layer ``[N, H, A + 1]``, a's columns, then v's.
        b_head: ``[N, A + 1]``.
        actions: the actions whose values are wanted ``[..., n]``, any integer dtype; None: all of them. Of what is
            none, outside 0 to A - 1, the value is NaN and the gradient 0.

    Returns:
        q ``[N, ..., n, A]``, or ``[N, ..., n]`` of the given actions; on the CPU float32 (float64 where one input is
        float64), on a GPU the inputs' type.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> N, S, O, n, H, A = 10, 5, 4, 3, 32, 6
    >>> weights = [torch.randn(N, S + O + n, H), torch.zeros(N, H), torch.randn(N, H, H), torch.zeros(N, H),
    ...            torch.randn(N, H, A + 1), torch.zeros(N, A + 1)]
    >>> ensemble_critic(torch.randn(8, 20, S), torch.randn(8, 20, n, O), *weights).shape
    torch.Size([10, 8, 20, 3, 6])
    """
    inputs = (state, obs, w_encode, b_encode, w_hidden, b_hidden, w_head, b_head, actions)
    if isinstance(obs, Tensor) and obs.device.type == "cuda":
        return _products(*inputs)
    return _ensemble_critic(*inputs)[0]


@public()
def _products(
    state: Tensor,
    obs: Tensor,
    w_encode: Tensor,
    b_encode: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    actions: Tensor | None = None,
) -> Tensor:
    """The same by torch's own batched products."""
    weights = {"w_encode": w_encode, "b_encode": b_encode, "w_hidden": w_hidden, "b_hidden": b_hidden}
    weights |= {"w_head": w_head, "b_head": b_head}
    _check(state, obs, **weights, actions=actions)
    for name, tensor in {"state": state, **weights}.items():
        require(
            tensor.dtype == obs.dtype,
            "`{}` must be of `obs`'s type on a GPU, {}, got {}",
            name,
            obs.dtype,
            tensor.dtype,
        )
    steps, (agents, features), states = obs.shape[:-2].numel(), obs.shape[-2:], state.shape[-1]
    from_state, from_obs, from_id = w_encode.split([states, features, agents], dim=1)
    shared = torch.matmul(state.reshape(steps, states), from_state) + b_encode.unsqueeze(1)  # [N, R, H]
    x = (shared.unsqueeze(2) + from_id.unsqueeze(1)).flatten(1, 2)  # [N, R n, H]
    x = torch.baddbmm(x, obs.reshape(steps * agents, features).expand(len(w_encode), -1, -1), from_obs).relu()
    y = torch.baddbmm(b_hidden.unsqueeze(1), x, w_hidden).relu()  # [N, R n, H]
    head = torch.baddbmm(b_head.unsqueeze(1), y, w_head)  # [N, R n, A + 1]
    q = (head[..., :-1] + head[..., -1:]).unflatten(1, obs.shape[:-1])  # [N, ..., n, A]
    if actions is None:
        return q
    # Neither a gather nor its gradient, a scatter: a GPU would sort for that where torch is to be deterministic.
    taken = torch.where(torch.arange(q.shape[-1], device=q.device) == actions.unsqueeze(-1), q, 0.0).sum(-1)
    return taken.masked_fill((actions < 0) | (actions >= q.shape[-1]), torch.nan)


def _check(
    state: Tensor,
    obs: Tensor,
    w_encode: Tensor,
    b_encode: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    actions: Tensor | None,
) -> None:
    floats = {"obs": obs, "state": state, "w_encode": w_encode, "b_encode": b_encode, "w_hidden": w_hidden}
    floats |= {"b_hidden": b_hidden, "w_head": w_head, "b_head": b_head}
    check_types(floats, integers={"actions": actions})
    sentence = "`obs` must have shape [..., n, O] with up to {} axes, got {}"
    require(2 <= obs.dim() < MAX_AXES, sentence, MAX_AXES - 1, list(obs.shape))
    require(state.dim() > 0, "`state` must have shape [..., S], got []")
    sentence = "`w_hidden` must have shape [N, H, H] with N and H at least 1, got {}"
    require(w_hidden.dim() == 3, sentence, list(w_hidden.shape))
    members, hidden, _ = w_hidden.shape
    require(members >= 1, sentence, list(w_hidden.shape))
    require(hidden >= 1, sentence, list(w_hidden.shape))
    sentence = "`w_head` must have shape [N, H, A + 1], got {}"
    require(w_head.dim() == 3, sentence, list(w_head.shape))
    outputs = w_head.shape[2]
    require(outputs >= 1, sentence, list(w_head.shape))
    states, inputs = state.shape[-1], state.shape[-1] + obs.shape[-1] + obs.shape[-2]
    check_shape("state", state, (*obs.shape[:-2], states))
    check_shape("w_encode", w_encode, (members, inputs, hidden))
    check_shape("b_encode", b_encode, (members, hidden))
    check_shape("w_hidden", w_hidden, (members, hidden, hidden))
    check_shape("b_hidden", b_hidden, (members, hidden))
    check_shape("w_head", w_head, (members, hidden, outputs))
    check_shape("b_head", b_head, (members, outputs))
    check_shape("actions", actions, obs.shape[:-1])


def _gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    return _critic_backward(grads[0], *inputs, *wanted[:2])


_ensemble_critic = differentiable("ensemble_critic", _critic, _gradients, places=range(8), keep=(1,))


@register_fake("ensemble_critic")
def _(state, obs, w_encode, b_encode, w_hidden, b_hidden, w_head, b_head, actions=None, save=False):  # type: ignore[no-untyped-def]
    _check(state, obs, w_encode, b_encode, w_hidden, b_hidden, w_head, b_head, actions)
    dtype = wide(state, obs, w_encode, b_encode, w_hidden, b_hidden, w_head, b_head)
    members, hidden, outputs = w_head.shape
    q = obs.new_empty((members, *obs.shape[:-1], *((outputs - 1,) if actions is None else ())), dtype=dtype)
    rows = obs.shape[:-1].numel()
    saved = 2 * hidden if members * rows * hidden <= 16 << 20 else hidden  # csrc/critic/critic.h
    return q, obs.new_empty((members if save else 0, rows, saved), dtype=dtype)


@register_fake("ensemble_critic_backward")
def _(grad, state, obs, *others):  # type: ignore[no-untyped-def]
    *weights, _, saved, state_wanted, obs_wanted = others
    inputs = [state if state_wanted else state.new_empty(0), obs if obs_wanted else obs.new_empty(0), *weights]
    return tuple(tensor.new_empty(tensor.shape, dtype=saved.dtype) for tensor in inputs)
