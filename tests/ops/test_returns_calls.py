"""The returns ops called from torch's machinery, with any stride and size, and wrongly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.returns_cases import NAMES, make_call

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


@pytest.mark.cuda
def test_uses_the_current_stream() -> None:
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
        ({"value": [0.0] * 7}, r"value must be a tensor, got a list"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"gamma": float("nan")}, r"gamma must lie in \[0, 1\], got nan"),
        ({"lam": -0.1}, r"lam must lie in \[0, 1\], got -0.1"),
        ({"gamma": "0.9"}, r"gamma must be a number, got '0.9'"),
        ({"valid": torch.ones(4, 7)}, r"valid must have shape \[4, 6\].*got \[4, 7\]"),
        ({"truncated": torch.ones(5, 6)}, r"truncated must have shape \[4, 6\].*got \[5, 6\]"),
        ({"value": torch.zeros(4, 7, 1, 1, 1, 1, 1)}, r"4 trailing axes at most, got 5"),
        (
            {"reward": torch.zeros(4, 6).to_sparse()},
            r"reward must be a dense tensor, got a nested, quantized or torch.sparse_coo one",
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


@pytest.mark.cuda
def test_devices_are_not_mixed() -> None:
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
def test_random_shapes_and_dtypes_are_right_or_refused(device: str, shapes: tuple, dtypes: tuple, lam: float) -> None:
    """No crash, no wrong answer, no silent broadcast over B or T."""
    reward, terminated, value, valid = (
        torch.ones(shape).to(device, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
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
