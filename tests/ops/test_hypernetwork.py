"""The mixers' hypernetworks against their reference, finite differences, torch's machinery, and every wrong call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from emix.ops import hypernetwork
from tests.ops.cases import Inputs, changed, converted, error, leaves, moved, strided


def make_inputs(
    seed: int,
    leading: tuple[int, ...] = (3, 4),
    *,
    N: int = 2,
    S: int = 3,
    n: int = 2,
    E: int = 5,
    m: int = 3,
    widths: tuple[int, int] | None = (6, 7),
) -> Inputs:
    """``widths``: of the hidden layers of w1 and w2; None: they have none."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, inputs: int = 1) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64) * max(1, inputs) ** -0.5

    columns = 2 * E + sum(widths or (n * E, E * m))
    inputs: Inputs = {
        "state": normal(*leading, S),
        "w_first": normal(N, columns, S, inputs=S),
        "b_first": normal(N, columns),
        "w_v": normal(N, E, m, inputs=E),
        "b_v": normal(N, m),
    }
    if widths is not None:
        inputs |= {"w_w1": normal(N, widths[0], n * E, inputs=widths[0]), "b_w1": normal(N, n * E)}
        inputs |= {"w_w2": normal(N, widths[1], E * m, inputs=widths[1]), "b_w2": normal(N, E * m)}
    return inputs


def run(inputs: Inputs) -> ops.MonotonicWeights:
    return ops.monotonic_weights(**inputs)


def total(results: tuple[Tensor, ...]) -> Tensor:
    """A loss in which every result has a weight of its own."""
    return sum((k + 1) * each.square().sum() for k, each in enumerate(results))


@given(
    seed=st.integers(0, 2**31),
    leading=st.sampled_from([(), (0,), (1,), (8,), (2, 33), (2, 3, 5), (150,), (264,)]),
    N=st.sampled_from([1, 2, 5]),
    S=st.sampled_from([0, 1, 16, 21]),
    n=st.sampled_from([0, 1, 3, 8]),
    E=st.sampled_from([1, 7, 16, 32]),
    m=st.sampled_from([1, 2, 10]),
    widths=st.sampled_from([None, (1, 1), (64, 64), (16, 33), (7, 0), (0, 5)]),
    layout=st.sampled_from(["contiguous", "strided", "sliced", "expanded"]),
)
@settings(max_examples=150, deadline=None)
def test_equals_its_reference(
    device: str,
    seed: int,
    leading: tuple[int, ...],
    N: int,
    S: int,
    n: int,
    E: int,
    m: int,
    widths: tuple[int, int] | None,
    layout: str,
) -> None:
    """Values and all gradients in float64, values in float32; by the op and by torch's products."""
    make = partial(make_inputs, seed, N=N, S=S, n=n, E=E, m=m, widths=widths)
    inputs = make(leading)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "sliced" and leading:
        inputs["state"] = make((*leading[:-1], leading[-1] + 2))["state"][..., 1:-1, :]
    elif layout == "expanded" and leading:
        inputs["state"] = make((1,) * len(leading))["state"].expand(*leading, S)
    inputs = changed(inputs, partial(moved, device=device))
    wanted = leaves(inputs)
    expected = ops.reference.monotonic_weights(**inputs)
    theirs = torch.autograd.grad(total(expected), wanted)
    for function in (ops.monotonic_weights, hypernetwork._products):
        ours = function(**inputs)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == torch.float64
            assert error(a, b) < 1e-12
        for a, b in zip(torch.autograd.grad(total(ours), wanted), theirs, strict=True):
            assert error(a, b) < 1e-11
        for a, b in zip(function(**converted(inputs, torch.float32, device)), expected, strict=True):
            assert error(a, b) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32_on_the_cpu(dtype: torch.dtype) -> None:
    inputs = converted(make_inputs(1), dtype)
    exact = converted(inputs, torch.float64)
    wanted, exact_wanted = leaves(inputs), leaves(exact)
    ours, expected = run(inputs), ops.reference.monotonic_weights(**exact)
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == torch.float32
        assert error(a, b) < 1e-6
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-6}[dtype]
    grads = torch.autograd.grad(total(ours), wanted), torch.autograd.grad(total(expected), exact_wanted)
    for leaf, a, b in zip(wanted, *grads, strict=True):
        assert a.dtype == leaf.dtype
        assert error(a, b) < tolerance


@pytest.mark.parametrize("widths", [(6, 7), None], ids=["two layers", "one layer"])
def test_gradcheck(device: str, widths: tuple[int, int] | None) -> None:
    inputs = changed(make_inputs(2, (2, 2), widths=widths), lambda x: x.to(device))
    leaves(inputs)
    assert torch.autograd.gradcheck(ops.monotonic_weights, tuple(inputs.values()))


@pytest.mark.parametrize("widths", [(6, 7), None], ids=["two layers", "one layer"])
def test_gradient_of_each_input_and_from_each_result_alone(device: str, widths: tuple[int, int] | None) -> None:
    inputs = changed(make_inputs(3, widths=widths), lambda x: x.to(device))
    for place in range(4):
        everything = changed(inputs, Tensor.clone)
        wanted = leaves(everything)
        loss = ops.reference.monotonic_weights(**everything)[place].square().sum()
        expected = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        # An input that a result does not depend on gets zeros of the compiled op, and nothing of a GPU's products.
        missing = {"allow_unused": True, "materialize_grads": True}
        ours = torch.autograd.grad(run(everything)[place].square().sum(), wanted, **missing)
        for name, a, b in zip(inputs, ours, expected, strict=True):
            torch.testing.assert_close(a, b)
            some = {**inputs, name: inputs[name].clone().requires_grad_()}
            loss = run(some)[place].square().sum() + 0 * some[name].sum()
            torch.testing.assert_close(torch.autograd.grad(loss, some[name])[0], b)


def test_no_gradient_unless_asked(device: str) -> None:
    inputs = changed(make_inputs(4), lambda x: x.to(device))
    assert not any(each.requires_grad for each in run(inputs))
    leaves(inputs)
    with torch.no_grad():
        assert not any(each.requires_grad for each in run(inputs))
    assert all(each.requires_grad for each in run(inputs))


def test_a_nan_is_seen_in_its_row_alone(device: str) -> None:
    inputs = changed(make_inputs(5), lambda x: x.to(device))
    inputs["state"][1, 2, 1] = torch.nan
    for each in run(inputs):
        assert each[:, 1, 2].isnan().all()
        assert each.isnan().sum() == each[:, 1, 2].numel()


def test_mixes_as_pymarl_does(device: str) -> None:
    """QMixer of two layers, member by member."""
    inputs = changed(make_inputs(6, (20,), n=3, E=8, m=1), lambda x: x.to(device))
    q = torch.randn(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    w1, b1, w2, v = run(inputs)
    ours = ops.monotonic_mix(q, w1, b1, w2, v)  # [N, R, 1]
    for k in range(2):
        x = inputs["state"] @ inputs["w_first"][k].T + inputs["b_first"][k]
        b, hidden_v, hidden_1, hidden_2 = x.split((8, 8, 6, 7), dim=-1)
        first = (hidden_1.relu() @ inputs["w_w1"][k] + inputs["b_w1"][k]).abs().view(20, 3, 8)
        last = (hidden_2.relu() @ inputs["w_w2"][k] + inputs["b_w2"][k]).abs().view(20, 8, 1)
        hidden = torch.nn.functional.elu(torch.bmm(q[k].unsqueeze(1), first) + b.unsqueeze(1))
        value = hidden_v.relu() @ inputs["w_v"][k] + inputs["b_v"][k]
        torch.testing.assert_close(ours[k], torch.bmm(hidden, last).squeeze(1) + value)


def big(seed: int, rows: int, members: int, widths: tuple[int, int] | None) -> Inputs:
    return converted(make_inputs(seed, (rows,), N=members, S=48, n=3, E=32, m=3, widths=widths), torch.float32)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    inputs = big(7, 300, 3, (64, 64))
    everything = run(inputs)
    for part in (slice(0, 1), slice(17, 160), slice(299, 300)):
        for a, b in zip(run({**inputs, "state": inputs["state"][part]}), everything, strict=True):
            assert torch.equal(a, b[:, part])


@pytest.mark.parametrize("widths", [(64, 64), None], ids=["two layers", "one layer"])
@pytest.mark.parametrize(("rows", "members"), [(5, 1), (1920, 2), (1000, 5)])
def test_the_number_of_threads_changes_nothing(rows: int, members: int, widths: tuple[int, int] | None) -> None:
    inputs = big(8, rows, members, widths)
    wanted = leaves(inputs)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results = run(inputs)
            found.append([*results, *torch.autograd.grad(total(results), wanted)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("widths", [(6, 7), None], ids=["two layers", "one layer"])
@pytest.mark.parametrize("save", [False, True])
def test_opcheck(save: bool, widths: tuple[int, int] | None) -> None:
    inputs = converted(make_inputs(9, widths=widths), torch.float32)
    given_inputs = (*inputs.values(), *[None] * (9 - len(inputs)))
    torch.library.opcheck(torch.ops.emix.monotonic_weights.default, (*given_inputs, save))


@pytest.mark.parametrize("widths", [(6, 7), None], ids=["two layers", "one layer"])
@pytest.mark.parametrize("state_wanted", [False, True])
def test_opcheck_backward(state_wanted: bool, widths: tuple[int, int] | None) -> None:
    inputs = converted(make_inputs(10, widths=widths), torch.float32)
    given_inputs = (*inputs.values(), *[None] * (9 - len(inputs)))
    *results, saved = torch.ops.emix.monotonic_weights.default(*given_inputs, True)
    arguments = (*results[:3], None, *given_inputs, saved, state_wanted)
    torch.library.opcheck(torch.ops.emix.monotonic_weights_backward.default, arguments)


def test_compiles_without_a_graph_break(device: str) -> None:
    inputs = converted(make_inputs(11), torch.float32, device)
    wanted = leaves(inputs)

    def loss() -> Tensor:
        return total(run(inputs))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")()
    for a, b in zip(torch.autograd.grad(compiled, wanted), torch.autograd.grad(loss(), wanted), strict=True):
        torch.testing.assert_close(a, b)


WRONG = [
    ({"state": torch.zeros(())}, r"state must have shape \[..., S\]"),
    ({"state": torch.zeros(1, 1, 1, 1, 1, 1, 3)}, r"state must have shape \[..., S\] with up to 6 axes"),
    ({"state": torch.zeros(3, 4, 5)}, r"w_first must have shape \[2, 23, 5\]"),
    ({"w_first": torch.zeros(23, 3)}, r"w_first must have shape \[N, C, S\]"),
    ({"w_first": torch.zeros(2, 24, 3)}, r"w_first must have E \+ E columns and those of w1 and w2"),
    ({"w_first": torch.zeros(3, 23, 3)}, r"w_first must have shape \[2, 23, 3\]"),
    ({"b_first": torch.zeros(23)}, r"b_first must have shape \[2, 23\]"),
    ({"w_v": torch.zeros(5, 3)}, r"w_v must have shape \[N, E, m\]"),
    ({"w_v": torch.zeros(2, 0, 3)}, r"w_v must have shape \[N, E, m\], all at least 1, got \[2, 0, 3\]"),
    ({"w_v": torch.zeros(2, 5, 0)}, r"w_v must have shape \[N, E, m\], all at least 1"),
    ({"b_v": torch.zeros(2, 4)}, r"b_v must have shape \[2, 3\]"),
    ({"w_w1": torch.zeros(6, 10)}, r"w_w1 must have shape \[N, K, n E\]"),
    ({"w_w1": torch.zeros(2, 6, 11)}, r"w_first must have E \+ E columns"),
    ({"w_w1": torch.zeros(1, 6, 10)}, r"w_w1 must have shape \[2, 6, 10\]"),
    ({"b_w1": torch.zeros(2, 1, 10)}, r"b_w1 must have shape \[2, 10\]"),
    ({"w_w2": torch.zeros(2, 7)}, r"w_w2 must have shape \[N, K', E m\]"),
    ({"w_w2": torch.zeros(2, 7, 14)}, r"w_w2 must have shape \[2, 7, 15\]"),
    ({"b_w2": torch.zeros(2, 14)}, r"b_w2 must have shape \[2, 15\]"),
    ({"b_w2": None}, "w_w1, b_w1, w_w2 and b_w2 must be given together, got 3 of them"),
    ({"w_w1": None}, "w_w1, b_w1, w_w2 and b_w2 must be given together, got 3 of them"),
    ({"w_v": torch.zeros(2, 5, 3).long()}, "w_v must be a float16"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls(device: str, change: Inputs, message: str) -> None:
    inputs = {**converted(make_inputs(12), torch.float32, device), **changed(change, lambda x: x.to(device))}
    with pytest.raises(ValueError, match=message):
        run(inputs)


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls_of_the_products(change: Inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hypernetwork._products(**{**converted(make_inputs(12), torch.float32), **change})


def test_the_products_want_one_type() -> None:
    inputs = {**converted(make_inputs(12), torch.float32), "w_v": torch.zeros(2, 5, 3).double()}
    with pytest.raises(ValueError, match=r"w_v must be of state's type on a GPU, torch\.float32, got torch\.float64"):
        hypernetwork._products(**inputs)


def test_a_first_layer_with_too_few_columns_is_refused() -> None:
    inputs = converted(make_inputs(12, widths=None), torch.float32)
    few = {**inputs, "w_first": inputs["w_first"][:, :20], "b_first": inputs["b_first"][:, :20]}
    with pytest.raises(ValueError, match=r"w_first must have E \+ E columns .* with E = 5 and m = 3"):
        run(few)


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@pytest.mark.parametrize("function", [ops.monotonic_weights, hypernetwork._products], ids=["op", "products"])
@pytest.mark.parametrize("widths", [(6, 7), None], ids=["two layers", "one layer"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_random_calls_are_right_or_refused(
    device: str, function: Callable[..., Tensor], widths: tuple[int, int] | None, data: st.DataObject
) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    inputs = converted(make_inputs(13, widths=widths), torch.float32, device)
    for key in data.draw(st.sets(st.sampled_from(list(inputs)), max_size=2)):
        inputs[key] = torch.ones(data.draw(SHAPES)).to(device, data.draw(DTYPES))
    try:
        ours = function(**inputs)
    except ValueError:
        return
    for a, b in zip(ours, ops.reference.monotonic_weights(**converted(inputs, torch.float64, device)), strict=True):
        assert error(a, b) < 1e-5
