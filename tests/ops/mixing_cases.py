"""Random inputs of the mixing ops, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs

# A case's name is that of its op, but for the monotonic mixer of several values.
NAMES = ["linear_mix", "expected_linear_mix", "monotonic_mix", "monotonic_mix of many", "monotonic_mix_grad"]
DIFFERENTIABLE = NAMES[:4]
OUTPUTS = 5


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
    outputs = (OUTPUTS,) if name == "monotonic_mix of many" else ()
    inputs: Inputs = {"q": normal(n), "w1": normal(n, inner), "b1": normal(inner), "w2": normal(inner, *outputs)}
    return inputs if name == "monotonic_mix_grad" else {**inputs, "v": normal(*outputs)}


def run(name: str, inputs: Inputs, module: object = ops) -> Tensor:
    return getattr(module, op_of(name))(**inputs)


def op_of(name: str) -> str:
    """The op that a case calls."""
    return name.removesuffix(" of many")
