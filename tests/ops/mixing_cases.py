"""Random inputs of the mixing ops, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs

NAMES = ["linear_mix", "expected_linear_mix", "monotonic_mix", "monotonic_mix_grad"]
DIFFERENTIABLE = NAMES[:3]


def make_inputs(
    name: str, seed: int, leading: tuple[int, ...], n: int = 3, inner: int = 4, *, options: bool = True
) -> Inputs:
    """Random inputs in float64; ``inner`` is A or E. ``options``: bias and uncertainty too."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn((*leading, *shape), generator=g, dtype=torch.float64)

    if name == "linear_mix":
        return {"q": normal(n), "weight": normal(n).abs(), "bias": normal() if options else None}
    if name == "expected_linear_mix":
        pi = torch.softmax(normal(n, inner), -1)
        pi = torch.where(pi < pi.mean(-1, keepdim=True) / 2, 0, pi)  # some actions are never taken
        pi = pi / pi.sum(-1, keepdim=True)
        q, weight, uncertainty = normal(n, inner), normal(n).abs(), normal(n, inner).abs()
        return {
            "q": q,
            "pi": pi,
            "weight": weight,
            "bias": normal() if options else None,
            "uncertainty": uncertainty if options else None,
        }
    inputs: Inputs = {"q": normal(n), "w1": normal(n, inner), "b1": normal(inner), "w2": normal(inner)}
    return inputs if name == "monotonic_mix_grad" else {**inputs, "v": normal()}


def run(name: str, inputs: Inputs, module: object = ops) -> Tensor:
    return getattr(module, name)(**inputs)
