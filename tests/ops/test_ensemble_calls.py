"""The ensemble's ops called from torch's machinery, with any stride and size, and wrongly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.ensemble_cases import OPS, make_case, run

# torch's own machinery


def test_opcheck(device: str) -> None:
    case = make_case(61, 5, (3, 2), 4).to(torch.float32, device)
    grad = torch.randn(3, 2, 4, device=device)
    seed = torch.tensor([3], device=device)
    check = torch.library.opcheck
    check(torch.ops.emix.ensemble_moments.default, (case.q,))
    check(torch.ops.emix.ensemble_moments_backward.default, (case.q, grad, None, grad))
    check(torch.ops.emix.uncertainty_weight.default, (case.q, 0.1))
    check(torch.ops.emix.explore_logits.default, (case.logits, case.q, case.avail, 0.1))
    check(torch.ops.emix.explore_actions.default, (case.logits, case.q, case.avail, seed, 0.1, 0.1))
    place = torch.tensor(0.1, device=device)
    check(torch.ops.emix.explore_actions.default, (case.logits, case.q, case.avail, seed, 0.1, 0.0, place))


@pytest.mark.parametrize("name", OPS[:3])
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    case = make_case(67, 10, (5,), 6).to(torch.float32, device)
    compiled = torch.compile(lambda: run(name, case), fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(), run(name, case), strict=True):
        assert torch.equal(ours, theirs)


def test_drawing_compiles_without_a_graph_break(device: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    case = make_case(67, 10, (50,), 6, masked=False).to(torch.float32, device)
    compiled = torch.compile(ops.explore_actions, fullgraph=True, backend="aot_eager")
    action, probability, gate = compiled(case.logits, case.q)
    assert torch.equal(gate, ops.explore_actions(case.logits, case.q).open)
    explored = torch.softmax(ops.explore_logits(case.logits, case.q), -1)
    torch.testing.assert_close(probability, explored.gather(-1, action[:, None])[:, 0])


def test_compiled_gradient(emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    q = make_case(71, 10, (5,), 6).q.requires_grad_()

    def loss() -> Tensor:
        mean, _, kurtosis = ops.ensemble_moments(q)
        return mean.square().sum() + kurtosis.sum()

    expected = torch.autograd.grad(loss(), q)[0]
    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(), q)[0]
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_a_floor_may_be_a_tensor(device: str, floor: float, dtype: torch.dtype) -> None:
    """It is read when the op runs, and draws as the number does that it holds."""
    case = make_case(79, 10, (500,), 18).to(torch.float32, device)
    place = torch.tensor(0.5, dtype=dtype, device=device)
    for number in (0.5, floor):
        place.fill_(number)
        ours, expected = (
            ops.explore_actions(
                case.logits, case.q, case.avail, floor=each, generator=torch.Generator(device).manual_seed(3)
            )
            for each in (place, place.item())
        )
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


# Wrong calls

GOOD = {"logits": torch.zeros(4, 3), "q": torch.zeros(5, 4, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(())}, r"logits must have shape \[..., A\] with 1 to 128 actions, got \[\]"),
        ({"logits": torch.zeros(4, 0)}, r"logits must have shape \[..., A\] with 1 to 128 actions, got \[4, 0\]"),
        ({"logits": torch.zeros(4, 129)}, r"1 to 128 actions, got \[4, 129\]"),
        ({"logits": torch.zeros(3, 4)}, r"q must have shape \[5, 3, 4\].*got \[5, 4, 3\]"),
        ({"q": torch.zeros(4, 3)}, r"q must have shape \[4, 4, 3\].*got \[4, 3\]"),
        ({"q": torch.zeros(5, 1, 3)}, r"q must have shape \[5, 4, 3\].*got \[5, 1, 3\]"),
        ({"q": torch.zeros(0, 4, 3)}, r"q must have 1 to 64 members on its first axis, got shape \[0, 4, 3\]"),
        ({"q": torch.zeros(65, 4, 3)}, r"q must have 1 to 64 members on its first axis, got shape \[65, 4, 3\]"),
        ({"q": torch.zeros(5, 4, 3, dtype=torch.long)}, r"q must be a float16.*got an integer or bool one"),
        ({"logits": torch.zeros(4, 3, dtype=torch.complex64)}, r"logits must be real, got a complex tensor"),
        ({"avail": torch.zeros(1, 3)}, r"avail must have shape \[4, 3\] like logits, got \[1, 3\]"),
        ({"avail": torch.zeros(4, 3, dtype=torch.complex64)}, r"avail must be real, got a complex tensor"),
        ({"bonus": "0.1"}, r"bonus must be a number( or a tensor)?, got '0.1'"),
        ({"q": None}, r"q must be a tensor, got None"),
        ({"logits": None}, r"logits must be a tensor, got None"),
        ({"q": [0.0]}, r"q must be a tensor, got a list"),
        ({"q": torch.zeros(5, 4, 3).to_sparse()}, r"must be a dense tensor, got .* torch.sparse_coo"),
    ],
)
@pytest.mark.parametrize("name", ["explore_logits", "explore_actions"])
def test_wrong_calls_say_what_is_wrong(name: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(**{**GOOD, **change})


@pytest.mark.parametrize("name", OPS[:2])
@pytest.mark.parametrize(
    ("q", "message"),
    [
        (torch.zeros(()), r"q must have shape \[N, ...\], got \[\]"),
        (torch.zeros(0, 3), r"q must have 1 to 64 members on its first axis, got shape \[0, 3\]"),
        (torch.zeros(3, dtype=torch.int32), r"q must be a float16"),
        (torch.zeros(3, dtype=torch.complex64), r"q must be real, got a complex tensor"),
        (None, r"must be a tensor, got None"),
        ([1.0], r"q must be a tensor, got a list"),
    ],
)
def test_wrong_members(name: str, q: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(q)


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_wrong_floor(floor: float) -> None:
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 1\], got"):
        ops.explore_actions(**GOOD, floor=floor)


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        (torch.zeros(1), r"floor must have shape \[\], or be a number, got \[1\]"),
        (torch.tensor(0), r"floor must be a float16"),
    ],
)
def test_wrong_floor_tensor(floor: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.explore_actions(**GOOD, floor=floor)


SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(shapes=st.tuples(SHAPES, SHAPES, SHAPES), dtypes=st.tuples(DTYPES, DTYPES, DTYPES), fit=st.booleans())
@settings(max_examples=300, deadline=None)
def test_random_shapes_and_dtypes_are_right_or_refused(device: str, shapes: tuple, dtypes: tuple, fit: bool) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    if fit:
        shapes = (shapes[0], (6, *shapes[0]), shapes[0])
    logits, q, avail = (torch.rand(shape).to(device, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    try:
        ours = ops.explore_logits(logits, q, avail, 0.5)
        drawn = ops.explore_actions(logits, q, avail, bonus=0.5)
    except ValueError:
        return
    assert q.shape[1:] == logits.shape == avail.shape
    expected = ops.reference.explore_logits(logits.double(), q.double(), avail, 0.5)
    assert drawn.action.shape == drawn.open.shape == logits.shape[:-1]
    assert relative_error(ours.nan_to_num(neginf=0), expected.nan_to_num(neginf=0)) < 1e-4
