r"""Policies of D numbers: independent normal distributions, plain or squashed by tanh. One launch each way.

    log p(a) = sum_d -1/2 ((a_d - mean_d) / s_d)^2 - log_std_d - 1/2 log 2 pi,          s = exp(log_std)
    entropy  = sum_d log_std_d + 1/2 + 1/2 log 2 pi
    u = mean + s e,  e standard normal;   a = u, or tanh u with log p(a) = log p(u) - sum_d log(1 - tanh^2 u_d)

The last logarithm is 2 (log 2 - |u| - log(1 + exp(-2 |u|))): it neither overflows nor cancels, however large u is.

Draws: e comes from Philox4x32-10 at (seed, row, d), by Box and Muller's transform in float32 whatever the inputs' type,
where a row is a place in the flattened leading axes. CPU and GPU draw the same, bit for bit; the largest is 6.7.

Shapes: ``mean``, ``log_std`` and ``action`` [..., D]. Nothing is broadcast: ``expand`` what should be, such as a
``log_std`` [D] of all states. Any strides; any size may be 0.

Types: float16, bfloat16, float32 or float64, computed and returned in float32 (float64 where one input is float64).

Gradient: reaches every input; once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emix.ops._call import compiled, public
from emix.ops._fake import MAX_AXES, check_shape, check_types, register_fake, require, wide
from emix.ops._gradient import Gradients, differentiable
from emix.ops._seed import new_seed

_terms = compiled("gaussian_terms")
_terms_backward = compiled("gaussian_terms_backward")
_sample = compiled("gaussian_sample")
_sample_backward = compiled("gaussian_sample_backward")


class GaussianTerms(NamedTuple):
    """What losses take of a policy, each ``[...]``."""

    log_prob: Tensor
    entropy: Tensor


class GaussianSample(NamedTuple):
    """Actions ``[..., D]`` and their log-densities ``[...]``."""

    action: Tensor
    log_prob: Tensor


@public()
def gaussian_terms(mean: Tensor, log_std: Tensor, action: Tensor) -> GaussianTerms:
    """Compute the log-density of an action and the entropy of a normal distribution.

    Both are sums over the D numbers. Differentiable by all inputs, once. Source: PPO (Schulman et al. 2017), eq. 9,
    with a policy of numbers.

    Args:
        mean: ``[..., D]``; float16, bfloat16, float32 or float64, as all inputs.
        log_std: ``[..., D]``, the natural logarithm of the standard deviation.
        action: ``[..., D]``.

    Returns:
        ``GaussianTerms(log_prob, entropy)``, each ``[...]``, in nats; float32 (float64 where one input is float64).

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> gaussian_terms(torch.zeros(2), torch.zeros(2), torch.tensor([0.0, 1.0]))
    GaussianTerms(log_prob=tensor(-2.3379), entropy=tensor(2.8379))
    """
    return GaussianTerms(*_gaussian_terms(mean, log_std, action))


@public()
def gaussian_sample(mean: Tensor, log_std: Tensor, *, generator: torch.Generator | None = None) -> GaussianSample:
    """Draw ``a = mean + exp(log_std) e`` and compute its log-density.

    Reparameterised: the gradients of both results reach mean and log_std, once. Source: Kingma and Welling 2014,
    section 2.4; Box and Muller 1958 (the draws).

    Args:
        mean: ``[..., D]``; float16, bfloat16, float32 or float64, as log_std.
        log_std: ``[..., D]``, the natural logarithm of the standard deviation.
        generator: what the seed is drawn from, on the device of ``mean``; None: torch's default one.

    Returns:
        ``GaussianSample(action, log_prob)``, ``[..., D]`` and ``[...]``; float32 (float64 where one input is float64).

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> action, log_prob = gaussian_sample(torch.zeros(8, 3, 6), torch.zeros(8, 3, 6))
    >>> action.shape, log_prob.shape
    (torch.Size([8, 3, 6]), torch.Size([8, 3]))
    """
    return GaussianSample(*_gaussian_sample(mean, log_std, new_seed(mean, generator), False))


@public()
def tanh_gaussian_sample(mean: Tensor, log_std: Tensor, *, generator: torch.Generator | None = None) -> GaussianSample:
    """Draw ``a = tanh(mean + exp(log_std) e)`` and compute its log-density.

    Reparameterised: the gradients of both results reach mean and log_std, once. Under the same seed the draws are those
    of ``gaussian_sample``. Source: SAC (Haarnoja et al. 2018), appendix C; ADER (Kim and Sung 2023), section 5.

    Args:
        mean: ``[..., D]``, before tanh; float16, bfloat16, float32 or float64, as log_std.
        log_std: ``[..., D]``, the natural logarithm of the standard deviation before tanh.
        generator: what the seed is drawn from, on the device of ``mean``; None: torch's default one.

    Returns:
        ``GaussianSample(action, log_prob)``, ``[..., D]`` in [-1, 1] and ``[...]``; float32 (float64 where one input is
        float64).

    Raises:
        ValueError: names the argument, what was expected and what came.

    >>> action, log_prob = tanh_gaussian_sample(torch.zeros(8, 3, 6), torch.zeros(8, 3, 6))
    >>> action.shape, log_prob.shape
    (torch.Size([8, 3, 6]), torch.Size([8, 3]))
    """
    return GaussianSample(*_tanh_gaussian_sample(mean, log_std, new_seed(mean, generator), True))


def _terms_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    mean_grad, log_std_grad = _terms_backward(*grads, *inputs)
    return mean_grad, log_std_grad, -mean_grad if wanted[2] else None  # mean and action come as their difference


def _sample_gradients(wanted: Sequence[bool], grads: Gradients, *inputs: Tensor) -> Gradients:
    return _sample_backward(*grads, *inputs)


_gaussian_terms = differentiable("gaussian_terms", _terms, _terms_gradients, places=(0, 1, 2))
_gaussian_sample = differentiable("gaussian_sample", _sample, _sample_gradients, places=(0, 1))
_tanh_gaussian_sample = differentiable("tanh_gaussian_sample", _sample, _sample_gradients, places=(0, 1))


@register_fake("gaussian_terms")
def _(mean, log_std, action):  # type: ignore[no-untyped-def]
    _check(mean, log_std, action)
    dtype = wide(mean, log_std, action)
    return mean.new_empty(mean.shape[:-1], dtype=dtype), mean.new_empty(mean.shape[:-1], dtype=dtype)


@register_fake("gaussian_terms_backward")
def _(log_prob_grad, entropy_grad, mean, log_std, action):  # type: ignore[no-untyped-def]
    dtype = wide(mean, log_std, action)
    return mean.new_empty(mean.shape, dtype=dtype), mean.new_empty(mean.shape, dtype=dtype)


@register_fake("gaussian_sample")
def _(mean, log_std, seed, squash):  # type: ignore[no-untyped-def]
    _check(mean, log_std, None)
    dtype = wide(mean, log_std)
    return mean.new_empty(mean.shape, dtype=dtype), mean.new_empty(mean.shape[:-1], dtype=dtype)


@register_fake("gaussian_sample_backward")
def _(action_grad, log_prob_grad, mean, log_std, seed, squash):  # type: ignore[no-untyped-def]
    dtype = wide(mean, log_std)
    return mean.new_empty(mean.shape, dtype=dtype), mean.new_empty(mean.shape, dtype=dtype)


def _check(mean: Tensor, log_std: Tensor, action: Tensor | None) -> None:
    check_types({"mean": mean, "log_std": log_std, "action": action})
    sentence = "`mean` must have shape [..., D] with up to {} axes, got {}"
    require(1 <= mean.dim() <= MAX_AXES, sentence, MAX_AXES, list(mean.shape))
    check_shape("log_std", log_std, mean.shape)
    check_shape("action", action, mean.shape)
