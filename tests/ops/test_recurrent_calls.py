"""The recurrent ops and torch's machinery, repeatability, and every wrong call."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs, converted, error, leaves
from tests.ops.recurrent_cases import NAMES, agent_inputs, make_inputs, run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("save", [False, True])
def test_opcheck(device: str, name: str, save: bool) -> None:
    inputs = converted(make_inputs(name, 37), torch.float32, device)
    torch.library.opcheck(getattr(torch.ops.emix, name).default, (*inputs.values(), save))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x_wanted", [False, True])
@pytest.mark.parametrize("given_h0", [False, True])
def test_opcheck_backward(device: str, name: str, x_wanted: bool, given_h0: bool) -> None:
    inputs = converted(make_inputs(name, 41), torch.float32, device)
    if not given_h0:
        inputs["h0"] = None
    results = getattr(torch.ops.emix, name).default(*inputs.values(), True)
    backward = getattr(torch.ops.emix, f"{name}_backward").default
    if name == "gru_sequence":
        torch.library.opcheck(backward, (results[0], *inputs.values(), *results, x_wanted))
    else:
        torch.library.opcheck(backward, (*results[:2], *inputs.values(), results[2], x_wanted))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = converted(make_inputs(name, 43), torch.float32, device)
    compiled = torch.compile(lambda: run(name, inputs), fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(), run(name, inputs), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_gradient(name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = converted(make_inputs(name, 47), torch.float32)
    wanted = leaves(inputs)

    def loss() -> Tensor:
        return sum(each.square().sum() for each in run(name, inputs))

    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(), wanted)
    for a, b in zip(ours, torch.autograd.grad(loss(), wanted), strict=True):
        torch.testing.assert_close(a, b)


def results_and_gradients(inputs: Inputs) -> list[Tensor]:
    wanted = leaves(inputs)
    results = run("agent_sequence", inputs)
    return [*results, *torch.autograd.grad([each.sum() for each in results], wanted)]


def test_repeats_bit_for_bit(device: str) -> None:
    inputs = converted(agent_inputs(53, 12, 30, 5, 30, 9, 64), torch.float32, device)
    first, second = results_and_gradients(inputs), results_and_gradients(inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("episodes", [3, 20, 150])
def test_the_number_of_threads_changes_nothing(episodes: int) -> None:
    inputs = converted(agent_inputs(59, episodes, 12, 5, 30, 9, 32), torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results_and_gradients(inputs))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_row_does_not_depend_on_its_neighbours(device: str) -> None:
    inputs = converted(agent_inputs(61, 9, 7, 4, 30, 9, 64), torch.float32, device)
    q, last = run("agent_sequence", inputs)
    one = {**inputs, **{key: inputs[key][5:6] for key in ("obs", "last_action", "h0")}}
    alone = run("agent_sequence", one)
    assert torch.equal(alone[0], q[5:6])
    assert torch.equal(alone[1], last[5:6])


# Wrong calls

WRONG = [
    ("gru_sequence", {"x": torch.zeros(3, 4)}, r"x must have shape \[R, T, I\], got \[3, 4\]"),
    ("gru_sequence", {"x": torch.zeros(3, 4, 4).long()}, "x must be a float16"),
    ("gru_sequence", {"h0": torch.zeros(2, 5)}, r"h0 must have shape \[3, 5\] because x has shape \[3, 4, 4\]"),
    ("gru_sequence", {"w_ih": torch.zeros(15, 3)}, r"w_ih must have shape \[15, 4\]"),
    ("gru_sequence", {"w_hh": torch.zeros(14, 5)}, r"w_hh must have shape \[3 H, H\] with H from 1 to 256"),
    ("gru_sequence", {"w_hh": torch.zeros(771, 257)}, "H from 1 to 256"),
    ("gru_sequence", {"w_hh": torch.zeros(0, 0)}, "H from 1 to 256"),
    ("gru_sequence", {"b_ih": torch.zeros(5)}, r"b_ih must have shape \[15\]"),
    ("gru_sequence", {"b_hh": torch.zeros(15, dtype=torch.complex64)}, "b_hh must be real"),
    ("gru_sequence", {"x": None}, "x|first argument"),
    ("gru_sequence", {"w_hh": None}, "w_hh"),
    ("agent_sequence", {"obs": torch.zeros(3, 4, 4)}, r"obs must have shape \[B, T, n, O\]"),
    ("agent_sequence", {"last_action": torch.zeros(3, 4, 2)}, "last_action must be an integer tensor"),
    ("agent_sequence", {"last_action": torch.zeros(3, 4).long()}, r"last_action must have shape \[3, 4, 2\]"),
    ("agent_sequence", {"h0": torch.zeros(6, 5)}, r"h0 must have shape \[3, 2, 5\]"),
    (
        "agent_sequence",
        {"w_encode": torch.zeros(5, 8)},
        r"w_encode must have shape \[H, O \+ A \+ n\] or \[H, O \+ A\]",
    ),
    ("agent_sequence", {"w_encode": torch.zeros(9)}, "w_encode must have shape"),
    ("agent_sequence", {"last_action": None}, "w_encode must have shape"),
    ("agent_sequence", {"b_encode": torch.zeros(4)}, r"b_encode must have shape \[5\]"),
    ("agent_sequence", {"w_head": torch.zeros(3)}, r"w_head must have shape \[A, H\]"),
    ("agent_sequence", {"w_head": torch.zeros(3, 4)}, r"w_head must have shape \[3, 5\]"),
    ("agent_sequence", {"b_head": torch.zeros(4)}, r"b_head must have shape \[3\]"),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_wrong_calls(name: str, change: dict[str, Tensor | None], message: str) -> None:
    inputs = {**converted(make_inputs(name, 67), torch.float32), **change}
    with pytest.raises(ValueError, match=message):
        run(name, inputs)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_devices_are_not_mixed(name: str) -> None:
    inputs = converted(make_inputs(name, 71), torch.float32)
    with pytest.raises(ValueError, match="w_hh must be on cpu like"):
        run(name, {**inputs, "w_hh": inputs["w_hh"].cuda()})


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(name=st.sampled_from(NAMES), data=st.data())
@settings(max_examples=300, deadline=None)
def test_random_calls_are_right_or_refused(device: str, name: str, data: st.DataObject) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    inputs = converted(make_inputs(name, 73), torch.float32, device)
    for key in data.draw(st.sets(st.sampled_from(list(inputs)), max_size=2)):
        inputs[key] = torch.ones(data.draw(SHAPES)).to(device, data.draw(DTYPES))
    try:
        ours = run(name, inputs)
    except ValueError:
        return
    exact = converted(inputs, torch.float64, device)
    for a, b in zip(ours, run(name, exact, ops.reference), strict=True):
        assert error(a, b) < 1e-4
