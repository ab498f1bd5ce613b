r"""A critic of the others' actions, V(s, a_-i), averaged over K joint actions: PERLA.

    S^k = sum_j w_action[j, a_j^k]                  (or a_j^k' w_action[j], for actions of D numbers)
    x = ReLU(first_i + S^k - w_action[i, a_i^k])    what agent i's own action adds is left out
    y = ReLU(w_hidden' x + b_hidden)
    V_i = w_head' mean_k y + b_head

The same as K forward passes of an MLP over [inputs, one-hot actions of the others], with ``first`` what its first layer
makes of the inputs and of its bias; but one-hot inputs are never built, S^k is summed once for all agents, and only the
values leave the chip. The backward pass computes the layers again: memory does not grow with K, but for the actions.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).
Indices are uint8, or any other integer dtype. Any strides, any sizes but K, A, H, H2 >= 1. Bitwise repeatable, on the
CPU for any number of threads.

Gradient: reaches every input but the actions, numbers or not; once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_shape, check_types, empty_if, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable
from emix.ops.sampling import sample_actions

_marginal = compiled("marginal_value")
_marginal_backward = compiled("marginal_value_backward")


class SampledValue(NamedTuple):
    """Values ``[..., n]``, and the joint actions that they are averaged over, uint8 ``[K, ..., n]``."""

    value: Tensor
    actions: Tensor


@public()
def marginal_value(
    first: Tensor,
    actions: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> Tensor:
    """Average every agent's critic over K joint actions of the others.

    ``mean_k w_head' ReLU(w_hidden' ReLU(first_i + sum_{j != i} w_action[j, a_j^k]) + b_hidden) + b_head``, for every
    state and agent i. Differentiable by all inputs but the actions, once. Source: PERLA (Mguni et al. 2023), eq. 1 and
    algorithm 1, with one draw of joint actions for all agents: each leaves its own action out.

    Args:
        first: what the first layer makes of all inputs but the actions (state or observation, bias, id) ``[..., n,
            H]``; float16, bfloat16, float32 or float64, as all inputs.
        actions: K joint actions for every state, as ``sample_actions(samples=K)`` gives them ``[K, ..., n]``, any
            integer dtype; or numbers ``[K, ..., n, D]``. An index outside [0, A) is an error on the CPU; on a GPU,
            where raising would wait for the device, it makes the values of its state NaN.
        w_action: the first layer's rows for the actions ``[n, A, H]``, or ``[n, D, H]``.
        w_hidden: the second layer, from x to y ``[H, H2]``.
        b_hidden: ``[H2]``.
        w_head: ``[H2]``.
        b_head: ``[]``.

    Returns:
        values ``[..., n]``, float32; float64 where one input is float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> n, A, H, K = 3, 5, 32, 100
    >>> w_action, w_hidden, w_head = torch.randn(n, A, H), torch.randn(H, H), torch.randn(H)
    >>> actions = torch.randint(A, (K, 8, 20, n))
    >>> first = torch.randn(8, 20, n, H)
    >>> marginal_value(first, actions, w_action, w_hidden, torch.zeros(H), w_head, torch.zeros(())).shape
    torch.Size([8, 20, 3])
    """
    return _marginal_value(first, actions, w_action, w_hidden, b_hidden, w_head, b_head)


@public()
def sampled_marginal_value(
    first: Tensor,
    logits: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
    avail: Tensor | None = None,
    *,
    samples: int,
    floor: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> SampledValue:
    """Draw K joint actions from the policy, and average every agent's critic over them.

    ``sample_actions(logits, avail, samples=K)`` and ``marginal_value`` of these, with the same draws under the same
    seed. The actions are handed out for further calls (PERLA's epochs share them) and are kept for the backward pass: a
    byte each, 1/(4 H) of what the first layer would be. Differentiable by all inputs but the logits, once. Source:
    PERLA (Mguni et al. 2023), algorithm 1.

    Args:
        first: as in ``marginal_value``, ``[..., n, H]``.
        logits: the agents' policies ``[..., n, A]``, 1 to 128 actions; no gradient reaches them.
        w_action: ``[n, A, H]``.
        w_hidden: ``[H, H2]``.
        b_hidden: ``[H2]``.
        w_head: ``[H2]``.
        b_head: ``[]``.
        avail: ``[..., n, A]``, bool or any dtype that holds 0 and 1; None: all actions.
        samples: K.
        floor: of the policy, as in ``sample_actions``.
        generator: what the seed is drawn from, on the device of ``logits``; None: torch's default one.

    Returns:
        ``SampledValue(value, actions)``: ``[..., n]`` as from ``marginal_value``, uint8 ``[K, ..., n]``.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> n, A, H = 3, 5, 32
    >>> w_action, w_hidden, w_head = torch.randn(n, A, H), torch.randn(H, H), torch.randn(H)
    >>> first, logits = torch.randn(8, 20, n, H), torch.randn(8, 20, n, A)
    >>> weights = (w_action, w_hidden, torch.zeros(H), w_head, torch.zeros(()))
    >>> value, actions = sampled_marginal_value(first, logits, *weights, samples=100)
    >>> value.shape, actions.shape
    (torch.Size([8, 20, 3]), torch.Size([100, 8, 20, 3]))
    """
    actions = sample_actions(logits, avail, samples=samples, floor=floor, generator=generator)
    return SampledValue(marginal_value(first, actions, w_action, w_hidden, b_hidden, w_head, b_head), actions)


def _gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    first_grad, *weights = _marginal_backward(grads[0], *inputs, wanted[0])
    return first_grad, None, *weights


_marginal_value = differentiable("marginal_value", _marginal, _gradients, places=(0, 2, 3, 4, 5, 6))


@register_fake("marginal_value")
def _(first, actions, w_action, w_hidden, b_hidden, w_head, b_head):  # type: ignore[no-untyped-def]
    _check(first, actions, w_action, w_hidden, b_hidden, w_head, b_head)
    return first.new_empty(first.shape[:-1], dtype=wide(first, actions, w_action, w_hidden, b_hidden, w_head, b_head))


@register_fake("marginal_value_backward")
def _(grad, first, actions, w_action, w_hidden, b_hidden, w_head, b_head, first_wanted):  # type: ignore[no-untyped-def]
    dtype = wide(first, actions, w_action, w_hidden, b_hidden, w_head, b_head)
    weights = [each.new_empty(each.shape, dtype=dtype) for each in (w_action, w_hidden, b_hidden, w_head, b_head)]
    return empty_if(first_wanted, first, first.shape, dtype), *weights


def _check(
    first: Tensor,
    actions: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> None:
    floats = {"first": first, "w_action": w_action, "w_hidden": w_hidden, "b_hidden": b_hidden, "w_head": w_head}
    floats |= {"b_head": b_head}
    numbers = actions.is_floating_point()
    check_types(floats | {"actions": actions} if numbers else floats, integers={} if numbers else {"actions": actions})
    sentence = "`first` must have shape [..., n, H] with up to {} axes and H at least 1, got {}"
    require(2 <= first.dim() < MAX_AXES, sentence, MAX_AXES - 1, list(first.shape))
    require(first.shape[-1] >= 1, sentence, MAX_AXES - 1, list(first.shape))
    sentence = "`w_action` must have shape [n, A, H] with A at least 1, or [n, D, H], got {}"
    require(w_action.dim() == 3, sentence, list(w_action.shape))
    require(w_action.shape[1] >= (0 if numbers else 1), sentence, list(w_action.shape))
    require(w_hidden.dim() == 2, "`w_hidden` must have shape [H, H2], got {}", list(w_hidden.shape))
    (agents, hidden), (_, choices, _), (_, outputs) = first.shape[-2:], w_action.shape, w_hidden.shape
    require(actions.dim() > 0, "`actions` must have shape [K, ..., n], got []")
    require(actions.shape[0] >= 1, "`actions` must hold at least one joint action, got K = 0")
    check_shape("actions", actions, (actions.shape[0], *first.shape[:-1], *([choices] if numbers else [])))
    check_shape("w_action", w_action, (agents, choices, hidden))
    check_shape("w_hidden", w_hidden, (hidden, outputs))
    check_shape("b_hidden", b_hidden, (outputs,))
    check_shape("w_head", w_head, (outputs,))
    check_shape("b_head", b_head, ())
