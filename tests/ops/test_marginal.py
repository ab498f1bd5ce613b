"""PERLA's marginalised critic against the naive one, enumeration, and finite differences; what a row depends on."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.conftest import EMULATED
from tests.ops.cases import changed, converted, error, moved, strided
from tests.ops.marginal_cases import gradients, leaves, make_inputs, repeated, run, sampled_inputs


@given(
    seed=st.integers(0, 2**31),
    leading=st.sampled_from([(), (0,), (1,), (7,), (2, 5), (33,)]),
    K=st.sampled_from([1, 3, 16, 67]),
    n=st.sampled_from([0, 1, 2, 5, 9]),
    A=st.sampled_from([1, 3, 8, 19]),
    H=st.sampled_from([1, 5, 16, 40]),
    H2=st.sampled_from([1, 8, 23, 72]),
    numbers=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "expanded"]),
)
@settings(max_examples=15 if EMULATED else 60, deadline=None)
def test_equals_the_naive_one(
    device: str,
    seed: int,
    leading: tuple[int, ...],
    K: int,
    n: int,
    A: int,
    H: int,
    H2: int,
    numbers: bool,
    layout: str,
) -> None:
    """Values and all gradients in float64 and float32."""
    inputs = make_inputs(seed, leading, K=K, n=n, A=A, H=H, H2=H2, numbers=numbers)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "expanded" and leading:
        one = make_inputs(seed, (1,) * len(leading), K=K, n=n, A=A, H=H, H2=H2, numbers=numbers)
        inputs["first"] = one["first"].expand(*leading, n, H)
        inputs["actions"] = one["actions"].expand(K, *leading, *one["actions"].shape[1 + len(leading) :])
    inputs = changed(inputs, partial(moved, device=device))
    narrow = converted({name: x.detach().clone() for name, x in inputs.items()}, torch.float32)
    leaves(inputs), leaves(narrow)
    expected = ops.reference.marginal_value(**inputs)
    theirs = gradients(expected, inputs, seed)
    for ours, its, tolerance in ((run(inputs), inputs, 1e-12), (run(narrow), narrow, 1e-5)):
        assert ours.dtype == its["first"].dtype
        assert error(ours, expected) < tolerance
        for a, b in zip(gradients(ours, its, seed), theirs, strict=True):
            assert error(a, b) < 10 * tolerance  # terms of both signs may leave little


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize(
    "sizes", [{"K": 100, "n": 10, "A": 18, "H": 64, "H2": 64}, {"n": 27, "A": 36, "H": 128, "H2": 96}]
)
def test_equals_the_naive_one_at_smac_sizes(device: str, sizes: dict[str, int], numbers: bool, emulated: bool) -> None:
    inputs = make_inputs(1, (2 if emulated else 6,), **sizes, numbers=numbers)
    wide = converted(inputs, torch.float64, device)
    narrow = converted(inputs, torch.float32, device)
    leaves(wide), leaves(narrow)
    expected, ours = ops.reference.marginal_value(**wide), run(narrow)
    assert error(ours, expected) < 2e-6
    for a, b in zip(gradients(ours, narrow, 1), gradients(expected, wide, 1), strict=True):
        assert error(a, b) < 1e-5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
@pytest.mark.parametrize(
    "sizes",
    [
        {"K": 100, "n": 2, "A": 6},
        {"K": 100, "n": 3, "A": 6},
        {"K": 100, "n": 10, "A": 18},
        {"K": 70, "n": 30, "A": 20},  # 20^30 joint actions: more than 64 bits can tell apart
        {"K": 130, "n": 64, "A": 2},  # one more than they can
        {"K": 100, "n": 5, "A": 1},
    ],
)
def test_equal_joint_actions_count_as_often_as_they_are_drawn(
    device: str, sizes: dict[str, int], share: float, dtype: torch.dtype, emulated: bool
) -> None:
    """None, many or all of a state's: values and all gradients, however many states share a block."""
    if emulated:  # where every draw is computed, slowly
        sizes = {**sizes, "K": 3}
    inputs = repeated(make_inputs(17, (2 if emulated else 9,), **sizes), 17, share)
    inputs = changed({**inputs, "actions": inputs["actions"].to(dtype)}, lambda x: x.to(device))
    leaves(inputs)
    ours, expected = run(inputs), ops.reference.marginal_value(**inputs)
    assert error(ours, expected) < 1e-12
    for a, b in zip(gradients(ours, inputs, 17), gradients(expected, inputs, 17), strict=True):
        assert error(a, b) < 1e-11


def test_more_samples_than_are_looked_through_at_once(device: str, emulated: bool) -> None:
    """10,000 samples of 9 joint actions, and as many of mostly different ones."""
    for A in (3, 200):
        inputs = changed(
            make_inputs(18, (2,), K=100 if emulated else 10_000, n=2, A=A, H=3, H2=4), lambda x: x.to(device)
        )
        leaves(inputs)
        ours, expected = run(inputs), ops.reference.marginal_value(**inputs)
        assert error(ours, expected) < 1e-12
        for a, b in zip(gradients(ours, inputs, 18), gradients(expected, inputs, 18), strict=True):
            assert error(a, b) < 1e-11


def test_equals_the_expectation_over_all_joint_actions(device: str) -> None:
    """Every joint action of the others once: the mean is the exact expectation under uniform policies."""
    n, A = 3, 3
    inputs = converted(make_inputs(2, (4,), K=1, n=n, A=A), torch.float64, device)
    joint = torch.tensor(list(product(range(A), repeat=n)), device=device)  # [A^n, n]
    value = run({**inputs, "actions": joint.unsqueeze(1).expand(-1, 4, -1)})
    for i in range(n):
        total = 0
        for others in product(range(A), repeat=n - 1):
            actions = list(others)
            actions.insert(i, 0)  # whichever: it is left out
            actions = torch.tensor(actions, device=device).expand(1, 4, n)
            total = total + run({**inputs, "actions": actions})[:, i]
        torch.testing.assert_close(value[:, i], total / A ** (n - 1))


def test_sampled_values_are_those_of_sample_actions(device: str) -> None:
    inputs = converted(sampled_inputs(3), torch.float32, device)
    first = leaves({"first": inputs["first"]})[0]
    policy = {"logits": inputs.pop("logits").requires_grad_(), "avail": inputs.pop("avail")}
    options = {"samples": 20, "floor": 0.1}
    value, actions = ops.sampled_marginal_value(
        **inputs, **policy, **options, generator=torch.Generator(device).manual_seed(4)
    )
    drawn = ops.sample_actions(**policy, **options, generator=torch.Generator(device).manual_seed(4))
    assert torch.equal(actions, drawn)
    assert torch.equal(value, run({**inputs, "actions": drawn}))
    seed = torch.randint(2**63 - 1, (1,), generator=torch.Generator(device).manual_seed(4), device=device)
    theirs = ops.reference.sampled_marginal_value(**inputs, **policy, **options, seed=seed)
    assert torch.equal(actions, theirs[1])
    torch.testing.assert_close(value, theirs[0])
    assert torch.autograd.grad(value.sum(), [first, policy["logits"]], allow_unused=True)[1] is None


@pytest.mark.skipif(EMULATED, reason="statistics of draws that are the same in every library")
def test_more_samples_have_less_variance(device: str) -> None:
    """The variance over draws falls as 1 / K."""
    inputs = converted(sampled_inputs(5), torch.float64, device)
    generator = torch.Generator(device).manual_seed(0)
    variance = {
        samples: torch.stack(
            [ops.sampled_marginal_value(**inputs, samples=samples, generator=generator).value for _ in range(200)]
        ).var(0)
        for samples in (5, 50)
    }
    assert 8 < variance[5].sum() / variance[50].sum() < 12.5


def test_own_action_and_order_of_samples_count_for_nothing(device: str) -> None:
    inputs = converted(make_inputs(3, (5,), K=70), torch.float64, device)
    value = run(inputs)
    torch.testing.assert_close(run({**inputs, "actions": inputs["actions"].flip(0)}), value)
    changed_own = inputs["actions"].clone()
    changed_own[..., 1] = (changed_own[..., 1] + 1) % 4
    others = run({**inputs, "actions": changed_own})
    torch.testing.assert_close(others[:, 1], value[:, 1])
    assert (others[:, 0] != value[:, 0]).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_indices_of_any_integer_type(device: str, dtype: torch.dtype) -> None:
    inputs = converted(make_inputs(4), torch.float32, device)
    assert torch.equal(run({**inputs, "actions": inputs["actions"].to(dtype)}), run(inputs))


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_computed_in_float32(device: str, dtype: torch.dtype, numbers: bool) -> None:
    inputs = converted(make_inputs(5, numbers=numbers), dtype, device)
    exact = converted(inputs, torch.float64)
    leaves(inputs), leaves(exact)
    ours, expected = run(inputs), ops.reference.marginal_value(**exact)
    assert ours.dtype == torch.float32
    assert error(ours, expected) < 1e-5
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    for a, b, leaf in zip(gradients(ours, inputs, 5), gradients(expected, exact, 5), leaves(inputs), strict=True):
        assert a.dtype == leaf.dtype
        assert error(a, b) < tolerance


@pytest.mark.parametrize(("numbers", "A"), [(False, 4), (True, 4), (False, 1)])
def test_gradcheck(device: str, numbers: bool, A: int) -> None:
    inputs = changed(make_inputs(6, (2, 2), K=3, n=2, A=A, H=3, H2=4, numbers=numbers), lambda x: x.to(device))
    leaves(inputs)
    assert torch.autograd.gradcheck(ops.marginal_value, tuple(inputs.values()))


def test_gradient_of_each_input_alone(device: str) -> None:
    inputs = changed(make_inputs(7), lambda x: x.to(device))
    everything = changed(inputs, Tensor.clone)
    wanted = leaves(everything)
    expected = torch.autograd.grad(run(everything).square().sum(), wanted)
    for name, grad in zip([name for name in inputs if name != "actions"], expected, strict=True):
        some = {**inputs, name: inputs[name].clone().requires_grad_()}
        torch.testing.assert_close(torch.autograd.grad(run(some).square().sum(), some[name])[0], grad)


def test_no_gradient_for_actions(device: str) -> None:
    inputs = changed(make_inputs(8, numbers=True), lambda x: x.to(device))
    inputs["actions"].requires_grad_()
    leaves(inputs)
    found = torch.autograd.grad(run(inputs).sum(), [inputs["first"], inputs["actions"]], allow_unused=True)
    assert found[0] is not None
    assert found[1] is None


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_nan_is_seen_in_its_row_alone(device: str, share: float) -> None:
    inputs = changed(repeated(make_inputs(9), 9, share), lambda x: x.to(device))
    inputs["first"][1, 2, 1] = torch.nan
    value = run(inputs)
    assert value[1, 2, 1].isnan()
    assert value.isnan().sum() == 1


def test_a_nan_of_an_action_is_seen_where_others_take_it(device: str) -> None:
    inputs = changed(make_inputs(19, (40,), K=4, n=2, A=6), lambda x: x.to(device))
    inputs["w_action"][1, 2] = torch.nan
    taken = (inputs["actions"][..., 1] == 2).any(0)
    assert 0 < taken.sum() < 40
    assert torch.equal(run(inputs)[:, 0].isnan(), taken)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_state_does_not_depend_on_its_neighbours(device: str, share: float) -> None:
    inputs = converted(repeated(make_inputs(10, (70,), K=9, H=33), 10, share), torch.float32, device)
    value = run(inputs)
    for part in (slice(0, 1), slice(17, 60), slice(69, 70)):
        some = {**inputs, "first": inputs["first"][part], "actions": inputs["actions"][:, part]}
        torch.testing.assert_close(run(some), value[part], rtol=0, atol=0)


@pytest.mark.parametrize(("numbers", "share"), [(False, 0.0), (False, 0.9), (True, 0.0)])
def test_repeats_bit_for_bit_with_any_number_of_threads(
    device: str, numbers: bool, share: float, emulated: bool
) -> None:
    """Of states whose rows fill blocks across them: 300, so that there is work for several threads."""
    states, width = (10, 16) if emulated else (300, 64)
    inputs = repeated(make_inputs(11, (states,), K=30, H=width, H2=width, numbers=numbers), 11, share)
    inputs = converted(inputs, torch.float32, device)
    wanted = leaves(inputs)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            value = run(inputs)
            found.append([value, *torch.autograd.grad(value.square().sum(), wanted)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
