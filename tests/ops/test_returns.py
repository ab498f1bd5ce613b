"""The returns ops against their reference, hand-computed numbers, each other, and every wrong call."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import SIGNATURES, Call, calls, make_call

NAMES = sorted(SIGNATURES)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    return (
        ((ours.double() - reference.double()).abs() / (1 + reference.double().abs())).max().item()
        if ours.numel()
        else 0.0
    )


# Right answers


@given(call=calls())
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(call: Call) -> None:
    expected = call.run(ops.reference)
    ours = call.run(ops)
    assert ours.shape == expected.shape
    assert ours.dtype == torch.float64
    assert relative_error(ours, expected) < 1e-10
    assert relative_error(call.to(torch.float32).run(ops), expected) < 1e-4 * (
        1 + expected.abs().max().item() if expected.numel() else 1
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    call = make_call(name, 3, 9, 70, (2,), horizon=None).to(dtype, device)
    ours = call.run(ops)
    assert ours.dtype == torch.float32
    assert relative_error(ours.cpu(), call.to(torch.float64).run(ops.reference).cpu()) < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_devices_agree(device: str, name: str) -> None:
    for batch, steps, trailing in [(3, 60, ()), (40, 120, ()), (3, 200, (5,)), (1, 1024, ()), (20_000, 3, ())]:
        call = make_call(name, 5, batch, steps, trailing)
        assert relative_error(call.to(torch.float64, device).run(ops).cpu(), call.run(ops.reference)) < 1e-10


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
    expected = call.to(torch.float64).run(ops.reference)
    assert relative_error(call.run(ops).cpu(), expected.cpu()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_repeats_bit_for_bit(device: str, name: str) -> None:
    call = make_call(name, 29, 64, 120, (3,)).to(torch.float32, device)
    assert torch.equal(call.run(ops), call.run(ops))


def test_sixty_four_bit_offsets() -> None:
    """Strides past 2^31 elements, on memory that is never touched outside the rows."""
    rows, stride = 3, 2**31
    try:
        storage = torch.empty(2 * stride + 16, dtype=torch.uint8)
    except RuntimeError:
        pytest.skip("the system does not hand out 4 GiB of untouched memory")
    terminated = storage.as_strided((rows, 4), (stride, 1))
    terminated.copy_(torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    reward, value = torch.randn(rows, 4), torch.randn(rows, 5)
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
def test_gradients_equal_the_references(call: Call, seed: int) -> None:
    floating = [v.requires_grad_() for v in call.tensors.values() if v.is_floating_point()]
    expected = call.run(ops.reference)
    upstream = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(seed))
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


# torch's own machinery


@pytest.mark.parametrize("horizon", [0, 3])
def test_opcheck(device: str, horizon: int) -> None:
    call = make_call("trace_returns", 37, 3, 6, (2,)).to(torch.float32, device)
    reward, terminated, q, v, trace = call.tensors.values()
    ends = (call.ends["truncated"], call.ends["valid"])
    torch.library.opcheck(
        torch.ops.emix.trace_returns.default, (reward, terminated, q, v, 0.9, 0.8, trace, *ends, horizon)
    )
    grad = torch.randn(3, 6, 2, device=device)
    torch.library.opcheck(
        torch.ops.emix.trace_returns_backward.default, (grad, reward, terminated, q, v, 0.9, 0.8, trace, *ends, horizon)
    )


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    call = make_call(name, 41, 3, 20, (2,)).to(torch.float32, device)
    compiled = torch.compile(lambda: call.run(ops), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), call.run(ops))


def test_compiled_gradient() -> None:
    call = make_call("lambda_returns", 43, 3, 20).to(torch.float32)
    value = call.tensors["value"].requires_grad_()

    def loss() -> Tensor:
        return call.run(ops, differentiable=True).square().sum()

    expected = torch.autograd.grad(loss(), value)[0]
    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(), value)[0]
    torch.testing.assert_close(ours, expected)


def test_captured_in_a_cuda_graph() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    call = make_call("lambda_returns", 47, 32, 120).to(torch.float32, "cuda")
    call.run(ops)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call.run(ops)
    for _ in range(3):
        call.tensors["value"].normal_()
        graph.replay()
        assert torch.equal(result, call.run(ops))


def test_uses_the_current_stream() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    call = make_call("lambda_returns", 53, 4096, 128).to(torch.float32, "cuda")
    expected = call.run(ops)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        call.tensors["value"] = call.tensors["value"] + 0  # ready only after the sleep
        result = call.run(ops)
    stream.synchronize()
    assert torch.equal(result, expected)


# Wrong calls

GOOD = {"reward": torch.zeros(4, 6), "terminated": torch.zeros(4, 6), "value": torch.zeros(4, 7)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": torch.zeros(6)}, r"reward must have shape \[B, T\] or \[B, T, ...\], got \[6\]"),
        ({"value": torch.zeros(4, 6)}, r"value must have shape \[4, 7\].*got \[4, 6\]"),
        ({"value": torch.zeros(1, 7)}, r"value must have shape \[4, 7\].*got \[1, 7\]"),
        ({"terminated": torch.zeros(4, 1)}, r"terminated must have shape \[4, 6\].*got \[4, 1\]"),
        (
            {"terminated": torch.zeros(4, 6, 2), "value": torch.zeros(4, 7, 3)},
            r"value must have the trailing axes \[2\].*got \[4, 7, 3\]",
        ),
        (
            {"value": torch.zeros(4, 7, dtype=torch.long)},
            r"value must be a float16, bfloat16, float32 or float64 tensor, got an integer or bool one",
        ),
        ({"reward": torch.zeros(4, 6, dtype=torch.complex64)}, r"reward must be real, got a complex tensor"),
        ({"terminated": torch.zeros(4, 6, dtype=torch.complex64)}, r"terminated must be real, got a complex tensor"),
        ({"value": None}, r"value must be a tensor, got None"),
        ({"value": [0.0] * 7}, r"Expected a value of type 'Tensor' for argument 'value' but instead found type 'list'"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"gamma": float("nan")}, r"gamma must lie in \[0, 1\], got nan"),
        ({"lam": -0.1}, r"lam must lie in \[0, 1\], got -0.1"),
        ({"gamma": "0.9"}, r"Expected a value of type 'float' for argument 'gamma' but instead found type 'str'"),
        ({"valid": torch.ones(4, 7)}, r"valid must have shape \[4, 6\].*got \[4, 7\]"),
        ({"truncated": torch.ones(5, 6)}, r"truncated must have shape \[4, 6\].*got \[5, 6\]"),
        ({"value": torch.zeros(4, 7, 1, 1, 1, 1, 1)}, r"4 trailing axes at most, got 5"),
        (
            {"reward": torch.zeros(4, 6).to_sparse()},
            r"expected dense CPU or CUDA tensors, got tensors of the 'SparseCPU' backend",
        ),
    ],
)
def test_wrong_calls_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    arguments = {**GOOD, "gamma": 0.9, "lam": 0.8, **change}
    with pytest.raises(ValueError, match=message):
        ops.lambda_returns(**arguments)


@pytest.mark.parametrize(
    ("name", "key"), [("tree_backup_returns", "pi"), ("retrace_returns", "ratio"), ("trace_returns", "trace")]
)
def test_wrong_calls_use_the_public_names(name: str, key: str) -> None:
    call = make_call(name, 59, 4, 6)
    call.tensors[key] = torch.zeros(4, 6)
    with pytest.raises(ValueError, match=rf"^{key} must have shape \[4, 7\]"):
        call.run(ops)


@pytest.mark.parametrize(
    ("name", "key"), [("n_step_returns", "n"), ("tree_backup_returns", "horizon"), ("trace_returns", "horizon")]
)
@pytest.mark.parametrize("value", [0, -2])
def test_wrong_horizon(name: str, key: str, value: int) -> None:
    call = make_call(name, 61, 4, 6)
    call.numbers[key] = value
    with pytest.raises(ValueError, match=f"^{key} must be at least 1, got {value}"):
        call.run(ops)


def test_devices_are_not_mixed() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with pytest.raises(ValueError, match="value must be on cpu like reward, got cuda:0"):
        ops.lambda_returns(GOOD["reward"], GOOD["terminated"], GOOD["value"].cuda(), gamma=0.9, lam=0.8)


SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(
    shapes=st.tuples(SHAPES, SHAPES, SHAPES, SHAPES),
    dtypes=st.tuples(DTYPES, DTYPES, DTYPES, DTYPES),
    lam=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
@settings(max_examples=300, deadline=None)
def test_random_shapes_and_dtypes_are_right_or_refused(shapes: tuple, dtypes: tuple, lam: float) -> None:
    """No crash, no wrong answer, no silent broadcast over B or T."""
    reward, terminated, value, valid = (
        torch.ones(shape).to(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    try:
        ours = ops.lambda_returns(reward, terminated, value, gamma=0.9, lam=lam, valid=valid)
    except ValueError:
        return
    assert reward.shape[:2] == terminated.shape[:2] == valid.shape[:2]
    assert value.shape[:2] == (reward.shape[0], reward.shape[1] + 1)
    expected = ops.reference.lambda_returns(
        reward.double(), terminated, value.double(), gamma=0.9, lam=lam, valid=valid
    )
    assert ours.shape == expected.shape
    assert relative_error(ours, expected) < 1e-3
