"""The ensemble of critics against its reference, finite differences, torch's machinery, and every wrong call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from emix.ops import critic
from tests.ops.cases import Inputs, changed, converted, error, leaves, moved, strided


def make_inputs(
    seed: int,
    leading: tuple[int, ...] = (3, 4),
    *,
    N: int = 2,
    S: int = 3,
    O: int = 4,  # noqa: E741
    n: int = 2,
    H: int = 5,
    A: int = 3,
    taken: bool = False,
) -> Inputs:
    """``taken``: of given actions."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, inputs: int = 1) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64) * inputs**-0.5

    columns = S + O + n
    return {
        "state": normal(*leading, S),
        "obs": normal(*leading, n, O),
        "w_encode": normal(N, columns, H, inputs=columns),
        "b_encode": normal(N, H),
        "w_hidden": normal(N, H, H, inputs=H),
        "b_hidden": normal(N, H),
        "w_head": normal(N, H, A + 1, inputs=H),
        "b_head": normal(N, A + 1),
    } | ({"actions": torch.randint(A, (*leading, n), generator=g)} if taken else {})


def run(inputs: Inputs) -> Tensor:
    return ops.ensemble_critic(**inputs)


@given(
    seed=st.integers(0, 2**31),
    leading=st.sampled_from([(), (0,), (1,), (7,), (2, 33), (2, 3, 5), (150,)]),
    N=st.sampled_from([1, 2, 5, 17]),
    S=st.sampled_from([0, 1, 16, 21]),
    O=st.sampled_from([0, 1, 9, 32]),
    n=st.sampled_from([1, 3, 8, 70]),
    H=st.sampled_from([1, 7, 16, 33, 64]),
    A=st.sampled_from([1, 2, 15, 16, 20]),
    taken=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "sliced", "expanded"]),
)
@settings(max_examples=150, deadline=None)
def test_equals_its_reference(
    device: str,
    seed: int,
    leading: tuple[int, ...],
    N: int,
    S: int,
    O: int,  # noqa: E741
    n: int,
    H: int,
    A: int,
    taken: bool,
    layout: str,
) -> None:
    """Values and all gradients in float64, values in float32; by the op and by torch's products."""
    inputs = make_inputs(seed, leading, N=N, S=S, O=O, n=n, H=H, A=A, taken=taken)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "sliced" and leading:
        longer = make_inputs(seed, (*leading[:-1], leading[-1] + 2), N=N, S=S, O=O, n=n, H=H, A=A)
        inputs["state"], inputs["obs"] = longer["state"][..., 1:-1, :], longer["obs"][..., 1:-1, :, :]
    elif layout == "expanded" and leading:
        one = make_inputs(seed, (1,) * len(leading), N=N, S=S, O=O, n=n, H=H, A=A)
        inputs["state"], inputs["obs"] = one["state"].expand(*leading, S), one["obs"].expand(*leading, n, O)
    inputs = changed(inputs, partial(moved, device=device))
    wanted = leaves(inputs)
    expected = ops.reference.ensemble_critic(**inputs)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    upstream = upstream.to(device)
    theirs = torch.autograd.grad(expected, wanted, upstream)
    for function in (ops.ensemble_critic, critic._products):
        ours = function(**inputs)
        assert ours.dtype == torch.float64
        assert error(ours, expected) < 1e-12
        for a, b in zip(torch.autograd.grad(ours, wanted, upstream), theirs, strict=True):
            assert error(a, b) < 1e-11
        assert error(function(**converted(inputs, torch.float32, device)), expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_actions_of_any_integer_type(device: str, dtype: torch.dtype) -> None:
    inputs = changed(make_inputs(13, taken=True), lambda x: x.to(device))
    assert torch.equal(run({**inputs, "actions": inputs["actions"].to(dtype)}), run(inputs))


@pytest.mark.parametrize("function", [ops.ensemble_critic, critic._products, ops.reference.ensemble_critic])
def test_no_gradient_from_an_action_that_there_is_not(device: str, function: Callable[..., Tensor]) -> None:
    inputs = changed(make_inputs(15, taken=True), lambda x: x.to(device))
    wanted = leaves(inputs)
    expected = torch.autograd.grad(function(**inputs)[:, 1:].sum(), wanted)
    inputs["actions"][0] = torch.tensor([-1, 3], device=device)
    q = function(**inputs)
    assert q[:, 0].isnan().all()
    for a, b in zip(torch.autograd.grad(q[:, 1:].sum(), wanted), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize(("members", "rows"), [(2, 5000), (20, 53000)])
def test_many_rows(members: int, rows: int, taken: bool) -> None:
    """Weights are copied then, and of very many rows the first layer is not kept for the backward pass."""
    inputs = make_inputs(14, (rows,), N=members, S=9, n=1, H=16, taken=taken)
    wanted = leaves(inputs)
    ours, expected = run(inputs), ops.reference.ensemble_critic(**inputs)
    assert error(ours, expected) < 1e-12
    upstream = torch.cos(expected.detach())
    theirs = torch.autograd.grad(expected, wanted, upstream)
    for a, b in zip(torch.autograd.grad(ours, wanted, upstream), theirs, strict=True):
        assert error(a, b) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32_on_the_cpu(dtype: torch.dtype) -> None:
    inputs = converted(make_inputs(1), dtype)
    exact = converted(inputs, torch.float64)
    wanted, exact_wanted = leaves(inputs), leaves(exact)
    ours, expected = run(inputs), ops.reference.ensemble_critic(**exact)
    assert ours.dtype == torch.float32
    assert error(ours, expected) < 1e-6
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-6}[dtype]
    grads = zip(torch.autograd.grad(ours.sum(), wanted), torch.autograd.grad(expected.sum(), exact_wanted), strict=True)
    for leaf, (a, b) in zip(wanted, grads, strict=True):
        assert a.dtype == leaf.dtype
        assert error(a, b) < tolerance


@pytest.mark.parametrize("taken", [False, True])
def test_gradcheck(device: str, taken: bool) -> None:
    inputs = changed(make_inputs(2, (2, 2), taken=taken), lambda x: x.to(device))
    leaves(inputs)
    assert torch.autograd.gradcheck(ops.ensemble_critic, tuple(inputs.values()))


def test_gradient_of_each_input_alone(device: str) -> None:
    inputs = changed(make_inputs(3), lambda x: x.to(device))
    everything = changed(inputs, Tensor.clone)
    wanted = leaves(everything)
    expected = torch.autograd.grad(run(everything).square().sum(), wanted)
    for name, grad in zip(inputs, expected, strict=True):
        some = {**inputs, name: inputs[name].clone().requires_grad_()}
        torch.testing.assert_close(torch.autograd.grad(run(some).square().sum(), some[name])[0], grad)


def test_no_gradient_unless_asked(device: str) -> None:
    inputs = changed(make_inputs(4), lambda x: x.to(device))
    assert not run(inputs).requires_grad
    leaves(inputs)
    with torch.no_grad():
        assert not run(inputs).requires_grad
    assert run(inputs).requires_grad


def test_a_nan_is_seen_in_its_step_alone(device: str) -> None:
    inputs = changed(make_inputs(5), lambda x: x.to(device))
    inputs["obs"][1, 2, 1] = torch.nan
    q = run(inputs)
    assert q[:, 1, 2, 1].isnan().all()
    assert q.isnan().sum() == q[:, 1, 2, 1].numel()


def big(seed: int, steps: int, members: int, taken: bool = False) -> Inputs:
    inputs = make_inputs(seed, (steps,), N=members, S=21, O=30, n=3, H=64, A=9, taken=taken)
    return converted(inputs, torch.float32)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    inputs = big(6, 100, 3)
    q = run(inputs)
    for part in (slice(0, 1), slice(17, 60), slice(99, 100)):
        assert torch.equal(run({**inputs, "state": inputs["state"][part], "obs": inputs["obs"][part]}), q[:, part])


@pytest.mark.parametrize(("steps", "members", "taken"), [(5, 1, False), (400, 1, True), (400, 10, False)])
def test_the_number_of_threads_changes_nothing(steps: int, members: int, taken: bool) -> None:
    inputs = big(7, steps, members, taken)
    wanted = leaves(inputs)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            q = run(inputs)
            found.append([q, *torch.autograd.grad(q.square().sum(), wanted)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("taken", [False, True])
def test_opcheck(taken: bool, save: bool) -> None:
    inputs = {"actions": None} | converted(make_inputs(8, taken=taken), torch.float32)
    actions = inputs.pop("actions")
    torch.library.opcheck(torch.ops.emix.ensemble_critic.default, (*inputs.values(), actions, save))


@pytest.mark.parametrize("wanted", [(False, False), (True, False), (True, True)])
def test_opcheck_backward(wanted: tuple[bool, bool]) -> None:
    inputs = converted(make_inputs(9, taken=True), torch.float32)
    q, saved = torch.ops.emix.ensemble_critic.default(*inputs.values(), True)
    torch.library.opcheck(torch.ops.emix.ensemble_critic_backward.default, (q, *inputs.values(), saved, *wanted))


def test_compiles_without_a_graph_break(device: str) -> None:
    inputs = converted(make_inputs(10), torch.float32, device)
    wanted = leaves(inputs)

    def loss() -> Tensor:
        return run(inputs).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")()
    for a, b in zip(torch.autograd.grad(compiled, wanted), torch.autograd.grad(loss(), wanted), strict=True):
        torch.testing.assert_close(a, b)


WRONG = [
    ({"state": torch.zeros(3, 3, 3)}, r"state must have shape \[3, 4, 3\]"),
    ({"state": torch.zeros(())}, "state must have shape"),
    ({"obs": torch.zeros(4)}, "obs"),
    ({"w_encode": torch.zeros(2, 8, 5)}, r"w_encode must have shape \[2, 9, 5\]"),
    ({"w_encode": torch.zeros(3, 9, 5)}, r"w_encode must have shape \[2, 9, 5\]"),
    ({"b_encode": torch.zeros(2, 1, 5)}, r"b_encode must have shape \[2, 5\]"),
    ({"w_hidden": torch.zeros(5, 5)}, "w_hidden"),
    ({"w_hidden": torch.zeros(2, 5, 4)}, "w_hidden"),
    ({"b_hidden": torch.zeros(5)}, r"b_hidden must have shape \[2, 5\]"),
    ({"w_head": torch.zeros(2, 5)}, "w_head"),
    ({"b_head": torch.zeros(2, 3)}, r"b_head must have shape \[2, 4\]"),
    ({"actions": torch.zeros(3, 4, 3).long()}, r"actions must have shape \[3, 4, 2\]"),
    ({"actions": torch.zeros(3, 4, 2)}, "actions must be an integer tensor"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls(device: str, change: Inputs, message: str) -> None:
    inputs = {**converted(make_inputs(11), torch.float32, device), **changed(change, lambda x: x.to(device))}
    with pytest.raises(ValueError, match=message):
        run(inputs)


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls_of_the_products(change: Inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critic._products(**{**converted(make_inputs(11), torch.float32), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": torch.zeros(3, 4, 2, 4).long()}, "obs must be a float16"),
        ({"w_head": torch.zeros(2, 5, 4, dtype=torch.complex64)}, "w_head must be real"),
        ({"w_hidden": torch.zeros(0, 5, 5)}, "N and H at least 1"),
        ({"w_hidden": torch.zeros(2, 0, 0)}, "N and H at least 1"),
        ({"w_head": torch.zeros(2, 5, 0)}, r"w_head must have shape \[N, H, A \+ 1\]"),
        ({"state": None}, "state|first argument"),
        ({"w_encode": None}, "w_encode"),
    ],
)
def test_wrong_calls_on_the_cpu(change: Inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run({**converted(make_inputs(11), torch.float32), **change})


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@pytest.mark.parametrize("function", [ops.ensemble_critic, critic._products], ids=["op", "products"])
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_random_calls_are_right_or_refused(device: str, function: Callable[..., Tensor], data: st.DataObject) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    inputs = converted(make_inputs(12), torch.float32, device)
    for key in data.draw(st.sets(st.sampled_from(list(inputs)), max_size=2)):
        inputs[key] = torch.ones(data.draw(SHAPES)).to(device, data.draw(DTYPES))
    try:
        ours = function(**inputs)
    except ValueError:
        return
    assert error(ours, ops.reference.ensemble_critic(**converted(inputs, torch.float64, device))) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": torch.zeros(3, 4, 2, 4).long()}, "obs must be a float16, .*, got torch.int64"),
        (
            {"w_encode": torch.zeros(2, 9, 5).double()},
            "w_encode must be of obs's type on a GPU, torch.float32, got torch.float64",
        ),
        ({"w_head": torch.zeros(2, 5, 4, dtype=torch.complex64)}, "w_head must be a float16, .*, got torch.complex64"),
        ({"w_head": torch.zeros(0, 5, 4)}, r"w_head must have shape \[2, 5, 4\], got \[0, 5, 4\]"),
        ({"w_hidden": torch.zeros(2, 0, 0)}, "N and H at least 1"),
        ({"w_head": torch.zeros(2, 5, 0)}, r"w_head must have shape \[N, H, A \+ 1\]"),
        ({"state": None}, "state must be a tensor, got None"),
        ({"w_encode": torch.zeros(2, 9, 5, device="meta")}, "w_encode must be on cpu like state, got meta"),
    ],
)
def test_wrong_types_of_the_products(change: Inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critic._products(**{**converted(make_inputs(11), torch.float32), **change})
