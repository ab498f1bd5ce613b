"""Every op and every gradient with any one or two sizes 0: the reference's, or a refusal; never stale memory."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.every_op import DIFFERENTIABLE, NAMES, make_inputs, run, sizes_of

REFUSED = {"N", "H", "A", "K"}  # of members, hidden units, actions and samples most ops need one at least


def dirty(device: str) -> None:
    """Leave NaN in the small blocks that the allocator hands out next."""
    for size in range(1, 400):
        torch.full((size,), torch.nan, dtype=torch.float64, device=device)


def gradients(results: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    losses = [each.square().sum() for each in results if each.requires_grad]
    found = torch.autograd.grad(losses, leaves, allow_unused=True) if losses else [None] * len(leaves)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


def check(name: str, zeros: tuple[str, ...], device: str) -> None:
    inputs = make_inputs(name, zeros, device)
    leaves = [each for each in inputs.values() if each.requires_grad]
    dirty(device)
    ours, theirs = run(name, inputs), run(name, inputs, ops.reference)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.isnan(), b.isnan())  # of actions that are none, as all are of no actions
        assert relative_error(a.nan_to_num(0), b.nan_to_num(0)) < 1e-9
    if name not in DIFFERENTIABLE:
        assert not any(each.requires_grad for each in ours)
        return
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        assert relative_error(a, b) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_any_size_may_be_zero(device: str, name: str) -> None:
    sizes = sizes_of(name)
    for zeros in [(), *combinations(sizes, 1), *combinations(sizes, 2)]:
        try:
            check(name, zeros, device)
        except ValueError:
            assert REFUSED.intersection(zeros), f"{name} refuses {zeros}"
