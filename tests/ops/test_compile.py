"""torch.compile of every differentiable op, forward and backward in one graph each, with every combination of optional
inputs and of results that a loss uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.every_op import DIFFERENTIABLE, OPS, SIZES, make_inputs, run


def subsets(names: list[Any], least: int = 0) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(combinations(names, count) for count in range(least, len(names) + 1))


def loss_of(name: str, inputs: dict[str, Tensor], used: tuple[int, ...], numbers: dict[str, Any]) -> Tensor:
    results = run(name, inputs, **numbers)
    return sum(results[place].sin().sum() for place in used)


def check(name: str, inputs: dict[str, Tensor], used: tuple[int, ...], numbers: dict[str, Any]) -> None:
    leaves = [each for each in inputs.values() if each is not None and each.requires_grad]
    torch.compiler.reset()
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(name, inputs, used, numbers), leaves, allow_unused=True)
    plain = torch.autograd.grad(loss_of(name, inputs, used, numbers), leaves, allow_unused=True)
    for a, b, leaf in zip(ours, plain, leaves, strict=True):
        zero = torch.zeros_like(leaf)  # what is not used has a gradient of 0, or none
        assert torch.equal(zero if a is None else a, zero if b is None else b), (used, numbers)


@pytest.fixture(autouse=True)
def _(emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_combination(name: str) -> None:
    optional = [key for key, each in OPS[name].inputs.items() if each.optional]
    choices = [[(key, value) for value in values] for key, values in OPS[name].numbers.items()]
    for without in subsets(optional):
        inputs = make_inputs(name, without=without)
        for numbers in map(dict, product(*choices)) if len(without) in (0, len(optional)) else ({},):
            for used in subsets(range(len(run(name, inputs))), least=1):
                check(name, inputs, used, numbers)


@pytest.mark.parametrize(("ids", "actions"), [(True, False), (False, True), (False, False)])
def test_agents_without_some_columns(ids: bool, actions: bool) -> None:
    inputs = make_inputs("agent_sequence")
    from_obs, from_action, from_id = inputs["w_encode"].detach().split([SIZES["O"], SIZES["A"], SIZES["n"]], 1)
    columns = [from_obs, *([from_action] if actions else []), *([from_id] if ids else [])]
    inputs["w_encode"] = torch.cat(columns, 1).requires_grad_()
    if not actions:
        inputs["last_action"] = None
    for used in subsets(range(2), least=1):
        check("agent_sequence", inputs, used, {})
