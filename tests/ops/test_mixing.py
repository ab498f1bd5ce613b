"""The mixing ops against their references, brute force over joint actions, finite differences."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emix import ops
from tests.ops.cases import changed, moved, relative_error, strided
from tests.ops.mixing_cases import DIFFERENTIABLE, NAMES, make_inputs, op_of, run

# Right answers

LEADING = st.sampled_from([(), (1,), (5,), (70,), (0,), (3, 4), (2, 0), (2, 3, 4), (1, 6, 1)])


@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**31),
    leading=LEADING,
    n=st.sampled_from([0, 1, 2, 3, 10, 27, 33, 64]),
    inner=st.sampled_from([1, 2, 7, 8, 9, 18, 31, 32, 33, 64, 70]),
    options=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "sliced", "expanded"]),
)
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(
    device: str, name: str, seed: int, leading: tuple[int, ...], n: int, inner: int, options: bool, layout: str
) -> None:
    inputs = make_inputs(name, seed, leading, n, inner, options=options)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "sliced" and len(leading) > 1:  # as time is: two strides
        longer = make_inputs(name, seed, (*leading[:-1], leading[-1] + 1), n, inner, options=options)
        inputs = changed(longer, lambda x: x.narrow(len(leading) - 1, 1, leading[-1]))
    elif layout == "expanded" and leading:
        inputs = changed(
            make_inputs(name, seed, (1,) * len(leading), n, inner, options=options),
            lambda x: x.expand(*leading, *x.shape[len(leading) :]),
        )
    inputs = changed(inputs, lambda x: moved(x, device))
    expected = run(name, inputs, ops.reference)
    ours = run(name, inputs)
    assert ours.dtype == torch.float64
    assert relative_error(ours, expected) < 1e-10
    assert relative_error(run(name, changed(inputs, torch.Tensor.float)), expected) < 1e-4 * (
        1 + (expected.abs().max().item() if expected.numel() else 0)
    )


@given(
    name=st.sampled_from(DIFFERENTIABLE),
    seed=st.integers(0, 2**31),
    leading=LEADING,
    n=st.sampled_from([1, 3, 10, 33, 64]),
    inner=st.sampled_from([1, 8, 18, 32, 40]),
    options=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_gradients_equal_the_references(
    device: str, name: str, seed: int, leading: tuple[int, ...], n: int, inner: int, options: bool
) -> None:
    inputs = changed(make_inputs(name, seed, leading, n, inner, options=options), lambda x: x.to(device))
    given_inputs = [value.requires_grad_() for value in inputs.values() if value is not None]
    expected = run(name, inputs, ops.reference)
    upstream = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(seed))
    upstream = upstream.to(device)
    theirs = torch.autograd.grad(expected, given_inputs, upstream)
    ours = torch.autograd.grad(run(name, inputs), given_inputs, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    inputs = changed(make_inputs(name, 3, (9, 7), 5, 18), lambda x: x.to(device, dtype))
    ours = run(name, inputs)
    assert ours.dtype == torch.float32
    assert relative_error(ours, run(name, changed(inputs, torch.Tensor.double), ops.reference)) < 2e-5


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_their_inputs_dtype(device: str, name: str, dtype: torch.dtype) -> None:
    """Also where one input is float32 and the others are not, as under autocast."""
    for first in (dtype, torch.float32, torch.float64):
        inputs = changed(make_inputs(name, 5, (6,), 5, 18), lambda x: x.to(device, dtype))
        inputs["q"] = inputs["q"].to(first)
        leaves = [value.requires_grad_() for value in inputs.values() if value is not None]
        grads = torch.autograd.grad(run(name, inputs).sum(), leaves)
        exact = changed(inputs, lambda x: x.detach().double().requires_grad_())
        expected = torch.autograd.grad(
            run(name, exact, ops.reference).sum(), [x for x in exact.values() if x is not None]
        )
        for leaf, ours, theirs in zip(leaves, grads, expected, strict=True):
            assert ours.dtype == leaf.dtype
            assert relative_error(ours, theirs) < (
                1e-2 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else 1e-5
            )


@pytest.mark.parametrize("name", NAMES)
def test_devices_agree(device: str, name: str) -> None:
    for leading, n, inner in [((3,), 2, 70), ((700, 3), 10, 18), ((40,), 27, 36), ((5,), 64, 128), ((2, 3), 10, 64)]:
        inputs = make_inputs(name, 7, leading, n, inner)
        ours = run(name, changed(inputs, lambda x: x.to(device)))
        assert relative_error(ours, run(name, inputs, ops.reference)) < 1e-10


# Identities


def test_expectation_is_exact_over_joint_actions() -> None:
    n, A = 3, 4
    inputs = make_inputs("expected_linear_mix", 11, (5,), n, A)
    q, pi, weight, bias, uncertainty = inputs.values()
    total = torch.zeros(5, dtype=torch.float64)
    for joint in itertools.product(range(A), repeat=n):
        chosen = (slice(None), range(n), joint)
        value = (q * uncertainty)[chosen]  # [5, n]
        total += pi[chosen].prod(-1) * ops.linear_mix(value, weight, bias)
    torch.testing.assert_close(run("expected_linear_mix", inputs), total)


def test_certain_actions_make_the_expectation_a_mix() -> None:
    q, weight = torch.randn(6, 3, 5), torch.rand(6, 3)
    actions = torch.randint(5, (6, 3))
    pi = torch.nn.functional.one_hot(actions, 5).float()
    taken = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(ops.expected_linear_mix(q, pi, weight), ops.linear_mix(taken, weight))


def test_weights_are_normalised_here() -> None:
    q, weight = torch.randn(8, 4, dtype=torch.float64), torch.rand(8, 4, dtype=torch.float64) + 0.1
    mixed = ops.linear_mix(q, weight)
    torch.testing.assert_close(ops.linear_mix(q, 7 * weight), mixed)
    torch.testing.assert_close(ops.linear_mix(q, weight / weight.sum(-1, keepdim=True)), mixed)
    torch.testing.assert_close(ops.linear_mix(q, torch.ones_like(q)), q.mean(-1))


def test_no_weight_at_all_gives_the_bias(device: str) -> None:
    q = torch.randn(3, 4, device=device)
    bias = torch.randn(3, device=device)
    assert torch.equal(ops.linear_mix(q, torch.zeros_like(q), bias), bias)


def test_actions_that_are_never_taken_may_be_infinite_or_nan(device: str) -> None:
    inputs = changed(make_inputs("expected_linear_mix", 13, (6,), 4, 9), lambda x: x.to(device))
    never = inputs["pi"] == 0
    assert never.any()
    for unknown in (torch.nan, torch.inf, -torch.inf):
        poisoned = {**inputs, "q": inputs["q"].masked_fill(never, unknown)}
        assert torch.equal(run("expected_linear_mix", poisoned), run("expected_linear_mix", inputs))
        leaves = [value.clone().requires_grad_() for value in poisoned.values()]
        grads = torch.autograd.grad(ops.expected_linear_mix(*leaves).sum(), leaves)
        assert all(grad.isfinite().all() for grad in grads)
        assert not grads[0][never].any()


@pytest.mark.parametrize("name", NAMES)
def test_permuting_agents(name: str) -> None:
    inputs = make_inputs(name, 17, (5,), 4, 6)
    order = torch.tensor([2, 0, 3, 1])
    by_agent = {"q", "pi", "weight", "uncertainty", "w1"}
    permuted = {key: value[:, order] if key in by_agent else value for key, value in inputs.items()}
    expected = run(name, inputs)
    torch.testing.assert_close(run(name, permuted), expected[:, order] if name == "monotonic_mix_grad" else expected)


def test_each_of_many_values_is_a_mix_of_its_own(device: str) -> None:
    inputs = changed(make_inputs("monotonic_mix of many", 18, (50,), 5, 32), lambda x: x.to(device))
    ours = run("monotonic_mix of many", inputs)  # [50, m]
    for k in range(ours.shape[-1]):
        one = ops.monotonic_mix(**{**inputs, "w2": inputs["w2"][..., k], "v": inputs["v"][..., k]})
        torch.testing.assert_close(ours[:, k], one)


@pytest.mark.parametrize("outputs", [0, 1, 2, 27, 40])
def test_any_number_of_values(device: str, outputs: int) -> None:
    g = torch.Generator().manual_seed(outputs)
    inputs = make_inputs("monotonic_mix", 18, (6,), 3, 33)
    inputs |= {
        name: torch.randn(6, *shape, generator=g, dtype=torch.float64)
        for name, shape in {"w2": (33, outputs), "v": (outputs,)}.items()
    }
    leaves = [value.to(device).requires_grad_() for value in inputs.values()]
    ours, expected = ops.monotonic_mix(*leaves), ops.reference.monotonic_mix(*leaves)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn(6, outputs, generator=g, dtype=torch.float64).to(device)
    grads = (torch.autograd.grad(result, leaves, upstream) for result in (ours, expected))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_monotonic_mix_grad_is_the_derivative_and_not_negative(device: str) -> None:
    inputs = changed(make_inputs("monotonic_mix", 19, (50,), 5, 32), lambda x: x.to(device))
    inputs["q"].requires_grad_()
    (derivative,) = torch.autograd.grad(run("monotonic_mix", inputs).sum(), inputs["q"])
    ours = ops.monotonic_mix_grad(*(inputs[key].detach() for key in ("q", "w1", "b1", "w2")))
    torch.testing.assert_close(ours, derivative)
    assert (ours >= 0).all()


@pytest.mark.parametrize("outputs", [None, 1, 3, 10, 27])
def test_monotonic_mix_grad_of_weighted_values(device: str, outputs: int | None) -> None:
    """It is the gradient for that upstream gradient, and the reference says the same."""
    columns = () if outputs is None else (outputs,)
    g = torch.Generator().manual_seed(20)
    inputs = make_inputs("monotonic_mix", 20, (2, 9), 5, 32)
    inputs |= {
        name: torch.randn(2, 9, *shape, *columns, generator=g, dtype=torch.float64)
        for name, shape in {"w2": (32,), "v": ()}.items()
    }
    inputs = changed(inputs, lambda x: x.to(device))
    inputs["q"].requires_grad_()
    weight = torch.randn(2, 9, *columns, generator=g, dtype=torch.float64).to(device)
    (derivative,) = torch.autograd.grad(run("monotonic_mix", inputs), inputs["q"], weight)
    arguments = (*(inputs[key].detach() for key in ("q", "w1", "b1", "w2")), weight)
    torch.testing.assert_close(ops.monotonic_mix_grad(*arguments), derivative)
    torch.testing.assert_close(ops.reference.monotonic_mix_grad(*arguments), derivative)
    narrow = ops.monotonic_mix_grad(*(each.float() for each in arguments))
    torch.testing.assert_close(narrow, derivative.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("outputs", [1, 3, 4, 7, 16, 27])
def test_several_values_in_other_types(device: str, outputs: int, dtype: torch.dtype) -> None:
    """Registers hold more of a row than its own values: none of a neighbour's is counted or changed."""
    g = torch.Generator().manual_seed(outputs)
    shapes = {"q": (3,), "w1": (3, 9), "b1": (9,), "w2": (9, outputs), "v": (outputs,)}
    inputs = [torch.randn(7, *shape, generator=g).to(device, dtype).requires_grad_() for shape in shapes.values()]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    ours, expected = ops.monotonic_mix(*inputs), ops.reference.monotonic_mix(*exact)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)
    upstream = torch.randn(7, outputs, generator=g).to(device)
    grads = torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(expected, exact, upstream.double())
    tolerance = 1e-2 if dtype == torch.float16 else 1e-4
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


# Gradients


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradcheck(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 23, (2, 3), 3, 5), lambda x: x.to(device).requires_grad_())
    assert torch.autograd.gradcheck(getattr(ops, op_of(name)), tuple(inputs.values()))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_some_inputs_only(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 29, (4,), 3, 5), lambda x: x.to(device))
    keys = list(inputs)
    everything = changed(inputs, lambda x: x.clone().requires_grad_())
    expected = dict(zip(keys, torch.autograd.grad(run(name, everything).sum(), list(everything.values())), strict=True))
    for wanted in itertools.chain.from_iterable(itertools.combinations(keys, size) for size in range(1, len(keys))):
        some = {key: value.clone().requires_grad_() if key in wanted else value for key, value in inputs.items()}
        run(name, some).sum().backward()
        for key in keys:
            assert (some[key].grad is not None) == (key in wanted)
            if key in wanted:
                assert torch.equal(some[key].grad, expected[key])


def test_gradient_at_a_weight_of_zero_is_zero() -> None:
    inputs = make_inputs("monotonic_mix", 31, (1,), 2, 3)
    w1 = inputs["w1"].index_fill(-1, torch.tensor([1]), 0).requires_grad_()
    (grad,) = torch.autograd.grad(ops.monotonic_mix(inputs["q"], w1, inputs["b1"], inputs["w2"], inputs["v"]).sum(), w1)
    assert not grad[..., 1].any()
    assert grad[..., 0].all()


def test_no_gradient_unless_asked(device: str) -> None:
    q = torch.randn(4, 3, device=device, requires_grad=True)
    weight = torch.rand(4, 3, device=device)
    assert ops.linear_mix(q, weight).requires_grad
    assert not ops.linear_mix(q.detach(), weight).requires_grad
    with torch.no_grad():
        assert not ops.linear_mix(q, weight).requires_grad
