"""The ensemble's ops against their references, closed forms, each other, finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emix import ops
from tests.ops.cases import relative_error, untouched
from tests.ops.ensemble_cases import OPS, Case, cases, make_case, run, seeded

# Right answers


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_moments_equal_the_reference(device: str, case: Case) -> None:
    case = case.on(device)
    expected = ops.reference.ensemble_moments(case.q)
    for ours, theirs in zip(ops.ensemble_moments(case.q), expected, strict=True):
        assert ours.dtype == torch.float64
        assert relative_error(ours, theirs) < 1e-11
    for ours, theirs in zip(ops.ensemble_moments(case.q.float()), expected, strict=True):
        assert ours.dtype == torch.float32
        assert relative_error(ours, theirs) < 1e-3
    assert relative_error(ops.uncertainty_weight(case.q, 0.3), ops.reference.uncertainty_weight(case.q, 0.3)) < 1e-11


@given(case=cases(), bonus=st.sampled_from([0.0, 0.001, 1.0]))
@settings(max_examples=150, deadline=None)
def test_explored_logits_equal_the_reference(device: str, case: Case, bonus: float) -> None:
    case = case.on(device)
    expected = ops.reference.explore_logits(case.logits, case.q, case.avail, bonus)
    ours = ops.explore_logits(case.logits, case.q, case.avail, bonus)
    assert torch.equal(ours.isinf(), expected.isinf())
    assert relative_error(ours.nan_to_num(neginf=0), expected.nan_to_num(neginf=0)) < 1e-11


@given(case=cases(), seed=st.integers(0, 2**31), floor=st.sampled_from([0.0, 0.05, 1.0]))
@settings(max_examples=150, deadline=None)
def test_explored_actions_equal_the_reference(device: str, case: Case, seed: int, floor: float) -> None:
    case = case.on(device)
    generator, drawn = seeded(seed, case.logits)
    action, probability, gate = ops.reference.explore_actions(
        case.logits, case.q, case.avail, drawn, bonus=0.5, floor=floor
    )
    ours = ops.explore_actions(case.logits, case.q, case.avail, bonus=0.5, floor=floor, generator=generator)
    assert (ours.action.dtype, ours.probability.dtype, ours.open.dtype) == (torch.int64, torch.float32, torch.bool)
    assert torch.equal(ours.open, gate)
    same = ours.action == action  # float32 may fall on the other side of a threshold
    assert same.float().mean() > 0.95 or (~same).sum() <= 1
    assert relative_error(ours.probability[same], probability[same]) < 1e-5


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    case = make_case(3, 10, (40,), 18).to(dtype, device)
    wide = Case(case.logits.double(), case.q.double(), case.avail)
    for ours, theirs in zip(run(name, case), run(name, wide), strict=True):
        if ours.is_floating_point():
            assert ours.dtype == torch.float32
            assert relative_error(ours.nan_to_num(neginf=0), theirs.nan_to_num(neginf=0)) < 2e-6
        else:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", OPS)
def test_devices_agree(device: str, name: str) -> None:
    for members, rows, actions in [(10, (32, 7), 18), (5, (3,), 9), (64, (2,), 128), (17, (1000,), 5)]:
        case = make_case(5, members, rows, actions).to(torch.float64)
        elsewhere = case.to(torch.float64, device)
        if name == "explore_actions":  # the seed is drawn on the device: give both the same one
            seed = torch.tensor([1234])
            arguments = (0.5, 0.2)
            ours = torch.ops.emix.explore_actions(
                elsewhere.logits, elsewhere.q, elsewhere.avail, seed.to(device), *arguments
            )
            theirs = torch.ops.emix.explore_actions(case.logits, case.q, case.avail, seed, *arguments)
            assert torch.equal(ours[0].cpu(), theirs[0])
        else:
            ours, theirs = run(name, elsewhere), run(name, case)
        for a, b in zip(ours, theirs, strict=True):
            assert relative_error(a.double().nan_to_num(neginf=0), b.double().nan_to_num(neginf=0)) < 1e-11


def test_hand_computed(device: str) -> None:
    q = torch.tensor([0.0, 0.0, 0.0, 4.0], device=device)[:, None]
    mean, variance, kurtosis = ops.ensemble_moments(q)
    assert (mean.item(), variance.item()) == (1.0, 3.0)
    assert kurtosis.item() == pytest.approx((3 * 1 + 81) / 4 / 9)
    outlier = torch.zeros(10, 2, device=device)
    outlier[0] = 1.0
    largest = (100 - 30 + 3) / 9  # the largest kurtosis of ten values
    assert ops.ensemble_moments(outlier).kurtosis.tolist() == pytest.approx([largest] * 2)
    logits = ops.explore_logits(torch.tensor([1.0, 2.0], device=device), outlier, bonus=0.5)
    assert logits.tolist() == pytest.approx([1 + 0.5 * largest, 2 + 0.5 * largest])
    weight = ops.uncertainty_weight(outlier, scale=0.01)
    assert weight.tolist() == pytest.approx([0.5 + 1 / (1 + torch.tensor(0.01 * largest).exp().item())] * 2)


# Identities


def test_kurtosis_keeps_its_bounds_and_is_affine_invariant(device: str) -> None:
    for members in (2, 3, 5, 10, 64):
        q = make_case(7, members, (200,), 3).q.to(device)
        kurtosis = ops.ensemble_moments(q).kurtosis
        bound = (members**2 - 3 * members + 3) / (members - 1)
        assert kurtosis.min() >= 1 - 1e-12
        assert kurtosis[q.var(0) > 1e-9].max() <= max(bound, 1) + 1e-9
        torch.testing.assert_close(ops.ensemble_moments(-40 * q + 1000).kurtosis, kurtosis)


def test_large_means_cost_no_digits() -> None:
    """float32 members near 1000 that differ in multiples of their last digits."""
    steps = torch.randint(-200, 200, (10, 1000), generator=torch.Generator().manual_seed(11))
    q = (1000 + steps * 2**-13).float()
    agree = ops.reference.ensemble_moments(q.double())[1] <= 1e-10 * 1000.0**2 * 1.01
    ours, expected = ops.ensemble_moments(q), ops.reference.ensemble_moments(q.double())
    assert ((ours.variance - expected[1]).abs() / expected[1]).max() < 1e-5
    assert relative_error(ours.kurtosis[~agree], expected[2][~agree]) < 1e-5


def test_members_that_agree(device: str) -> None:
    q = torch.full((10, 4), 12.0, device=device).requires_grad_()
    mean, variance, kurtosis = ops.ensemble_moments(q)
    assert (mean.tolist(), variance.tolist(), kurtosis.tolist()) == ([12.0] * 4, [0.0] * 4, [3.0] * 4)
    assert not torch.autograd.grad(kurtosis.sum(), q)[0].any()
    barely = 12 + 1e-5 * torch.randn(10, 4, device=device)
    assert (ops.ensemble_moments(barely).kurtosis == 3).all()
    logits = torch.randn(4, device=device)
    assert torch.equal(ops.explore_logits(logits, q), logits)
    assert not ops.explore_actions(logits, q).open.any()


@pytest.mark.parametrize("members", [1, 2, 3, 4])
def test_a_few_members_never_open_the_gate(members: int) -> None:
    case = make_case(13, members, (500,), 6)
    assert not ops.explore_actions(case.logits, case.q, case.avail).open.any()


def test_a_closed_gate_changes_nothing(device: str) -> None:
    case = make_case(17, 3, (300,), 9).to(torch.float32, device)
    for floor in (0.0, 0.1):
        generator = torch.Generator(device).manual_seed(1)
        ours = ops.explore_actions(case.logits, case.q, case.avail, floor=floor, generator=generator)
        generator.manual_seed(1)
        theirs = ops.sample_actions(case.logits, case.avail, floor=floor, generator=generator)
        assert torch.equal(ours.action, theirs)
        pi = ops.masked_policy(case.logits, case.avail, floor).gather(-1, theirs[:, None])[:, 0]
        some = case.avail.any(-1)
        torch.testing.assert_close(ours.probability[some], pi[some])
        assert (ours.probability[~some] == 1).all()
        assert not ours.action[~some].any()


def test_actions_follow_their_probabilities(device: str) -> None:
    """Chi-square of one state's draws against the policy of the explored logits; unavailable actions never come."""
    draws, actions = 20_000, 6
    case = make_case(19, 10, (), actions, masked=False)
    avail = torch.tensor([1, 1, 0, 1, 1, 1])
    case.q[0] += 20  # an outlier opens the gate
    pi = ops.masked_policy(ops.explore_logits(case.logits, case.q, avail, 1.0), avail)
    logits = case.logits.to(device).expand(draws, actions)
    q = case.q.to(device)[:, None].expand(-1, draws, -1)
    generator = torch.Generator(device).manual_seed(3)
    action, probability, gate = ops.explore_actions(
        logits, q, avail.to(device).expand(draws, -1), bonus=1.0, generator=generator
    )
    assert gate.all()
    counts = torch.bincount(action.cpu(), minlength=actions).double()
    assert counts[2] == 0
    some = avail.bool()
    assert ((counts - draws * pi).square()[some] / (draws * pi)[some]).sum() < 30
    torch.testing.assert_close(probability.cpu().double(), pi[action.cpu()], rtol=1e-5, atol=0)


def test_unavailable_actions_reach_nothing_even_nan(device: str) -> None:
    case = make_case(23, 10, (60,), 8).to(torch.float64, device)
    poisoned = Case(case.logits, case.q.masked_fill(~case.avail, torch.nan), case.avail)
    for name in ("explore_logits", "explore_actions"):
        for ours, theirs in zip(run(name, poisoned), run(name, case), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64])
def test_masks_of_any_dtype(device: str, dtype: torch.dtype) -> None:
    case = make_case(29, 10, (40,), 7).to(torch.float32, device)
    expected = ops.explore_logits(case.logits, case.q, case.avail)
    mask = case.avail.to(dtype)
    mask = torch.where(mask == 0, -0.0, 1.0).to(dtype) if dtype.is_floating_point else mask
    assert torch.equal(ops.explore_logits(case.logits, case.q, mask), expected)


def test_mixed_floating_dtypes(device: str) -> None:
    """Logits in bfloat16 beside members in float32, as under autocast."""
    case = make_case(31, 10, (40,), 7).to(torch.float32, device)
    narrow = case.logits.bfloat16()
    ours = ops.explore_logits(narrow, case.q, case.avail)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, ops.explore_logits(narrow.float(), case.q, case.avail))


@pytest.mark.parametrize("name", OPS)
def test_repeats_bit_for_bit(device: str, name: str) -> None:
    case = make_case(37, 10, (500,), 18).to(torch.float32, device)
    for first, second in zip(run(name, case), run(name, case), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", OPS)
def test_any_layout_gives_the_same(device: str, name: str) -> None:
    """Members innermost, rows and actions swapped, a slice of time, expanded logits: same bits."""
    case = make_case(41, 10, (6, 5), 9).to(torch.float32, device)
    longer = torch.cat([case.q[:, :, :1], case.q], dim=2)
    layouts = [
        case.q.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        case.q.transpose(1, 3).contiguous().transpose(1, 3),
        longer[:, :, 1:],
        case.q.flip(0).flip(0),
    ]
    expected = run(name, case)
    for q in layouts:
        for ours, theirs in zip(run(name, Case(case.logits, q, case.avail)), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", OPS)
def test_sixty_four_bit_offsets(device: str, name: str) -> None:
    """Members past 2^31 elements apart, on memory that is never touched elsewhere."""
    storage = untouched(2 * 2**31 + 16, torch.float16, device)
    q = storage.as_strided((3, 4), (2**31, 1))
    q.copy_(torch.randn(3, 4))
    logits = torch.randn(4, device=device)
    for ours, theirs in zip(run(name, Case(logits, q, None)), run(name, Case(logits, q.clone(), None)), strict=True):
        assert torch.equal(ours, theirs)


# Gradients


def test_gradients(device: str) -> None:
    for members in (2, 5, 7, 10, 20, 40):
        q = make_case(43, members, (2,), 3).q.to(device)
        q = torch.where(q.var(0) == 0, q + torch.randn_like(q), q).requires_grad_()
        assert torch.autograd.gradcheck(lambda q: tuple(ops.ensemble_moments(q)), (q,))


@given(case=cases(), seed=st.integers(0, 2**31), wanted=st.sets(st.sampled_from([0, 1, 2]), min_size=1))
@settings(max_examples=100, deadline=None)
def test_gradients_equal_the_references(device: str, case: Case, seed: int, wanted: set[int]) -> None:
    case = case.on(device)
    q = case.q.requires_grad_()
    expected = ops.reference.ensemble_moments(q)
    g = torch.Generator().manual_seed(seed)
    upstream = [torch.randn(expected[i].shape, dtype=torch.float64, generator=g).to(device) for i in wanted]
    theirs = torch.autograd.grad([expected[i] for i in wanted], q, upstream)[0]
    moments = ops.ensemble_moments(q)
    ours = torch.autograd.grad([moments[i] for i in wanted], q, upstream)[0]
    assert relative_error(ours, theirs) < 1e-9


def test_gradient_of_narrow_members(device: str) -> None:
    q = make_case(47, 10, (30,), 5).q.to(device).bfloat16().requires_grad_()
    wide = q.detach().double().requires_grad_()
    ours = torch.autograd.grad(sum(m.sum() for m in ops.ensemble_moments(q)), q)[0]
    theirs = torch.autograd.grad(sum(m.sum() for m in ops.ensemble_moments(wide)), wide)[0]
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), theirs, rtol=0.01, atol=0.01)


def test_kurtosis_gradient_is_orthogonal_to_affine_changes(device: str) -> None:
    q = make_case(53, 10, (50,), 4).q.to(device).requires_grad_()
    grad = torch.autograd.grad(ops.ensemble_moments(q).kurtosis.sum(), q)[0]
    torch.testing.assert_close(grad.sum(0), torch.zeros_like(grad[0]), atol=1e-9, rtol=0)
    torch.testing.assert_close((grad * q).sum(0), torch.zeros_like(grad[0]), atol=1e-9, rtol=0)


def test_acting_and_weights_carry_no_gradient(device: str) -> None:
    case = make_case(59, 10, (4,), 5).to(torch.float32, device)
    q, logits = case.q.requires_grad_(), case.logits.requires_grad_()
    assert not ops.uncertainty_weight(q).requires_grad
    assert not ops.explore_logits(logits, q).requires_grad
    assert not ops.explore_actions(logits, q).probability.requires_grad
    with torch.no_grad():
        assert not ops.ensemble_moments(q).mean.requires_grad
