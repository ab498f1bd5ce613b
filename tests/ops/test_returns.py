"""The returns ops against their reference, hand-computed numbers, each other."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error, untouched
from tests.ops.returns_cases import NAMES, Call, calls, make_call

# Right answers


@given(call=calls())
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(device: str, call: Call) -> None:
    call = call.on(device)
    expected = call.run(ops.reference)
    ours = call.run(ops)
    assert ours.shape == expected.shape
    assert ours.dtype == torch.float64
    assert relative_error(ours, expected) < 1e-10
    assert relative_error(call.to(torch.float32, device).run(ops), expected) < 1e-4 * (
        1 + expected.abs().max().item() if expected.numel() else 1
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    call = make_call(name, 3, 9, 70, (2,), horizon=None).to(dtype, device)
    ours = call.run(ops)
    assert ours.dtype == torch.float32
    assert relative_error(ours, call.to(torch.float64, device).run(ops.reference)) < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_devices_agree(device: str, name: str) -> None:
    for batch, steps, trailing in [(3, 60, ()), (40, 120, ()), (3, 200, (5,)), (1, 1024, ()), (20_000, 3, ())]:
        call = make_call(name, 5, batch, steps, trailing)
        assert relative_error(call.to(torch.float64, device).run(ops), call.run(ops.reference)) < 1e-10


def test_many_strided_rows(device: str) -> None:
    """Time-major storage with more rows than a GPU has warps."""
    call = make_call("lambda_returns", 7, 17_000, 9).to(torch.float64, device)
    call.tensors = {k: v.T.contiguous().T for k, v in call.tensors.items()}
    assert relative_error(call.run(ops), call.run(ops.reference)) < 1e-10


def test_hand_computed_episode(device: str) -> None:
    """gamma 0.5, lam 0.5; step 1 terminates; step 3 is the time limit."""
    reward = torch.tensor([[1.0, 2.0, 3.0, 4.0]], device=device)
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0]], device=device)
    terminated = torch.tensor([[0, 1, 0, 0]], device=device)
    # G3 = 4 + .5*50 = 29; G2 = 3 + .5*(.5*40 + .5*29) = 20.25; G1 = 2; G0 = 1 + .5*(.5*20 + .5*2) = 6.5
    expected = [[6.5, 2.0, 20.25, 29.0]]
    assert ops.lambda_returns(reward, terminated, value, gamma=0.5, lam=0.5).tolist() == expected


def test_truncation_bootstraps_and_stops_the_carry(device: str) -> None:
    reward = torch.tensor([[1.0, 2.0]], device=device)
    value = torch.tensor([[0.0, 8.0, 100.0]], device=device)
    no = torch.zeros(1, 2, device=device)
    truncated = torch.tensor([[True, False]], device=device)
    result = ops.lambda_returns(reward, no, value, gamma=0.5, lam=1.0, truncated=truncated)
    assert result.tolist() == [[1 + 0.5 * 8, 2 + 0.5 * 100]]


def test_one_by_one_definition_with_brute_force_sums() -> None:
    """The reference itself against the paper's double sum, term by term."""
    call = make_call("tree_backup_returns", 11, 4, 12, ends="all", horizon=5)
    reward, terminated, q, v, pi = call.tensors.values()
    truncated, valid = call.ends["truncated"], call.ends["valid"]
    gamma, lam = call.numbers["gamma"], call.numbers["lam"]
    for horizon in (1, 3, 5, 100):
        call.numbers["horizon"] = horizon
        ours = call.run(ops.reference)
        for b, t in itertools.product(range(4), range(12)):
            if not valid[b, t]:
                assert ours[b, t] == 0
                continue
            total, weight, step = q[b, t].item(), 1.0, t
            while True:
                bootstrap = 0 if terminated[b, step] else gamma * v[b, step + 1]
                total += weight * (reward[b, step] + bootstrap - q[b, step]).item()
                if (
                    terminated[b, step]
                    or truncated[b, step]
                    or step == 11
                    or not valid[b, step + 1]
                    or step - t + 1 == horizon
                ):
                    break
                weight *= gamma * lam * pi[b, step + 1].item()
                step += 1
            assert ours[b, t].item() == pytest.approx(total, abs=1e-12)


# Identities (the table in emix.ops.returns)


def test_special_cases_agree() -> None:
    call = make_call("lambda_returns", 13, 6, 40)
    reward, terminated, value = call.tensors.values()
    ends = call.ends
    one_step = ops.n_step_returns(reward, terminated, value, gamma=0.9, n=1, **ends)
    torch.testing.assert_close(ops.lambda_returns(reward, terminated, value, gamma=0.9, lam=0.0, **ends), one_step)
    monte_carlo = ops.lambda_returns(reward, terminated, value, gamma=0.9, lam=1.0, **ends)
    torch.testing.assert_close(ops.n_step_returns(reward, terminated, value, gamma=0.9, n=40, **ends), monte_carlo)
    returns = ops.lambda_returns(reward, terminated, value, gamma=0.9, lam=0.7, **ends)
    advantage = ops.gae(reward, terminated, value, gamma=0.9, lam=0.7, **ends)
    torch.testing.assert_close(torch.where(ends["valid"], advantage + value[:, :-1], 0), returns)
    deterministic = ops.tree_backup_returns(
        reward, terminated, value, value, torch.ones_like(value), gamma=0.9, lam=0.7, **ends
    )
    torch.testing.assert_close(deterministic, returns)
    q, v = value, value.roll(1, 0)
    q_lambda = ops.q_lambda_returns(reward, terminated, q, v, gamma=0.9, lam=0.7, **ends)
    for ratio in (1.0, 3.0):  # on-policy Retrace, and ratios that are clipped to that
        retrace = ops.retrace_returns(reward, terminated, q, v, torch.full_like(q, ratio), gamma=0.9, lam=0.7, **ends)
        torch.testing.assert_close(retrace, q_lambda)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_what_stands_in_it_change_nothing(device: str, name: str) -> None:
    call = make_call(name, 17, 5, 30, horizon=4).to(torch.float64, device)
    before = call.run(ops)
    valid = call.ends["valid"]
    following = torch.cat(
        [torch.ones_like(valid[:, :1]), valid], dim=1
    )  # the entry after the last valid step is bootstrapped from
    poisoned = {
        k: v.masked_fill(~(valid if v.shape[1] == 30 else following), torch.nan) if v.is_floating_point() else v
        for k, v in call.tensors.items()
    }
    after = Call(name, poisoned, call.ends, call.numbers).run(ops)
    assert torch.equal(before, after)
    longer = {k: torch.cat([v, v[:, :7]], dim=1) for k, v in call.tensors.items()}
    ends = {k: torch.cat([v, torch.zeros_like(v[:, :7])], dim=1) for k, v in call.ends.items()}
    padded = Call(name, longer, ends, call.numbers).run(ops)
    torch.testing.assert_close(padded[:, :30], before)
    assert not padded[:, 30:].any()


def test_terminated_step_ignores_what_follows_even_nan(device: str) -> None:
    reward = torch.ones(1, 4, device=device)
    value = torch.tensor([[1.0, 1.0, torch.nan, torch.nan, torch.nan]], device=device)
    result = ops.lambda_returns(reward, torch.tensor([[0, 1, 0, 0]], device=device), value, gamma=0.9, lam=0.8)
    assert result[0, :2].isfinite().all()
    assert result[0, 2:].isnan().all()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
def test_masks_of_any_dtype(device: str, dtype: torch.dtype) -> None:
    call = make_call("lambda_returns", 19, 4, 50).to(torch.float32, device)
    expected = call.run(ops)
    call.tensors["terminated"] = call.tensors["terminated"].to(dtype)
    call.ends = {k: v.to(dtype) for k, v in call.ends.items()}
    if dtype.is_floating_point:
        call.tensors["terminated"] = torch.where(call.tensors["terminated"] == 0, -0.0, 1.0).to(dtype)
    assert torch.equal(call.run(ops), expected)


def test_mixed_floating_dtypes(device: str) -> None:
    """Rewards in float32 beside values in bfloat16, as under autocast."""
    call = make_call("lambda_returns", 23, 4, 50).to(torch.float32, device)
    call.tensors["value"] = call.tensors["value"].bfloat16()
    assert relative_error(call.run(ops), call.to(torch.float64, device).run(ops.reference)) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_repeats_bit_for_bit(device: str, name: str) -> None:
    call = make_call(name, 29, 64, 120, (3,)).to(torch.float32, device)
    assert torch.equal(call.run(ops), call.run(ops))


def test_sixty_four_bit_offsets(device: str) -> None:
    """Strides past 2^31 elements, on memory that is never touched outside the rows."""
    rows, stride = 3, 2**31
    storage = untouched(2 * stride + 16, torch.uint8, device)
    terminated = storage.as_strided((rows, 4), (stride, 1))
    terminated.copy_(torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    reward, value = torch.randn(rows, 4, device=device), torch.randn(rows, 5, device=device)
    expected = ops.lambda_returns(reward, terminated.clone(), value, gamma=0.9, lam=0.8)
    assert torch.equal(ops.lambda_returns(reward, terminated, value, gamma=0.9, lam=0.8), expected)


# Gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("horizon", [None, 3])
def test_gradients(device: str, name: str, horizon: int | None) -> None:
    call = make_call(name, 31, 3, 7, (2,), broadcast=True, horizon=horizon).to(torch.float64, device)
    inputs = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in call.tensors.items()}

    def run(*tensors: Tensor) -> Tensor:
        return Call(name, dict(zip(inputs, tensors, strict=True)), call.ends, call.numbers).run(
            ops, differentiable=True
        )

    assert torch.autograd.gradcheck(run, tuple(inputs.values()))


@given(call=calls(), seed=st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_gradients_equal_the_references(device: str, call: Call, seed: int) -> None:
    call = call.on(device)
    floating = [v.requires_grad_() for v in call.tensors.values() if v.is_floating_point()]
    expected = call.run(ops.reference)
    upstream = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(seed))
    upstream = upstream.to(device)
    theirs = torch.autograd.grad(expected, floating, upstream, allow_unused=True)
    ours = torch.autograd.grad(call.run(ops, differentiable=True), floating, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, torch.zeros_like(a) if b is None else b) < 1e-9


def test_no_gradient_unless_asked(device: str) -> None:
    value = torch.randn(2, 5, device=device, requires_grad=True)
    reward = torch.randn(2, 4, device=device)
    assert not ops.lambda_returns(reward, reward > 9, value, gamma=0.9, lam=0.8).requires_grad
    result = ops.lambda_returns(reward, reward > 9, value, gamma=0.9, lam=0.8, differentiable=True)
    assert result.requires_grad
    with torch.no_grad():
        assert not ops.lambda_returns(reward, reward > 9, value, gamma=0.9, lam=0.8, differentiable=True).requires_grad
