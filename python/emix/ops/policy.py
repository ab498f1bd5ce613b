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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import check_actions, check_floor, check_shape, check_types, common, empty_if, register_fake, wide
from emix.ops._floor import number_and_tensor
from emix.ops._gradient import Gradients, differentiable

_policy = compiled("masked_policy")
_policy_backward = compiled("masked_policy_backward")
_terms = compiled("policy_terms")
_terms_backward = compiled("policy_terms_backward")


class PolicyTerms(NamedTuple):
    """What losses take of a policy, each [...]; ``expected_value`` is None without a ``value``."""

    log_prob: Tensor
    entropy: Tensor
    expected_value: Tensor | None


@public()
def masked_policy(logits: Tensor, avail: Tensor | None = None, floor: float | Tensor = 0.0) -> Tensor:
    """Compute the probabilities of all actions, 0 where not available.

    With floor 0 the softmax of the available actions' logits; else, with p the softmax over all A actions,
    ``pi_a = avail_a ((1 - floor) p_a + floor / A) / Z``, Z such that pi sums to 1. Differentiable by logits, once.
    Source: COMA (Foerster et al. 2018), section 4; the gradient with a floor is what autograd makes of DOP's code.

    Args:
        logits: ``[..., A]``, 1 to 128 actions; float16, bfloat16, float32 or float64.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions. A row without one is padding: its
            probabilities and its gradient are 0, whatever else stands there.
        floor: a number in [0, 1], or a 0-dim floating tensor on the device of ``logits``, which is read when the op
            runs (so that a CUDA graph's replay sees what it is by then) and not checked.

    Returns:
        pi ``[..., A]``, float32; float64 where logits are.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> logits = torch.tensor([0.0, 0.0, 9.0])
    >>> masked_policy(logits, torch.tensor([1, 1, 0]))
    tensor([0.5000, 0.5000, 0.0000])
    >>> masked_policy(torch.tensor([50.0, 0.0]), floor=0.5)
    tensor([0.7500, 0.2500])
    """
    return _masked_policy(logits, avail, *number_and_tensor(floor))


@public()
def policy_terms(
    logits: Tensor,
    action: Tensor,
    avail: Tensor | None = None,
    value: Tensor | None = None,
    floor: float | Tensor = 0.0,
) -> PolicyTerms:
    """Compute ``log pi(action)``, the entropy ``-sum_a pi_a log pi_a`` and, with a value, ``sum_a pi_a value_a``.

    pi is that of ``masked_policy``. Differentiable by logits and value, once. Source: DOP (Wang et al. 2021), eq. 6;
    PPO (Schulman et al. 2017), eq. 9.

    Args:
        logits: ``[..., A]``, 1 to 128 actions; float16, bfloat16, float32 or float64.
        action: ``[...]``, any integer dtype. One that cannot be taken (not available, or its logit is -inf) has the
            log-probability ``log 1e-10`` and no gradient: EPyMARL's ``log(pi + 1e-10)``, finite so that a loss may
            multiply it by a mask. One outside [0, A) gives NaN, as there is no host synchronisation to raise from.
        avail: ``[..., A]``, bool or any dtype that holds 0 and 1; None: all actions. A row without one is padding: its
            terms and its gradients are 0, whatever else stands there.
        value: ``[..., A]``, of what the expectation is wanted; None: nothing. An action of probability 0 adds nothing,
            even where its value is infinite or NaN.
        floor: a number in [0, 1], or a 0-dim floating tensor on the device of ``logits``, which is read when the op
            runs (so that a CUDA graph's replay sees what it is by then) and not checked.

    Returns:
        ``PolicyTerms(log_prob, entropy, expected_value)``, each ``[...]``, float32 (float64 where logits or value are);
        ``expected_value`` is None without a value. Entropy in nats.

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> logits, avail = torch.tensor([0.0, 0.0, 9.0]), torch.tensor([1, 1, 0])
    >>> terms = policy_terms(logits, torch.tensor(1), avail, torch.tensor([2.0, 4.0, 7.0]))
    >>> terms.log_prob, terms.entropy, terms.expected_value
    (tensor(-0.6931), tensor(0.6931), tensor(3.))
    """
    log_prob, entropy, expected_value = _policy_terms(logits, action, avail, value, *number_and_tensor(floor))
    return PolicyTerms(log_prob, entropy, None if value is None else expected_value)


def _policy_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Any) -> Gradients:
    return [_policy_backward(grads[0], *inputs)]


def _terms_gradients(
    wanted: Sequence[bool],
    grads: Gradients,
    logits: Tensor,
    action: Tensor,
    avail: Tensor | None,
    value: Tensor | None,
    floor: float,
    floor_tensor: Tensor | None,
) -> Gradients:
    log_prob, entropy, expected_value = grads
    if value is None:
        expected_value = None  # torch.compile passes zeros for a gradient that is not there
    value_wanted = wanted[3] and expected_value is not None
    logits_grad, value_grad = _terms_backward(
        log_prob, entropy, expected_value, logits, action, avail, value, floor, value_wanted, floor_tensor
    )
    return logits_grad, None, None, value_grad if value_wanted else None


_masked_policy = differentiable("masked_policy", _policy, _policy_gradients, places=(0,))
_policy_terms = differentiable("policy_terms", _terms, _terms_gradients, places=(0, 3))


@register_fake("masked_policy")
def _(logits, avail=None, floor=0.0, floor_tensor=None):  # type: ignore[no-untyped-def]
    check_types({"logits": logits}, masks={"avail": avail})
    check_actions("logits", logits)
    check_shape("avail", avail, logits.shape)
    check_floor(floor, floor_tensor, logits)
    return logits.new_empty(logits.shape, dtype=wide(logits))


@register_fake("masked_policy_backward")
def _(grad, logits, avail, floor, floor_tensor=None):  # type: ignore[no-untyped-def]
    return logits.new_empty(logits.shape)


@register_fake("policy_terms")
def _(logits, action, avail=None, value=None, floor=0.0, floor_tensor=None):  # type: ignore[no-untyped-def]
    check_types({"logits": logits, "value": value}, masks={"avail": avail}, integers={"action": action})
    check_actions("logits", logits)
    for name, tensor in (("avail", avail), ("value", value)):
        check_shape(name, tensor, logits.shape)
    check_shape("action", action, logits.shape[:-1])
    check_floor(floor, floor_tensor, logits)
    rows, dtype = logits.shape[:-1], wide(logits, value)
    sizes = (rows, rows, (0,) if value is None else rows)
    return tuple(logits.new_empty(size, dtype=dtype) for size in sizes)


@register_fake("policy_terms_backward")
def _(log_prob_grad, entropy_grad, value_grad, logits, action, avail, value, floor, value_wanted, floor_tensor=None):  # type: ignore[no-untyped-def]
    dtype = common(logits, value)
    return logits.new_empty(logits.shape, dtype=dtype), empty_if(value_wanted, logits, logits.shape, dtype)
