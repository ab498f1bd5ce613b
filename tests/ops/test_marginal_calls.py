"""The marginalised critic in torch's machinery, and every wrong call."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs, changed, converted, error
from tests.ops.marginal_cases import leaves, make_inputs, run


@pytest.mark.parametrize("numbers", [False, True])
def test_opcheck(numbers: bool) -> None:
    inputs = converted(make_inputs(12, numbers=numbers), torch.float32)
    value = run(inputs)
    torch.library.opcheck(torch.ops.emix.marginal_value.default, tuple(inputs.values()))
    for wanted in (False, True):
        arguments = (value, *inputs.values(), wanted)
        torch.library.opcheck(torch.ops.emix.marginal_value_backward.default, arguments)


def test_compiles_without_a_graph_break(device: str) -> None:
    inputs = converted(make_inputs(13), torch.float32, device)
    wanted = leaves(inputs)

    def loss() -> Tensor:
        return run(inputs).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")()
    for a, b in zip(torch.autograd.grad(compiled, wanted), torch.autograd.grad(loss(), wanted), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("actions", [4, 255, -1, 2**40])
def test_indices_out_of_range(device: str, actions: int, emulated: bool) -> None:
    """An error that names the argument where that waits for no device; elsewhere the state's values are NaN."""
    inputs = converted(make_inputs(14), torch.float32, device)
    dtype = torch.uint8 if actions == 255 else torch.int64
    inputs["actions"] = inputs["actions"].to(dtype)
    inputs["actions"][1, 2, 3, 0] = actions
    if device == "cpu" and not emulated:
        with pytest.raises(ValueError, match=rf"actions must lie in \[0, 4\), .*, got {actions}"):
            run(inputs)
        return
    first_grad = leaves(inputs)[0]
    value = run(inputs)
    assert value[2, 3].isnan().all()
    assert value.isnan().sum() == 3
    grad = torch.autograd.grad(value.sum(), first_grad)[0]
    assert grad.isnan().flatten(2).all(-1).sum() <= 1
    assert not grad[0].isnan().any()


WRONG = [
    ({"first": torch.zeros(6)}, r"first must have shape \[..., n, H\]"),
    ({"first": torch.zeros(3, 4, 3, 0)}, "H at least 1"),
    ({"first": torch.zeros(3, 4, 3, 6).long()}, "first must be a float16"),
    ({"actions": torch.zeros(5, 3, 4, 2).byte()}, r"actions must have shape \[5, 3, 4, 3\]"),
    ({"actions": torch.zeros(0, 3, 4, 3).byte()}, "at least one joint action"),
    ({"actions": torch.zeros(3, 4, 3).byte()}, "actions must have shape"),
    ({"actions": torch.zeros(5, 3, 4, 3).bool()}, "actions must be an integer tensor"),
    ({"actions": torch.zeros(5, 3, 4, 3)}, r"actions must have shape \[5, 3, 4, 3, 4\]"),
    ({"actions": torch.zeros(5, 3, 4, 3, dtype=torch.complex64)}, "actions must be real"),
    ({"actions": torch.zeros(())}, "actions must have shape"),
    ({"w_action": torch.zeros(2, 4, 6)}, r"w_action must have shape \[3, 4, 6\]"),
    ({"w_action": torch.zeros(3, 0, 6)}, "A at least 1"),
    ({"w_action": torch.zeros(12, 6)}, r"w_action must have shape \[n, A, H\]"),
    ({"w_hidden": torch.zeros(5, 7)}, r"w_hidden must have shape \[6, 7\]"),
    ({"w_hidden": torch.zeros(6)}, r"w_hidden must have shape \[H, H2\]"),
    ({"b_hidden": torch.zeros(1, 7)}, r"b_hidden must have shape \[7\]"),
    ({"w_head": torch.zeros(7, 1)}, r"w_head must have shape \[7\]"),
    ({"w_head": torch.zeros(7, dtype=torch.complex64)}, "w_head must be real"),
    ({"b_head": torch.zeros(1)}, r"b_head must have shape \[\]"),
    ({"w_hidden": None}, "w_hidden"),
    ({"actions": None}, "actions"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls(device: str, change: Inputs, message: str) -> None:
    inputs = {**converted(make_inputs(15), torch.float32, device), **changed(change, lambda x: x.to(device))}
    with pytest.raises(ValueError, match=message):
        run(inputs)


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=5).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_random_calls_are_right_or_refused(device: str, data: st.DataObject) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    inputs = converted(make_inputs(16, (2,), K=2, n=2, A=2, H=2, H2=3), torch.float32, device)
    for key in data.draw(st.sets(st.sampled_from(list(inputs)), max_size=2)):
        inputs[key] = torch.ones(data.draw(SHAPES)).to(device, data.draw(DTYPES))
    try:
        ours = run(inputs)
    except ValueError:
        return
    assert error(ours, ops.reference.marginal_value(**converted(inputs, torch.float64, device))) < 1e-5
