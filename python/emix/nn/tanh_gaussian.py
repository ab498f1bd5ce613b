"""The tanh-Gaussian: a bounded action from a normal draw, and its log-probability."""

import math

import torch
from torch import Tensor
from torch.nn import functional

LOG_STD_RANGE = (-20.0, 2.0)


def tanh_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squash ``u = mean + std noise`` into (-1, 1): mean, log_std, noise ``[..., D]`` -> the action ``tanh(u)``
    ``[..., D]`` and its log-density ``[...]``. Differentiable in mean and log_std: the reparameterisation.

    ``log pi(tanh u) = sum_d log N(u_d; mean_d, std_d) - log(1 - tanh(u_d)^2)``, the last term as ``2 (log 2 - u -
    softplus(-2 u))``, which stays finite where tanh rounds to 1. log_std is held in [-20, 2]. Source: SAC (Haarnoja et
    al. 2018), appendix C.
    """
    log_std = log_std.clamp(*LOG_STD_RANGE)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - functional.softplus(-2 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(-1)
