"""masked_policy and policy_terms against their references, by hand, degenerate rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.policy_cases import FLOORS, Rows, all_terms, make_rows, rows

# Right answers


@given(case=rows())
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(device: str, case: Rows) -> None:
    case = case.on(device)
    for ours, narrow, expected in zip(
        all_terms(ops, case),
        all_terms(ops, case.to(torch.float32, device)),
        all_terms(ops.reference, case),
        strict=True,
    ):
        assert ours.dtype == torch.float64
        assert narrow.dtype == torch.float32
        assert relative_error(ours, expected) < 1e-12
        assert relative_error(narrow, expected) < 1e-5 * (1 + case.logits.abs().max().item() if ours.numel() else 1)


@given(case=rows(), seed=st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_gradients_equal_the_references(device: str, case: Rows, seed: int) -> None:
    case = case.on(device)
    inputs = (case.logits.requires_grad_(), case.value.requires_grad_())
    expected = all_terms(ops.reference, case)
    g = torch.Generator().manual_seed(seed)
    upstream = [torch.randn(each.shape, dtype=each.dtype, generator=g).to(device) for each in expected]
    theirs = torch.autograd.grad(expected, inputs, upstream)
    for a, b in zip(torch.autograd.grad(all_terms(ops, case), inputs, upstream), theirs, strict=True):
        assert relative_error(a, b) < 1e-10


@pytest.mark.parametrize("floor", FLOORS)
def test_gradcheck(device: str, floor: float) -> None:
    case = make_rows(1, (7, 5), floor=floor).to(torch.float64, device)
    inputs = (case.logits.requires_grad_(), case.value.requires_grad_())

    def run(logits: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        return all_terms(ops, Rows(logits, case.avail, case.action, value, floor))

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, dtype: torch.dtype, floor: float) -> None:
    case = make_rows(2, (40, 18), floor=floor).to(dtype, device)
    wide = case.to(torch.float64, device)
    for ours, expected in zip(all_terms(ops, case), all_terms(ops.reference, wide), strict=True):
        assert ours.dtype == torch.float32
        assert relative_error(ours, expected) < 1e-5
    inputs = (case.logits.requires_grad_(), case.value.requires_grad_())
    wide_inputs = (wide.logits.requires_grad_(), wide.value.requires_grad_())
    ours = torch.autograd.grad([each.sum() for each in all_terms(ops, case)], inputs)
    theirs = torch.autograd.grad([each.sum() for each in all_terms(ops.reference, wide)], wide_inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("floor", FLOORS)
def test_devices_agree(device: str, floor: float) -> None:
    for shape in [(3, 9), (1000, 18), (2000, 36), (17, 128), (20_000, 2)]:
        case = make_rows(3, shape, floor=floor)
        for ours, expected in zip(
            all_terms(ops, case.to(torch.float64, device)), all_terms(ops.reference, case), strict=True
        ):
            assert relative_error(ours, expected) < 1e-12


def test_hand_computed_row(device: str) -> None:
    """Softmax (1/2, 1/4, 1/4), floor 0.4, the last unavailable: 0.6 p + 0.4/3 = (13/30, 17/60), pi = (26, 17)/43."""
    logits = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64, device=device).log()
    avail = torch.tensor([True, True, False], device=device)
    value = torch.tensor([1.0, 3.0, 100.0], dtype=torch.float64, device=device)
    pi = [26 / 43, 17 / 43, 0.0]
    assert ops.masked_policy(logits, avail, 0.4).tolist() == pytest.approx(pi, abs=1e-15)
    terms = ops.policy_terms(logits, torch.tensor(1, device=device), avail, value, 0.4)
    assert terms.log_prob.item() == pytest.approx(math.log(pi[1]))
    assert terms.entropy.item() == pytest.approx(-pi[0] * math.log(pi[0]) - pi[1] * math.log(pi[1]))
    assert terms.expected_value.item() == pytest.approx(pi[0] * 1 + pi[1] * 3)


def test_the_gradient_of_section_0(device: str) -> None:
    """dL/dz_a = p_a (dL/dp_a - sum p dL/dp) with dL/dp_a = (1 - floor) avail_a (g_a - sum g pi) / Z, as written."""
    case = make_rows(4, (50, 6), floor=0.3).to(torch.float64, device)
    avail = case.avail[case.avail.any(-1)].double()
    logits = case.logits[case.avail.any(-1)].requires_grad_()
    g = torch.randn_like(logits)
    p = torch.softmax(logits.detach(), -1)
    floored = avail * (0.7 * p + 0.3 / 6)
    z = floored.sum(-1, keepdim=True)
    pi = floored / z
    p_grad = 0.7 * avail * (g - (g * pi).sum(-1, keepdim=True)) / z
    expected = p * (p_grad - (p * p_grad).sum(-1, keepdim=True))
    (ours,) = torch.autograd.grad(ops.masked_policy(logits, avail, 0.3), logits, g)
    torch.testing.assert_close(ours, expected)


# Identities


def test_without_a_floor_the_two_forms_agree(device: str) -> None:
    """Masking before the softmax (EPyMARL's PPO), and masking and renormalising after it (DOP, epsilon at 0)."""
    case = make_rows(5, (200, 9)).to(torch.float64, device)
    some = case.avail.any(-1)
    before = torch.softmax(case.logits.masked_fill(~case.avail, -1e10), -1)
    after = torch.softmax(case.logits, -1) * case.avail
    after = after / after.sum(-1, keepdim=True)
    ours = ops.masked_policy(case.logits, case.avail)
    torch.testing.assert_close(ours[some], before[some])
    torch.testing.assert_close(ours[some], after[some])
    almost = ops.masked_policy(case.logits, case.avail, 1e-9)
    torch.testing.assert_close(ours, almost, atol=1e-6, rtol=0)


@pytest.mark.parametrize("floor", FLOORS)
def test_probabilities(device: str, floor: float) -> None:
    case = make_rows(6, (300, 18), floor=floor, scale=30).to(torch.float32, device)
    pi = ops.masked_policy(case.logits, case.avail, floor)
    assert not pi[~case.avail].any()
    torch.testing.assert_close(pi.sum(-1), case.avail.any(-1).float())
    if floor > 0:  # each available action has at least its share of the floor
        assert (pi[case.avail] >= floor / 18 * (1 - 1e-5)).all()
    terms = ops.policy_terms(case.logits, case.action, case.avail, case.value, floor)
    assert (terms.log_prob <= 0).all()
    assert (terms.entropy >= 0).all()
    assert (terms.entropy <= math.log(18) + 1e-5).all()
    taken = pi.gather(-1, case.action[:, None])[:, 0]
    torch.testing.assert_close(terms.log_prob.exp()[taken > 1e-30], taken[taken > 1e-30], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(terms.expected_value, (pi * case.value).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("floor", FLOORS)
def test_permutations_and_shifts(device: str, floor: float) -> None:
    case = make_rows(7, (40, 5), floor=floor).to(torch.float64, device)
    ours = ops.masked_policy(case.logits, case.avail, floor)
    torch.testing.assert_close(ops.masked_policy(case.logits + 7, case.avail, floor), ours)
    torch.testing.assert_close(ops.masked_policy(case.logits.flip(-1), case.avail.flip(-1), floor).flip(-1), ours)
    assert torch.equal(ops.masked_policy(case.logits.flip(0), case.avail.flip(0), floor).flip(0), ours)


# Degenerate rows, extreme numbers


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf])
def test_a_row_without_an_action_is_zero(device: str, floor: float, poison: float) -> None:
    """Padding: nothing there, NaN included, has an effect or a gradient."""
    case = make_rows(8, (6, 5), floor=floor, masked=False).to(torch.float32, device)
    avail = torch.ones(6, 5, dtype=torch.bool, device=device)
    avail[2] = avail[4] = False
    for tensor in (case.logits, case.value):
        tensor[2] = tensor[4] = poison
    if floor > 0 and poison != 0:
        pytest.skip("with a floor unavailable logits count, and must be finite")
    case = Rows(case.logits.requires_grad_(), avail, case.action, case.value.requires_grad_(), floor)
    results = all_terms(ops, case)
    for each in results:
        assert not each[[2, 4]].any()
        assert each[[0, 1, 3, 5]].isfinite().all()
    for grad in torch.autograd.grad([each.sum() for each in results], (case.logits, case.value)):
        assert not grad[[2, 4]].any()
        assert grad.isfinite().all()


@pytest.mark.parametrize("floor", FLOORS)
def test_one_available_action_is_certain(device: str, floor: float) -> None:
    logits = (torch.randn(40, 7, device=device) * 30).requires_grad_()
    action = torch.arange(40, device=device) % 7
    avail = torch.nn.functional.one_hot(action, 7)
    log_prob, entropy, _ = ops.policy_terms(logits, action, avail, None, floor)
    assert not log_prob.any()
    assert not entropy.any()
    (grad,) = torch.autograd.grad(log_prob.sum() + entropy.sum(), logits)
    assert grad.abs().max() < 1e-6


def test_mass_on_unavailable_actions(device: str) -> None:
    """Without a floor nothing is lost where they hold all of it; with one, the available ones share the floor."""
    logits = torch.tensor([1e4, 1.0, 2.0], device=device, requires_grad=True)
    avail = torch.tensor([0, 1, 1], device=device)
    expected = torch.softmax(torch.tensor([1.0, 2.0], device=device), -1)
    pi = ops.masked_policy(logits, avail)
    torch.testing.assert_close(pi[1:], expected)
    (grad,) = torch.autograd.grad(pi[1], logits)
    torch.testing.assert_close(grad, torch.stack([grad[0] * 0, expected.prod(), -expected.prod()]))
    assert ops.masked_policy(logits, avail, 0.1).tolist() == pytest.approx([0, 0.5, 0.5])


def test_extreme_logits(device: str) -> None:
    inf = math.inf
    logits = torch.tensor([[1e30, 0.0], [-1e30, 0.0], [-inf, 0.0], [-inf, -inf], [200.0, 0.0]], device=device)
    logits.requires_grad_()
    action = torch.tensor([1, 0, 0, 0, 1], device=device)
    terms = ops.policy_terms(logits, action)
    certain = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert ops.masked_policy(logits).tolist() == certain
    assert terms.log_prob.tolist() == pytest.approx([-1e30, -1e30, math.log(1e-10), 0.0, -200.0])
    assert not terms.entropy.any()
    assert terms.expected_value is None
    (grad,) = torch.autograd.grad(terms.log_prob.sum() + terms.entropy.sum(), logits)
    assert grad.tolist() == [[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0], [0.0, 0.0], [-1.0, 1.0]]


def test_nan_is_seen(device: str) -> None:
    logits = torch.tensor([[math.nan, 0.0], [0.0, 0.0], [0.0, math.nan]], device=device)
    avail = torch.tensor([[1, 1], [1, 1], [1, 0]], device=device)
    for result in (
        ops.masked_policy(logits, avail),
        ops.policy_terms(logits, torch.zeros(3, dtype=torch.long, device=device), avail).entropy,
    ):
        assert result.reshape(3, -1).isnan().any(-1).tolist() == [True, False, False]


def test_values_of_impossible_actions_do_not_count(device: str) -> None:
    value = torch.tensor([[2.0, math.nan, -math.inf]], device=device)
    avail = torch.tensor([[True, False, True]], device=device)
    logits = torch.tensor([[0.0, 0.0, -math.inf]], device=device, requires_grad=True)
    terms = ops.policy_terms(logits, torch.zeros(1, dtype=torch.long, device=device), avail, value)
    assert terms.expected_value.tolist() == [2.0]
    (grad,) = torch.autograd.grad(terms.expected_value.sum(), logits)
    assert not grad.any()


@pytest.mark.parametrize("floor", FLOORS)
def test_an_unavailable_action_taken(device: str, floor: float) -> None:
    """log 1e-10 and no gradient: a masked loss stays finite."""
    logits = torch.zeros(2, 4, device=device, requires_grad=True)
    avail = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]], device=device)
    log_prob = ops.policy_terms(logits, torch.tensor([3, 0], device=device), avail, floor=floor).log_prob
    assert log_prob.tolist() == pytest.approx([math.log(1e-10), math.log(1 / 3)])
    (grad,) = torch.autograd.grad(log_prob[0], logits)
    assert not grad.any()


@pytest.mark.parametrize("action", [-1, 4, 2**40])
def test_an_action_out_of_range_is_nan(device: str, action: int) -> None:
    logits = torch.zeros(2, 4, device=device)
    avail = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]], device=device)
    terms = ops.policy_terms(logits, torch.full((2,), action, device=device), avail)
    assert terms.log_prob.isnan().tolist() == [True, False]  # but padding is 0
    assert terms.entropy.tolist() == pytest.approx([math.log(4), 0.0])


def test_entropy_near_certainty() -> None:
    """No cancellation: the reference's digits in float64, from float32 logits."""
    logits = torch.tensor([[0.0, -5.0], [0.0, -15.0], [0.0, -40.0], [0.0, -80.0]])
    ours = ops.policy_terms(logits, torch.zeros(4, dtype=torch.long)).entropy
    expected = ops.reference.policy_terms(logits.double(), torch.zeros(4, dtype=torch.long))[1]
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-7)
