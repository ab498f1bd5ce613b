"""masked_policy and policy_terms called from torch's machinery, with any dtype, stride and size, and wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error, untouched
from tests.ops.policy_cases import FLOORS, INTEGERS, Rows, all_terms, make_rows

# torch's own machinery


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]
)
def test_masks_of_any_dtype(device: str, dtype: torch.dtype) -> None:
    case = make_rows(9, (33, 18)).to(torch.float32, device)
    avail = case.avail.to(dtype)
    if dtype.is_floating_point:
        avail = torch.where(avail == 0, -0.0, 1.0).to(dtype)
    assert torch.equal(ops.masked_policy(case.logits, avail), ops.masked_policy(case.logits, case.avail))


@pytest.mark.parametrize("integer", INTEGERS)
def test_actions_of_any_dtype(device: str, integer: torch.dtype) -> None:
    case = make_rows(10, (33, 18)).to(torch.float32, device)
    expected = ops.policy_terms(case.logits, case.action, case.avail).log_prob
    assert torch.equal(ops.policy_terms(case.logits, case.action.to(integer), case.avail).log_prob, expected)


def test_mixed_floating_dtypes(device: str) -> None:
    """Logits in bfloat16 beside values in float32, as under autocast."""
    case = make_rows(11, (33, 18)).to(torch.float32, device)
    logits, value = case.logits.bfloat16().requires_grad_(), case.value.requires_grad_()
    terms = ops.policy_terms(logits, case.action, case.avail, value)
    expected = ops.policy_terms(logits.float(), case.action, case.avail, value)
    assert all(torch.equal(a, b) for a, b in zip(terms, expected, strict=True))
    grads = torch.autograd.grad(terms.expected_value.sum(), (logits, value))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]


def test_gradients_only_where_wanted(device: str) -> None:
    case = make_rows(12, (5, 4)).to(torch.float32, device)
    logits, value = case.logits.requires_grad_(), case.value.requires_grad_()
    with torch.no_grad():
        assert not ops.policy_terms(logits, case.action, None, value).log_prob.requires_grad
    assert not ops.masked_policy(logits.detach()).requires_grad
    terms = ops.policy_terms(logits, case.action, None, value)
    assert torch.autograd.grad(terms.entropy.sum(), value, allow_unused=True) == (None,)
    only_value = ops.policy_terms(logits.detach(), case.action, None, value).expected_value
    torch.testing.assert_close(torch.autograd.grad(only_value.sum(), value)[0], ops.masked_policy(logits.detach()))


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_opcheck(device: str, floor: float) -> None:
    case = make_rows(13, (3, 2, 5)).to(torch.float32, device)
    logits, action, avail, value = case.logits, case.action, case.avail, case.value
    grad = torch.randn(3, 2, device=device)
    for op, arguments in [
        ("masked_policy", (logits, avail, floor)),
        ("masked_policy_backward", (torch.randn_like(logits), logits, avail, floor)),
        ("policy_terms", (logits, action, avail, value, floor)),
        ("policy_terms", (logits.double(), action, None, None, floor)),
        ("policy_terms_backward", (grad, None, grad, logits, action, avail, value, floor, True)),
        ("policy_terms_backward", (None, grad, None, logits, action, avail, None, floor, False)),
    ]:
        torch.library.opcheck(getattr(torch.ops.emix, op).default, arguments)
        place = {"floor_tensor": torch.tensor(floor, device=device)}
        torch.library.opcheck(getattr(torch.ops.emix, op).default, arguments, place)


@pytest.mark.parametrize("place", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_compiles_in_one_graph(device: str, floor: float | Tensor, place: bool) -> None:
    case = make_rows(14, (4, 3, 5), floor=floor).to(torch.float32, device)
    floor = torch.tensor(floor, device=device) if place else floor

    def loss(logits: Tensor, value: Tensor) -> Tensor:
        terms = ops.policy_terms(logits, case.action, case.avail, value, floor)
        return (
            terms.log_prob + terms.entropy * terms.expected_value + ops.masked_policy(logits, case.avail, floor)[..., 0]
        ).sum()

    inputs = (case.logits.requires_grad_(), case.value.requires_grad_())
    expected = torch.autograd.grad(loss(*inputs), inputs)
    torch.compiler.reset()
    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*inputs), inputs)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("floor", FLOORS)
def test_repeats_bit_for_bit(device: str, floor: float) -> None:
    case = make_rows(15, (700, 18), floor=floor).to(torch.float32, device)
    inputs = (case.logits.requires_grad_(), case.value.requires_grad_())

    def run() -> tuple[Tensor, ...]:
        results = all_terms(ops, case)
        return (*results, *torch.autograd.grad([each.sum() for each in results], inputs))

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_may_be_a_tensor(device: str, floor: float, dtype: torch.dtype) -> None:
    """The same bits as with the number that it holds, gradients included."""
    place = torch.tensor(floor, dtype=dtype, device=device)

    def run(floor: float | Tensor) -> tuple[Tensor, ...]:
        case = make_rows(18, (70, 18)).to(torch.float32, device)
        case = Rows(case.logits.requires_grad_(), case.avail, case.action, case.value.requires_grad_(), floor)
        results = all_terms(ops, case)
        return (*results, *torch.autograd.grad([each.sum() for each in results], (case.logits, case.value)))

    assert all(torch.equal(a, b) for a, b in zip(run(place), run(place.item()), strict=True))


def test_a_floor_is_read_when_the_op_runs(device: str) -> None:
    case = make_rows(19, (33, 18)).to(torch.float32, device)
    place = torch.tensor([0.1, 0.5], device=device)[1]
    for floor in (0.5, 0.25, 0.0):
        place.fill_(floor)
        expected = ops.masked_policy(case.logits, case.avail, floor)
        assert torch.equal(ops.masked_policy(case.logits, case.avail, place), expected)
    logits = case.logits.requires_grad_()
    result = ops.masked_policy(logits, case.avail, place)
    place.fill_(0.5)  # between the passes: the gradient would not be that of the result
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.cuda
def test_cuda_graph_replays_see_the_floor() -> None:
    with pytest.raises(ValueError, match="floor must be on cuda:0 like logits, got cpu"):
        ops.masked_policy(torch.zeros(4, 3, device="cuda"), floor=torch.tensor(0.1))
    case = make_rows(20, (500, 18)).to(torch.float32, "cuda")
    case.floor = torch.zeros((), device="cuda")
    graph = torch.cuda.CUDAGraph()
    all_terms(ops, case)
    with torch.cuda.graph(graph):
        results = all_terms(ops, case)
    for floor in (0.5, 0.0):
        case.floor.fill_(floor)
        graph.replay()
        expected = all_terms(ops, Rows(case.logits, case.avail, case.action, case.value, floor))
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def views(tensor: Tensor) -> list[Tensor]:
    """The same numbers under other strides."""
    spaced = tensor.new_zeros([2 * size for size in tensor.shape])[
        tuple(slice(0, 2 * size, 2) for size in tensor.shape)
    ]
    innermost_first = tensor.movedim(-1, 0).contiguous().movedim(0, -1)
    return [spaced.copy_(tensor), innermost_first, tensor.transpose(0, 1).contiguous().transpose(0, 1)]


def test_strides_do_not_matter(device: str) -> None:
    case = make_rows(16, (7, 6, 5)).to(torch.float32, device)
    expected = all_terms(ops, case)
    for logits, avail, value in zip(views(case.logits), views(case.avail), views(case.value), strict=True):
        action = case.action.T.contiguous().T
        ours = all_terms(ops, Rows(logits, avail, action, value, 0.0))
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    same = case.logits[:1].expand(7, -1, -1), case.avail[:1].expand(7, -1, -1)
    assert torch.equal(ops.masked_policy(*same), expected[3][:1].expand(7, -1, -1))


def test_sixty_four_bit_offsets(device: str) -> None:
    """Strides past 2^31 elements, on memory that is never touched outside the rows."""
    stride = 2**31
    storage = untouched(2 * stride + 16, torch.uint8, device)
    avail = storage.as_strided((3, 4), (stride, 1))
    avail.copy_(torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]))
    logits = torch.randn(3, 4, device=device)
    assert torch.equal(ops.masked_policy(logits, avail), ops.masked_policy(logits, avail.clone()))


def test_sizes_past_two_to_the_31_on_meta() -> None:
    logits = torch.empty(2**29, 5, device="meta", dtype=torch.bfloat16)
    assert ops.masked_policy(logits).shape == logits.shape
    terms = ops.policy_terms(logits, torch.empty(2**29, dtype=torch.long, device="meta"))
    assert terms.entropy.shape == (2**29,)


# Wrong calls

Z, ACTION = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.masked_policy(torch.tensor(1.0)),
            r"logits must have shape \[..., A\] with 1 to 128 actions.*got \[\]",
        ),
        (lambda: ops.masked_policy(torch.zeros(4, 0)), r"logits must have shape.*got \[4, 0\]"),
        (lambda: ops.masked_policy(torch.zeros(4, 129)), r"logits must have shape.*got \[4, 129\]"),
        (lambda: ops.masked_policy(torch.zeros(1, 1, 1, 1, 1, 1, 1, 1, 2)), r"8 axes at most, got"),
        (lambda: ops.masked_policy(ACTION), r"logits must be a float16.*got an integer or bool one"),
        (lambda: ops.masked_policy(Z.to(torch.complex64)), r"logits must be real"),
        (lambda: ops.masked_policy(None), r"logits must be a tensor, got None"),
        (lambda: ops.masked_policy(Z, torch.ones(3)), r"avail must have shape \[4, 3\] like logits, got \[3\]"),
        (lambda: ops.masked_policy(Z, torch.ones(1, 3)), r"avail must have shape \[4, 3\] like logits, got \[1, 3\]"),
        (lambda: ops.masked_policy(Z, Z.to(torch.complex64)), r"avail must be real"),
        (lambda: ops.masked_policy(Z, floor=1.5), r"floor must lie in \[0, 1\], got 1.5"),
        (lambda: ops.masked_policy(Z, floor=-0.1), r"floor must lie in \[0, 1\], got -0.1"),
        (lambda: ops.masked_policy(Z, floor=math.nan), r"floor must lie in \[0, 1\], got nan"),
        (lambda: ops.masked_policy(Z, floor=Z[0]), r"floor must have shape \[\], or be a number, got \[3\]"),
        (lambda: ops.masked_policy(Z, floor=Z[:1, 0]), r"floor must have shape \[\], or be a number, got \[1\]"),
        (lambda: ops.masked_policy(Z, floor=ACTION[0]), r"floor must be a float16.*got an integer or bool one"),
        (lambda: ops.masked_policy(Z, floor="0.1"), r"floor must be a number( or a tensor)?, got '0.1'"),
        (lambda: ops.policy_terms(Z, ACTION, floor=Z[0]), r"floor must have shape \[\], or be a number, got \[3\]"),
        (lambda: ops.masked_policy(Z.to_sparse()), r"must be a dense tensor, got .* torch.sparse_coo"),
        (lambda: ops.policy_terms(Z, Z[:, 0]), r"action must be an integer tensor"),
        (lambda: ops.policy_terms(Z, ACTION.bool()), r"action must be an integer tensor"),
        (lambda: ops.policy_terms(Z, ACTION[:, None]), r"action must have shape \[4\].*got \[4, 1\]"),
        (lambda: ops.policy_terms(Z, ACTION[:1]), r"action must have shape \[4\].*got \[1\]"),
        (lambda: ops.policy_terms(Z, ACTION, None, ACTION), r"value must be a float16"),
        (
            lambda: ops.policy_terms(Z, ACTION, None, Z[:, :1]),
            r"value must have shape \[4, 3\] like logits, got \[4, 1\]",
        ),
        (lambda: ops.policy_terms(None, ACTION), r"logits must be a tensor, got None"),
        (lambda: ops.policy_terms(Z, None), r"action must be a tensor, got None"),
        (lambda: ops.policy_terms(Z, [0, 0, 0, 0]), r"action must be a tensor, got a list"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple)
DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
)


@given(
    shapes=st.tuples(SHAPES, SHAPES, SHAPES, SHAPES),
    dtypes=st.tuples(DTYPES, DTYPES, DTYPES, DTYPES),
    floor=st.sampled_from([0.0, 0.5, 2.0]),
    fitting=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_random_shapes_and_dtypes_are_right_or_refused(
    device: str, shapes: tuple, dtypes: tuple, floor: float, fitting: bool
) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    if fitting:
        shapes = (shapes[0], shapes[0][:-1], shapes[0], shapes[0])
    logits, action, avail, value = (
        torch.ones(shape).to(device, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    try:
        ours = ops.policy_terms(logits, action, avail, value, floor)
    except ValueError:
        return
    assert logits.shape == avail.shape == value.shape == (*action.shape, logits.shape[-1])
    action = action.clamp(max=logits.shape[-1] - 1)
    if logits.shape[-1] > 1:
        expected = ops.reference.policy_terms(logits.double(), action, avail, value.double(), floor)
        assert all(relative_error(a, b) < 1e-3 for a, b in zip(ours, expected, strict=True))
