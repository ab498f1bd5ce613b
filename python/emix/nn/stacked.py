"""Linear layers of several networks of one shape, run as one."""

import math

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """N linear layers side by side, whose weights start as those of ``torch.nn.Linear``.

    Args:
        members: N.
        inputs: I.
        outputs: J.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs) if inputs else 0.0
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, R, I] -> [N, R, J]``, or ``[R, I]``, the same for all."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), *x.shape[-2:]), self.weight)
