"""Normal distributions, plain and squashed; see ``emix.ops.gaussian``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from emix.ops.reference.sampling import philox


def gaussian_terms(mean: Tensor, log_std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the numbers of the log-density and the entropy."""
    z = (action - mean) / log_std.exp()
    log_prob = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
    return log_prob.sum(-1), (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def normal_numbers(seed: Tensor, shape: torch.Size) -> Tensor:
    """Draw float64 ``[..., D]`` by Box and Muller's transform of Philox's words."""
    rows, numbers = shape[:-1].numel(), shape[-1]
    blocks = -(-numbers // 4)
    row, block = torch.arange(rows)[:, None].expand(rows, blocks), torch.arange(blocks).expand(rows, blocks)
    words = philox(seed.cpu(), block, row)  # [R, blocks, 4]
    radius = (-2 * (((words[..., 0::2] >> 1) + 0.5) / 2**31).log()).sqrt()  # [R, blocks, 2]
    angle = words[..., 1::2] / 2**32 * 2 * math.pi - math.pi / 4  # a quarter turn in every 2^30
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.reshape(rows, 4 * blocks)[:, :numbers].reshape(shape).to(seed.device)


def gaussian_sample(mean: Tensor, log_std: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Draw ``mean + exp(log_std) e``."""
    e = normal_numbers(seed, mean.shape).to(mean)
    log_prob = -0.5 * e.square() - log_std - 0.5 * math.log(2 * math.pi)
    return mean + log_std.exp() * e, log_prob.sum(-1)


def tanh_gaussian_sample(mean: Tensor, log_std: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Draw ``tanh(mean + exp(log_std) e)``."""
    u, log_prob = gaussian_sample(mean, log_std, seed)
    slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
    return u.tanh(), log_prob - slope.sum(-1)
