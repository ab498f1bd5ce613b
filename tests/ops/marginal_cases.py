"""Inputs of the marginalised critic."""

from __future__ import annotations

import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs


def make_inputs(
    seed: int,
    leading: tuple[int, ...] = (3, 4),
    *,
    K: int = 5,
    n: int = 3,
    A: int = 4,
    H: int = 6,
    H2: int = 7,
    numbers: bool = False,
) -> Inputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, inputs: int = 1) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64) * inputs**-0.5

    actions = torch.randint(A, (K, *leading, n), generator=g).byte()
    return {
        "first": normal(*leading, n, H),
        "actions": normal(K, *leading, n, A) if numbers else actions,
        "w_action": normal(n, A, H, inputs=max(n * A, 1) if numbers else max(n, 1)),
        "w_hidden": normal(H, H2, inputs=H),
        "b_hidden": normal(H2),
        "w_head": normal(H2, inputs=H2),
        "b_head": normal(),
    }


def repeated(inputs: Inputs, seed: int, share: float) -> Inputs:
    """In about `share` of the samples all agents of a state do what they do in the first one: equal joint actions."""
    joint = inputs["actions"]
    repeats = torch.rand(joint.shape[:-1], generator=torch.Generator().manual_seed(seed)).unsqueeze(-1) < share
    return {**inputs, "actions": joint.where(~repeats, joint[:1])}


def sampled_inputs(seed: int) -> Inputs:
    inputs = make_inputs(seed)
    inputs["logits"] = torch.randn(3, 4, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inputs["avail"] = inputs["logits"] < 1
    del inputs["actions"]
    return inputs


def run(inputs: Inputs) -> Tensor:
    return ops.marginal_value(**inputs)


def leaves(inputs: Inputs) -> list[Tensor]:
    """The inputs that have a gradient, which from now on get one."""
    return [x.requires_grad_() for name, x in inputs.items() if name != "actions"]


def gradients(value: Tensor, inputs: Inputs, seed: int) -> tuple[Tensor, ...]:
    upstream = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = [x for x in inputs.values() if x.requires_grad]
    return torch.autograd.grad(value, wanted, upstream.to(value))
