"""The Bhattacharyya distance against its reference, closed forms, finite differences, and every wrong call."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error, untouched
from tests.ops.ensemble_cases import Case, cases, make_case


def distance(case: Case, module: object = ops, detach_mean: bool = True) -> Tensor:
    return module.bhattacharyya(case.q, case.avail, detach_mean)


# Right answers


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_equals_the_reference(device: str, case: Case) -> None:
    case = case.on(device)
    expected = distance(case, ops.reference)
    ours = distance(case)
    assert ours.dtype == torch.float64
    assert relative_error(ours, expected) < 1e-11
    assert (ours >= 0).all()
    narrow = distance(case.to(torch.float32, device))
    assert narrow.dtype == torch.float32
    assert relative_error(narrow, expected) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, dtype: torch.dtype) -> None:
    case = make_case(3, 10, (40,), 18).to(dtype, device)
    ours = distance(case)
    assert ours.dtype == torch.float32
    assert relative_error(ours, distance(case.to(torch.float64, device), ops.reference)) < 1e-5


def test_devices_agree(device: str) -> None:
    for members, rows, actions in [(10, (32, 7), 18), (5, (3,), 9), (64, (2,), 128), (17, (1000,), 5), (3, (9,), 50)]:
        case = make_case(5, members, rows, actions)
        assert relative_error(distance(case.to(torch.float64, device)), distance(case, ops.reference)) < 1e-11


def test_the_definition_itself() -> None:
    """The reference's log-sums against the sum of square roots of the paper."""
    case = make_case(7, 6, (20,), 5, masked=False)
    mean = torch.softmax(case.q.mean(0), -1)
    expected = -(torch.softmax(case.q, -1) * mean).sqrt().sum(-1).log().sum(0)
    torch.testing.assert_close(distance(case, ops.reference), expected)


# Identities


def test_members_that_agree_up_to_a_constant_have_no_distance(device: str) -> None:
    q = torch.randn(1, 30, 7, dtype=torch.float64, device=device) + torch.randn(
        8, 30, 1, dtype=torch.float64, device=device
    )
    assert ops.bhattacharyya(q).abs().max() < 1e-14
    case = make_case(11, 8, (30,), 7).to(torch.float64, device)
    shifted = Case(case.logits, case.q + torch.randn(8, 30, 1, dtype=torch.float64, device=device), case.avail)
    torch.testing.assert_close(distance(shifted), distance(case))


def test_small_gaps_keep_their_digits(device: str) -> None:
    """An eighth of the gaps' variance under the softmax; in float32 the log-sums would be negative here."""
    case = make_case(13, 10, (64,), 18, masked=False)
    base = case.logits
    for gap, tolerance in [(1e-1, 1e-5), (1e-2, 1e-4), (1e-3, 1e-3)]:
        q = base + gap * torch.randn(10, 64, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        q = q.float()
        expected = ops.bhattacharyya(q.double())
        ours = ops.bhattacharyya(q.to(device)).cpu()
        assert ((ours - expected).abs() / expected).max() < tolerance
        mean = q.double().mean(0)
        p = torch.softmax(mean, -1)
        d = q.double() - mean
        variance = (p * d.square()).sum(-1) - (p * d).sum(-1).square()
        assert (expected / (variance.sum(0) / 8) - 1).abs().max() < 10 * gap


def test_far_apart_members_do_not_underflow(device: str) -> None:
    for scale in (100.0, 1e3, 1e5):
        case = make_case(17, 5, (40,), 9, scale=scale)
        expected = distance(case, ops.reference)
        ours = distance(case.to(torch.float32, device))
        assert ours.isfinite().all()
        assert relative_error(ours, expected) < 1e-5
        q = case.q.float().to(device).requires_grad_()
        avail = case.avail.to(device)
        wide = case.q.requires_grad_()
        theirs = torch.autograd.grad(ops.bhattacharyya(wide, case.avail).sum(), wide)[0]
        ours = torch.autograd.grad(ops.bhattacharyya(q, avail).sum(), q)[0]
        assert relative_error(ours, theirs) < 1e-3


def test_rows_without_actions_have_no_distance_and_no_gradient(device: str) -> None:
    q = torch.randn(4, 3, 5, device=device).requires_grad_()
    avail = torch.ones(3, 5, dtype=torch.bool, device=device)
    avail[1] = False
    result = ops.bhattacharyya(q, avail, False)
    assert result[1] == 0
    assert (result[[0, 2]] > 0).all()
    grad = torch.autograd.grad(result.sum(), q)[0]
    assert grad.isfinite().all()
    assert not grad[:, 1].any()


def test_what_must_not_count_does_not_even_nan(device: str) -> None:
    case = make_case(19, 6, (50,), 8).to(torch.float64, device)
    poison = case.q.masked_fill(~case.avail, torch.nan)
    assert torch.equal(ops.bhattacharyya(poison, case.avail), distance(case))
    valid = torch.rand(50, device=device) < 0.5
    poison = poison.masked_fill(~valid[:, None], torch.nan).requires_grad_()
    q = case.q.requires_grad_()
    for detach_mean in (True, False):
        weight = valid.double()
        ours = torch.autograd.grad(ops.bhattacharyya(poison, case.avail, detach_mean), poison, weight)[0]
        theirs = torch.autograd.grad(ops.bhattacharyya(q, case.avail, detach_mean), q, weight)[0]
        assert torch.equal(ours, theirs)
        assert not ours[:, ~case.avail].any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64])
def test_masks_of_any_dtype(device: str, dtype: torch.dtype) -> None:
    case = make_case(29, 10, (40,), 7).to(torch.float32, device)
    assert torch.equal(ops.bhattacharyya(case.q, case.avail.to(dtype)), distance(case))


def test_repeats_bit_for_bit(device: str) -> None:
    case = make_case(37, 10, (500,), 18).to(torch.float32, device)
    q = case.q.requires_grad_()
    first, second = (torch.autograd.grad(ops.bhattacharyya(q, case.avail, False).sum(), q)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(distance(case), distance(case))


def test_any_layout_gives_the_same(device: str) -> None:
    case = make_case(41, 10, (6, 5), 9).to(torch.float32, device)
    longer = torch.cat([case.q[:, :, :1], case.q], dim=2)
    expected = distance(case)
    for q in [
        case.q.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        case.q.transpose(1, 3).contiguous().transpose(1, 3),
        longer[:, :, 1:],
    ]:
        assert torch.equal(ops.bhattacharyya(q, case.avail), expected)


def test_sixty_four_bit_offsets(device: str) -> None:
    storage = untouched(2 * 2**31 + 64, torch.float16, device)
    q = storage.as_strided((3, 5, 4), (2**31, 4, 1))
    q.copy_(torch.randn(3, 5, 4))
    assert torch.equal(ops.bhattacharyya(q), ops.bhattacharyya(q.clone()))


# Gradients


@pytest.mark.parametrize("masked", [True, False])
def test_gradients(device: str, masked: bool) -> None:
    """Through the mean, too; with the mean detached the gradient is the one of the reference."""
    for members, actions in [(2, 3), (5, 9), (11, 4)]:
        case = make_case(43, members, (4,), actions, masked=masked).to(torch.float64, device)
        q = case.q.requires_grad_()
        assert torch.autograd.gradcheck(partial(ops.bhattacharyya, avail=case.avail, detach_mean=False), (q,))


@given(case=cases(), seed=st.integers(0, 2**31), detach_mean=st.booleans())
@settings(max_examples=100, deadline=None)
def test_gradients_equal_the_references(device: str, case: Case, seed: int, detach_mean: bool) -> None:
    case = case.on(device)
    q = case.q.requires_grad_()
    expected = distance(case, ops.reference, detach_mean)
    g = torch.Generator().manual_seed(seed)
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=g).to(device)
    theirs = torch.autograd.grad(expected, q, upstream)[0].nan_to_num()  # autograd's NaN in rows without actions
    ours = torch.autograd.grad(distance(case, ops, detach_mean), q, upstream)[0]
    assert relative_error(ours, theirs) < 1e-10


def test_gradient_of_narrow_members(device: str) -> None:
    q = make_case(47, 10, (30,), 5).q.to(device).bfloat16().requires_grad_()
    wide = q.detach().double().requires_grad_()
    ours = torch.autograd.grad(ops.bhattacharyya(q).sum(), q)[0]
    theirs = torch.autograd.grad(ops.bhattacharyya(wide).sum(), wide)[0]
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), theirs, rtol=0.01, atol=1e-4)


def test_the_means_own_gradient_is_of_second_order() -> None:
    base = torch.randn(1, 40, 6, dtype=torch.float64)
    for gap in (1e-2, 1e-3):
        q = (base + gap * torch.randn(10, 40, 6, dtype=torch.float64)).requires_grad_()
        full, detached = (torch.autograd.grad(ops.bhattacharyya(q, None, d).sum(), q)[0] for d in (False, True))
        assert (full - detached).abs().max() < 10 * gap**2
        assert detached.abs().max() > gap / 100


# torch's own machinery


def test_opcheck(device: str) -> None:
    case = make_case(61, 5, (3, 2), 4).to(torch.float32, device)
    torch.library.opcheck(torch.ops.emix.bhattacharyya.default, (case.q, case.avail))
    grad = torch.randn(3, 2, device=device)
    torch.library.opcheck(torch.ops.emix.bhattacharyya_backward.default, (grad, case.q, case.avail, False))


def test_compiles_without_a_graph_break(device: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    case = make_case(67, 10, (5,), 6).to(torch.float32, device)
    q = case.q.requires_grad_()

    def loss() -> Tensor:
        return ops.bhattacharyya(q, case.avail, False).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(), q)[0], torch.autograd.grad(loss(), q)[0])
    with torch.no_grad():
        assert torch.equal(compiled(), loss())


# Wrong calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3)}, r"q must have shape \[N, ..., A\].*got \[3\]"),
        ({"q": torch.zeros(0, 4, 3)}, r"1 to 64 members N and 1 to 128 actions A, got \[0, 4, 3\]"),
        ({"q": torch.zeros(65, 4, 3)}, r"1 to 64 members N and 1 to 128 actions A, got \[65, 4, 3\]"),
        ({"q": torch.zeros(2, 4, 129)}, r"1 to 128 actions A, got \[2, 4, 129\]"),
        ({"q": torch.zeros(5, 4, 3, dtype=torch.long)}, r"q must be a float16.*got an integer or bool one"),
        ({"q": torch.zeros(5, 4, 3, dtype=torch.complex64)}, r"q must be real, got a complex tensor"),
        ({"q": None}, r"must be a tensor, got None"),
        ({"q": [0.0]}, r"q must be a tensor, got a list"),
        ({"q": torch.zeros(5, 4, 3).to_sparse()}, r"must be a dense tensor, got .* torch.sparse_coo"),
        ({"avail": torch.zeros(1, 3)}, r"avail must have shape \[4, 3\] like a member of q, got \[1, 3\]"),
        ({"avail": torch.zeros(5, 4, 3)}, r"avail must have shape \[4, 3\] like a member of q, got \[5, 4, 3\]"),
        ({"avail": torch.zeros(4, 3, dtype=torch.complex64)}, r"avail must be real, got a complex tensor"),
    ],
)
def test_wrong_calls_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.bhattacharyya(**{"q": torch.zeros(5, 4, 3), **change})


SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(shapes=st.tuples(SHAPES, SHAPES), dtypes=st.tuples(DTYPES, DTYPES), fit=st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_shapes_and_dtypes_are_right_or_refused(device: str, shapes: tuple, dtypes: tuple, fit: bool) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    if fit:
        shapes = (shapes[0], shapes[0][1:])
    q, avail = (torch.rand(shape).to(device, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    try:
        ours = ops.bhattacharyya(q, avail)
    except ValueError:
        return
    assert q.shape[1:] == avail.shape
    assert relative_error(ours, ops.reference.bhattacharyya(q.double(), avail)) < 1e-4
