"""sample_actions against its reference, the distribution, itself on other devices, and every wrong call."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from emix.ops.reference.sampling import philox
from tests.ops.policy_cases import Rows, make_rows, rows

FLOORS = [0.0, 0.1, 1.0]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(case: Rows, seed: int, samples: int | None = None) -> Tensor:
    """With a seed in place of a generator."""
    place = torch.tensor([seed], device=case.logits.device)
    return torch.ops.emix.sample_actions(case.logits, case.avail, place, case.floor, samples or 0)


def reference(case: Rows, seed: int, samples: int | None = None) -> Tensor:
    return ops.reference.sample_actions(
        case.logits, case.avail, torch.tensor([seed], device=case.logits.device), samples=samples, floor=case.floor
    )


# The generator


def test_philox_known_answers() -> None:
    """The reference's Philox against Random123's kat_vectors (csrc/philox.h checks itself when it is compiled)."""
    zeros = philox(torch.tensor(0), torch.tensor(0), torch.tensor(0))
    assert zeros.tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


# Right draws


@given(case=rows(), seed=st.integers(0, 2**63 - 2), samples=st.sampled_from([None, 1, 3, 4, 9, 33]))
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(device: str, case: Rows, seed: int, samples: int | None) -> None:
    """The same words and the same inversion; float32 thresholds move a draw in a million to the next action."""
    case = case.on(device)
    ours, expected = draw(case, seed, samples), reference(case, seed, samples)
    assert ours.shape == expected.shape
    assert ours.dtype == (torch.int64 if samples is None else torch.uint8)
    assert (ours != expected).sum() <= 1 + ours.numel() / 10_000


def test_draws_are_these(device: str) -> None:
    """Written down once: every device, instruction set and build draws the same, from every input dtype."""
    logits = (torch.arange(18) * 37 % 11).float().reshape(3, 6) / 4
    avail = torch.arange(18).reshape(3, 6) % 5 != 0
    expected = {
        0.0: [[1, 2, 4, 1, 2, 1, 2, 1, 1, 4], [2, 2, 3, 0, 1, 3, 2, 2, 2, 2], [1, 1, 4, 1, 1, 0, 2, 1, 1, 1]],
        0.1: [[1, 2, 4, 1, 2, 1, 2, 1, 1, 4], [2, 2, 3, 0, 1, 3, 2, 2, 2, 2], [1, 1, 4, 1, 1, 0, 2, 1, 1, 1]],
        1.0: [[1, 2, 4, 1, 2, 1, 2, 1, 1, 4], [1, 3, 5, 0, 0, 5, 2, 2, 1, 1], [0, 1, 4, 2, 2, 0, 2, 1, 1, 1]],
    }
    for dtype in DTYPES:
        for floor, draws in expected.items():
            case = Rows(logits.to(device, dtype), avail.to(device), Tensor(), Tensor(), floor)
            assert draw(case, 123456789, 10).T.tolist() == draws


@pytest.mark.parametrize("floor", FLOORS)
def test_devices_agree_bit_for_bit(device: str, floor: float) -> None:
    """A million draws and more, of every width: the CPU and a GPU."""
    for shape, samples in [((3, 9), 1000), ((700, 18), 100), ((501, 36), 33), ((40, 128), 101), ((5000, 5), None)]:
        for dtype in DTYPES:
            case = make_rows(1, shape, floor=floor)
            assert torch.equal(draw(case.to(dtype, device), 7, samples).cpu(), draw(case.to(dtype), 7, samples))


@pytest.mark.parametrize("floor", FLOORS)
def test_distribution(device: str, floor: float) -> None:
    """Chi-square over 200,000 draws a row; the bound is passed by chance once in a million rows."""
    case = make_rows(2, (8, 6), floor=floor, scale=1.0).to(torch.float32, device)
    samples = 200_000 if device == "cuda" else 20_000
    actions = draw(case, 11, samples).long()
    counts = torch.zeros(8, 6, device=device, dtype=torch.float64).scatter_add_(
        1, actions.T, torch.ones(8, samples, device=device, dtype=torch.float64)
    )
    pi = ops.masked_policy(case.logits.double(), case.avail, floor)
    some = case.avail.any(-1)
    assert not counts[some][~case.avail[some]].any()
    expected = pi * samples
    chi_square = ((counts - expected) ** 2 / expected.clamp(min=1e-9)).where(pi > 0, 0.0).sum(-1)[some]
    freedom = (case.avail.sum(-1) - 1)[some]
    assert (chi_square < freedom + 5 * (2 * freedom).sqrt() + 15).all()


def test_draws_of_a_row_and_of_neighbours_are_independent(device: str) -> None:
    """Chi-square of pairs: of one row's consecutive draws, and of two rows' draws of one number."""
    case = Rows(torch.zeros(2, 4, device=device), None, Tensor(), Tensor(), 0.0)
    actions = draw(case, 13, 40_000).long()
    for pairs in (actions[::2] * 4 + actions[1::2], (actions[:, :1] * 4 + actions[:, 1:])):
        counts = torch.bincount(pairs.flatten(), minlength=16).double()
        expected = pairs.numel() / 16
        assert ((counts - expected) ** 2 / expected).sum() < 15 + 5 * math.sqrt(30)


@pytest.mark.parametrize("floor", FLOORS)
def test_only_available_actions(device: str, floor: float) -> None:
    case = make_rows(3, (500, 18), floor=floor, scale=20).to(torch.float32, device)
    actions = draw(case, 17, 50).long()
    taken = case.avail.gather(-1, actions.T)
    assert taken[case.avail.any(-1)].all()
    assert not actions[:, ~case.avail.any(-1)].any()  # action 0 where there is none


def test_actions_of_probability_zero_are_not_drawn(device: str) -> None:
    inf = math.inf
    logits = torch.tensor(
        [
            [-inf, 0.0, -inf, 0.0, -inf],
            [0.0, inf, 0.0, 0.0, 0.0],
            [0.0, -200.0, 0.0, -200.0, -200.0],
            [math.nan, -inf, 1.0, 2.0, math.nan],
        ]
    ).to(device)
    actions = draw(Rows(logits, None, Tensor(), Tensor(), 0.0), 19, 4000)
    assert [sorted(set(actions[:, row].tolist())) for row in range(4)] == [[1, 3], [1], [0, 2], [2, 3]]
    nothing = torch.full((3, 5), -inf, device=device)
    assert not draw(Rows(nothing, None, Tensor(), Tensor(), 0.0), 19, 100).any()


# What a draw depends on


def test_a_draw_depends_on_seed_row_and_number_alone(device: str) -> None:
    case = make_rows(4, (50, 9)).to(torch.float32, device)
    hundred = draw(case, 23, 100)
    for samples in (1, 2, 5, 99):
        assert torch.equal(draw(case, 23, samples), hundred[:samples])
    assert torch.equal(draw(case, 23).byte(), hundred[0])
    fewer = Rows(case.logits[:20], case.avail[:20], case.action, case.value, 0.0)
    assert torch.equal(draw(fewer, 23, 100), hundred[:, :20])
    assert not torch.equal(draw(case, 24, 100), hundred)
    shaped = Rows(case.logits.reshape(5, 10, 9), case.avail.reshape(5, 10, 9), case.action, case.value, 0.0)
    assert torch.equal(draw(shaped, 23, 100).flatten(1), hundred)


def test_seeds_come_from_torch(device: str) -> None:
    logits = torch.zeros(500, 18, device=device)
    torch.manual_seed(1)
    first, second = ops.sample_actions(logits), ops.sample_actions(logits)
    torch.manual_seed(1)
    assert torch.equal(ops.sample_actions(logits), first)
    assert not torch.equal(first, second)
    own = torch.Generator(device).manual_seed(2)
    state = torch.get_rng_state()
    mine = ops.sample_actions(logits, samples=3, generator=own)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(ops.sample_actions(logits, samples=3, generator=own.manual_seed(2)), mine)


@pytest.mark.cuda
def test_cuda_graph_replays_draw_anew() -> None:
    logits = torch.zeros(500, 18, device="cuda")
    graph = torch.cuda.CUDAGraph()
    ops.sample_actions(logits)
    with torch.cuda.graph(graph):
        actions = ops.sample_actions(logits, samples=4)
    torch.cuda.synchronize()  # a capture sets the generator's place on its own stream
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append(actions.clone())
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_may_be_a_tensor(device: str, floor: float, dtype: torch.dtype) -> None:
    """It is read when the op runs, and draws as the number does that it holds."""
    case = make_rows(9, (500, 18), scale=20).to(torch.float32, device)
    place = torch.tensor(0.5, dtype=dtype, device=device)
    for number in (0.5, floor):
        place.fill_(number)
        ours, expected = (
            ops.sample_actions(
                case.logits, case.avail, samples=5, floor=each, generator=torch.Generator(device).manual_seed(3)
            )
            for each in (place, place.item())
        )
        assert torch.equal(ours, expected)


# torch's own machinery


def test_strides_do_not_matter(device: str) -> None:
    case = make_rows(5, (6, 7, 5)).to(torch.float32, device)
    expected = draw(case, 29, 9)
    spaced = torch.zeros(12, 14, 10, device=device)[::2, ::2, ::2].copy_(case.logits)
    last_first = case.avail.movedim(-1, 0).contiguous().movedim(0, -1)
    assert torch.equal(draw(Rows(spaced, last_first, case.action, case.value, 0.0), 29, 9), expected)
    turned = case.logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(draw(Rows(turned, case.avail.int(), case.action, case.value, 0.0), 29, 9), expected)
    assert not draw(
        Rows(case.logits, case.avail[:1, :1].expand(6, 7, 5) & False, case.action, case.value, 0.0), 29
    ).any()


def test_no_gradient(device: str) -> None:
    assert not ops.sample_actions(torch.zeros(3, 4, device=device, requires_grad=True)).requires_grad


@pytest.mark.parametrize("samples", [0, 5])
def test_opcheck(device: str, samples: int) -> None:
    case = make_rows(6, (3, 2, 5)).to(torch.float32, device)
    seed = torch.tensor([31], device=device)
    arguments, place = (case.logits, case.avail, seed, 0.1, samples), torch.tensor(0.1, device=device)
    torch.library.opcheck(torch.ops.emix.sample_actions.default, arguments)
    torch.library.opcheck(torch.ops.emix.sample_actions.default, (*arguments, place))


@pytest.mark.parametrize("samples", [None, 5])
def test_compiles_in_one_graph(device: str, samples: int | None) -> None:
    case = make_rows(7, (30, 5)).to(torch.float32, device)
    torch.compiler.reset()
    compiled = torch.compile(lambda z, avail: ops.sample_actions(z, avail, samples=samples) + 0, fullgraph=True)
    actions = compiled(case.logits, case.avail)
    assert actions.shape == ((30,) if samples is None else (5, 30))
    taken = case.avail.gather(-1, actions.long().reshape(-1, 30).T)
    assert taken[case.avail.any(-1)].all()


def test_a_generator_breaks_the_graph_but_not_the_draw() -> None:
    logits, generator = make_rows(8, (30, 5)).logits.float(), torch.Generator()
    torch.compiler.reset()
    compiled = torch.compile(lambda z: ops.sample_actions(z, generator=generator.manual_seed(3)))
    assert torch.equal(compiled(logits), ops.sample_actions(logits, generator=torch.Generator().manual_seed(3)))


def test_empty(device: str) -> None:
    assert ops.sample_actions(torch.zeros(0, 5, device=device)).shape == (0,)
    assert ops.sample_actions(
        torch.zeros(3, 0, 5, device=device), torch.zeros(3, 0, 5, device=device), samples=7
    ).shape == (7, 3, 0)
    assert ops.sample_actions(torch.zeros(5, device=device), samples=7).shape == (7,)


def test_sizes_past_two_to_the_31_on_meta() -> None:
    logits = torch.empty(2**26, 5, device="meta")
    assert ops.sample_actions(logits, samples=100).shape == (100, 2**26)


# Wrong calls

Z = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.sample_actions(torch.tensor(1.0)),
            r"logits must have shape \[..., A\] with 1 to 128 actions, got \[\]",
        ),
        (lambda: ops.sample_actions(torch.zeros(4, 0)), r"logits must have shape.*got \[4, 0\]"),
        (lambda: ops.sample_actions(torch.zeros(4, 129)), r"logits must have shape.*got \[4, 129\]"),
        (lambda: ops.sample_actions(Z.long()), r"logits must be a float16.*got an integer or bool one"),
        (lambda: ops.sample_actions(Z.to(torch.complex64)), r"logits must be real"),
        (lambda: ops.sample_actions(None), r"logits must be a tensor, got None"),
        (lambda: ops.sample_actions([1.0]), r"logits must be a tensor, got a list"),
        (lambda: ops.sample_actions(Z, torch.ones(3)), r"avail must have shape \[4, 3\] like logits, got \[3\]"),
        (lambda: ops.sample_actions(Z, floor=1.5), r"floor must lie in \[0, 1\], got 1.5"),
        (lambda: ops.sample_actions(Z, floor=math.nan), r"floor must lie in \[0, 1\], got nan"),
        (lambda: ops.sample_actions(Z, floor=Z[0]), r"floor must have shape \[\], or be a number, got \[3\]"),
        (lambda: ops.sample_actions(Z, samples=0), r"samples must be at least 1, got 0"),
        (lambda: ops.sample_actions(Z, samples=-3), r"samples must be at least 1, got -3"),
        (lambda: ops.sample_actions(Z, samples=2.5), r"samples must be a 64-bit integer or None, got 2.5"),
        (lambda: ops.sample_actions(Z, generator=3), r"generator must be a torch.Generator or None, got 3"),
        (lambda: ops.sample_actions(Z.to_sparse()), r"must be a dense tensor, got .* torch.sparse_coo"),
        (
            lambda: torch.ops.emix.sample_actions(Z, None, torch.zeros(2, dtype=torch.long)),
            r"`seed` must be an int64 tensor of one element",
        ),
    ],
)
def test_wrong_calls_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()


SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)
ANY_DTYPE = st.sampled_from([*DTYPES, torch.int64, torch.bool, torch.complex64])


@given(
    shapes=st.tuples(SHAPES, SHAPES),
    dtypes=st.tuples(ANY_DTYPE, ANY_DTYPE),
    floor=st.sampled_from([0.0, 0.5, 2.0]),
    samples=st.sampled_from([None, 0, 1, 3]),
    fitting=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_random_shapes_and_dtypes_are_right_or_refused(
    device: str, shapes: tuple, dtypes: tuple, floor: float, samples: int | None, fitting: bool
) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    logits = torch.ones(shapes[0]).to(device, dtypes[0])
    avail = torch.ones(shapes[0] if fitting else shapes[1]).to(device, dtypes[1])
    try:
        actions = ops.sample_actions(logits, avail, floor=floor, samples=samples)
    except ValueError:
        return
    assert logits.shape == avail.shape
    assert actions.shape == (logits.shape[:-1] if samples is None else (samples, *logits.shape[:-1]))
    assert (actions < logits.shape[-1]).all()
