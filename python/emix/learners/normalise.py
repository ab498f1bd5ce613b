"""Running means and deviations, by which PPO's values and rewards are brought to one scale.

Both are counted on the device in buffers that keep their place, over valid steps only and over all processes of the
group. A network's output in the new scale is ``normalise`` of a return; ``denormalise`` brings it back.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from emix.distributed import Group


class Normaliser(Protocol):
    """What PPO does with either."""

    def update(self, values: Tensor, mask: Tensor, group: Group) -> None:
        """Take in the values where the mask is True; both of one shape."""
        ...

    def normalise(self, values: Tensor) -> Tensor:
        """``(values - mean) / deviation``."""
        ...

    def denormalise(self, values: Tensor) -> Tensor:
        """``values deviation + mean``."""
        ...


class DebiasedNorm(nn.Module):
    """Exponential means of values and squares, divided by the weight that they have so far; variance at least 0.01.

    Source: ValueNorm of on-policy (Yu et al. 2022), with its beta of 0.99999. Before the first update the mean is 0 and
    the deviation 0.1, as there.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, beta: float = 0.99999) -> None:
        super().__init__()
        self.beta = beta
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64, device="cpu"))

    @torch.no_grad()
    def update(self, values: Tensor, mask: Tensor, group: Group) -> None:
        """See ``Normaliser``."""
        total, squares, count = _sums(values, mask, group)
        count = count.clamp(min=1)
        for buffer, new in ((self.mean, total / count), (self.square, squares / count), (self.weight, 1.0)):
            buffer.mul_(self.beta).add_((1 - self.beta) * new)

    def _moments(self) -> tuple[Tensor, Tensor]:
        weight = self.weight.clamp(min=1e-5)
        mean = self.mean / weight
        variance = (self.square / weight - mean.square()).clamp(min=1e-2)
        return mean.float(), variance.sqrt().float()

    def normalise(self, values: Tensor) -> Tensor:
        """See ``Normaliser``."""
        mean, deviation = self._moments()
        return (values - mean) / deviation

    def denormalise(self, values: Tensor) -> Tensor:
        """See ``Normaliser``."""
        mean, deviation = self._moments()
        return values * deviation + mean


class CumulativeNorm(nn.Module):
    """Mean and unbiased variance of all values so far (Chan et al. 1979); deviation at least 1e-4.

    Source: RunningMeanStd of EPyMARL, where padded steps count, too, and nothing bounds the deviation. It starts with a
    mean of 0 and a variance of 1 that count for 1e-4 values.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, start in (("mean", 0.0), ("variance", 1.0), ("count", 1e-4)):
            self.register_buffer(name, torch.tensor(start, dtype=torch.float64, device="cpu"))

    @torch.no_grad()
    def update(self, values: Tensor, mask: Tensor, group: Group) -> None:
        """See ``Normaliser``."""
        total, squares, count = _sums(values, mask, group)
        mean = total / count.clamp(min=1)
        variance = (squares - count * mean.square()).clamp(min=0) / (count - 1).clamp(min=1)
        everything, difference = self.count + count, mean - self.mean
        spread = self.variance * self.count + variance * count + difference.square() * self.count * count / everything
        self.mean.add_(difference * count / everything)
        self.variance.copy_(spread / everything)
        self.count.copy_(everything)

    def normalise(self, values: Tensor) -> Tensor:
        """See ``Normaliser``."""
        return (values - self.mean.float()) / self._deviation()

    def denormalise(self, values: Tensor) -> Tensor:
        """See ``Normaliser``."""
        return values * self._deviation() + self.mean.float()

    def _deviation(self) -> Tensor:
        return self.variance.sqrt().clamp(min=1e-4).float()


def _sums(values: Tensor, mask: Tensor, group: Group) -> Tensor:
    """The values' sum, their squares' and their number, over all processes: float64 ``[3]``."""
    real = torch.where(mask, values, 0.0).double()
    sums = torch.stack([real.sum(), real.square().sum(), mask.sum().double()])
    group.sum_([sums])
    return sums
