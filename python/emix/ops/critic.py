r"""N critics of one shape, an ensemble, run as one: what Ensemble-MIX and DOP learn from.

    x = ReLU(w_in' [s, o_i, one-hot i] + b_in)
    y = ReLU(w_hidden' x + b_hidden)
    (a, v) = w_head' y + b_head
    q = a + v                                                        for each member, step and agent i

All agents share a member's weights. One-hot ids are never built, and what depends on the state alone is computed once
for all agents of a step.

On the CPU it is one compiled op forward and one backward: a core takes 64 rows through all layers of a member, and of
what lies between them only y is kept for the backward pass. On a GPU the layers are matrix products of cuBLAS, all
members in one.

Types: float16, bfloat16, float32 or float64. On the CPU computed and returned in float32, or in float64 where one input
is float64; on a GPU in the inputs' own type. Any strides, any sizes but N, H >= 1. On the CPU bitwise repeatable, for
any number of threads.

Gradient: reaches every input, where asked for; on the CPU not twice.

Errors: ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emix.errors import UsageError
from emix.ops._errors import explained

_critic = torch.ops.emix.ensemble_critic.default
_critic_backward = torch.ops.emix.ensemble_critic_backward.default

_NO_NAMES: dict[str, str] = {}


def ensemble_critic(
    state: Tensor,
    obs: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> Tensor:
    """Run every member on every agent's input: state [..., S], obs [..., n, O] -> q [N, ..., n, A].

    Source: ``OffPGCritic`` of TonghanWang/DOP, whose Q = a + v has no mean subtracted; N of them: Ensemble-MIX, eq. 9.
    Equations, types, gradient and errors: see ``emix.ops.critic``.

    Args:
        state: ``[..., S]``.
        obs: ``[..., n, O]``, the same leading axes.
        w_in: ``[N, S + O + n, H]``, its rows for the state, the observation and the agent's id; and b_in ``[N, H]``.
        b_in: see w_in.
        w_hidden: ``[N, H, H]``, from x to y; and b_hidden ``[N, H]``.
        b_hidden: see w_hidden.
        w_head: ``[N, H, A + 1]``, a's columns, then v's; and b_head ``[N, A + 1]``.
        b_head: see w_head.

    >>> N, S, O, n, H, A = 10, 5, 4, 3, 32, 6
    >>> weights = [torch.randn(N, S + O + n, H), torch.zeros(N, H), torch.randn(N, H, H), torch.zeros(N, H),
    ...            torch.randn(N, H, A + 1), torch.zeros(N, A + 1)]
    >>> ensemble_critic(torch.randn(8, 20, S), torch.randn(8, 20, n, O), *weights).shape
    torch.Size([10, 8, 20, 3, 6])
    """
    inputs = (state, obs, w_in, b_in, w_hidden, b_hidden, w_head, b_head)
    if isinstance(obs, Tensor) and obs.device.type == "cuda":
        return _products(*inputs)
    try:
        if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in inputs):
            return _EnsembleCritic.apply(*inputs)
        return _critic(*inputs)[0]
    except RuntimeError as error:
        raise explained(error, _NO_NAMES) from None


def _products(
    state: Tensor,
    obs: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> Tensor:
    """The same by torch's own batched products."""
    _check(state, obs, w_in, b_in, w_hidden, b_hidden, w_head, b_head)
    steps, (agents, features), states = obs.shape[:-2].numel(), obs.shape[-2:], state.shape[-1]
    from_state, from_obs, from_id = w_in.split([states, features, agents], dim=1)
    shared = torch.matmul(state.reshape(steps, states), from_state) + b_in.unsqueeze(1)  # [N, R, H]
    x = (shared.unsqueeze(2) + from_id.unsqueeze(1)).flatten(1, 2)  # [N, R n, H]
    x = torch.baddbmm(x, obs.reshape(steps * agents, features).expand(len(w_in), -1, -1), from_obs).relu()
    y = torch.baddbmm(b_hidden.unsqueeze(1), x, w_hidden).relu()  # [N, R n, H]
    head = torch.baddbmm(b_head.unsqueeze(1), y, w_head)  # [N, R n, A + 1]
    return (head[..., :-1] + head[..., -1:]).unflatten(1, obs.shape[:-1])


def _check(
    state: Tensor,
    obs: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> None:
    given = {"state": state, "obs": obs, "w_in": w_in, "b_in": b_in, "w_hidden": w_hidden}
    given |= {"b_hidden": b_hidden, "w_head": w_head, "b_head": b_head}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{name} must be a tensor, got {tensor!r}")
        if not tensor.is_floating_point() or tensor.dtype != obs.dtype:
            raise UsageError(
                f"{name} must be a float16, bfloat16, float32 or float64 tensor of obs's type on a GPU, "
                f"got {tensor.dtype}, and obs is {obs.dtype}"
            )
        if tensor.device != obs.device:
            raise UsageError(f"{name} must be on {obs.device} like obs, got {tensor.device}")
    if obs.dim() < 2 or w_head.dim() != 3 or w_hidden.dim() != 3:
        raise UsageError(
            f"expected obs [..., n, O], w_hidden [N, H, H] and w_head [N, H, A + 1], "
            f"got {list(obs.shape)}, {list(w_hidden.shape)} and {list(w_head.shape)}"
        )
    members, hidden, outputs = w_head.shape
    if members < 1 or hidden < 1 or outputs < 1:
        raise UsageError(f"w_head must have shape [N, H, A + 1] with N and H at least 1, got {list(w_head.shape)}")
    states = state.shape[-1] if state.dim() else 0
    expected = {
        "state": (state, [*obs.shape[:-2], states]),
        "w_in": (w_in, [members, states + obs.shape[-1] + obs.shape[-2], hidden]),
        "b_in": (b_in, [members, hidden]),
        "w_hidden": (w_hidden, [members, hidden, hidden]),
        "b_hidden": (b_hidden, [members, hidden]),
        "b_head": (b_head, [members, outputs]),
    }
    for name, (tensor, shape) in expected.items():
        if list(tensor.shape) != shape:
            raise UsageError(
                f"{name} must have shape {shape} because obs has shape {list(obs.shape)} "
                f"and w_head {list(w_head.shape)}, got {list(tensor.shape)}"
            )


class _EnsembleCritic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        q, saved = _critic(*inputs, True)
        ctx.save_for_backward(*inputs, saved)
        return q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        grads = _critic_backward(grad, *ctx.saved_tensors, needed[0], needed[1])
        return tuple(each if wanted else None for each, wanted in zip(grads, needed, strict=True))


def _dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


@torch.library.register_fake("emix::ensemble_critic")
def _(state, obs, w_in, b_in, w_hidden, b_hidden, w_head, b_head, save=False):  # type: ignore[no-untyped-def]
    dtype = _dtype(state, obs, w_in, b_in, w_hidden, b_hidden, w_head, b_head)
    members, hidden, outputs = w_head.shape
    q = obs.new_empty((members, *obs.shape[:-1], outputs - 1), dtype=dtype)
    rows = obs.shape[:-1].numel()
    return q, obs.new_empty((members if save else 0, rows, hidden), dtype=dtype)


@torch.library.register_fake("emix::ensemble_critic_backward")
def _(grad, state, obs, w_in, b_in, w_hidden, b_hidden, w_head, b_head, saved, state_wanted, obs_wanted):  # type: ignore[no-untyped-def]
    inputs = [state if state_wanted else state.new_empty(0), obs if obs_wanted else obs.new_empty(0)]
    inputs += [w_in, b_in, w_hidden, b_hidden, w_head, b_head]
    return tuple(tensor.new_empty(tensor.shape, dtype=saved.dtype) for tensor in inputs)


# Without an entry for autograd torch would warn of a missing derivative; the derivative is the Function above.
_autograd = torch.library.Library("emix", "IMPL", "Autograd")
for _name in ("ensemble_critic", "ensemble_critic_backward"):
    _autograd.impl(_name, torch.library.fallthrough_kernel)
