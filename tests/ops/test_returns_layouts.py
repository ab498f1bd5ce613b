"""The returns where the CUDA kernels change their ways: row lengths, alignment, mask types, storage orders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.returns_cases import Call, make_call

# A lane takes 4 steps, a warp 128, a block 1024: the ends of each, and what does not fill one.
LENGTHS = [1, 2, 3, 4, 5, 8, 12, 16, 60, 64, 68, 124, 127, 128, 129, 132, 256, 260, 512, 1020, 1024, 1025, 1028, 2052]


def check(call: Call, limit: float = 1e-10) -> None:
    expected = call.run(ops.reference)
    assert relative_error(call.run(ops), expected) < limit


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("ends", ["terminated", "all"])
def test_every_length(steps: int, ends: str) -> None:
    check(make_call("retrace_returns", steps, 5, steps, ends=ends))
    check(make_call("lambda_returns", steps, 1, steps, ends=ends))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("steps", [4, 60, 132, 1028])
def test_every_type(dtype: torch.dtype, steps: int) -> None:
    call = make_call("q_lambda_returns", 1, 3, steps).to(dtype)
    assert relative_error(call.run(ops), call.to(torch.float64).run(ops.reference)) < 2e-4


def shifted(tensor: Tensor, elements: int) -> Tensor:
    """The same values and strides, so many elements behind an aligned address."""
    storage = torch.empty(tensor.numel() + elements, dtype=tensor.dtype)
    return storage[elements:].view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("shift", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["reward", "terminated", "truncated", "valid", "q", "v", "trace"])
def test_inputs_that_are_not_aligned(name: str, shift: int) -> None:
    call = make_call("trace_returns", 2, 6, 64)
    where = call.tensors if name in call.tensors else call.ends
    where[name] = shifted(where[name], shift)
    check(call)


@pytest.mark.parametrize("name", ["reward", "terminated", "valid", "v"])
def test_rows_that_are_not_aligned(name: str) -> None:
    """Slices of longer rows: each begins elsewhere in a 16-byte word."""
    call = make_call("trace_returns", 2, 6, 64)
    where = call.tensors if name in call.tensors else call.ends
    tensor = where[name]
    longer = torch.zeros(len(tensor), tensor.shape[1] + 3, dtype=tensor.dtype)
    longer[:, 1:-2] = tensor
    where[name] = longer[:, 1:-2]
    check(call)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.int32, torch.float32, torch.int64])
@pytest.mark.parametrize("steps", [7, 64])
def test_masks_of_every_size(dtype: torch.dtype, steps: int) -> None:
    call = make_call("lambda_returns", 3, 9, steps)
    expected = call.run(ops.reference)
    call.tensors["terminated"] = call.tensors["terminated"].to(dtype)
    call.ends = {name: mask.to(dtype) for name, mask in call.ends.items()}
    assert relative_error(call.run(ops), expected) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_bits_of_a_mask(dtype: torch.dtype) -> None:
    """-0.0 is false; what is true may be so by its low bits alone, or its high ones."""
    call = make_call("lambda_returns", 3, 2, 8, ends="terminated")
    mask = torch.tensor([[0.0, -0.0, 1.0, 0.0, -0.0, -0.0, 0.0, 1.0]] * 2, dtype=dtype)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # the lowest bit
    mask[1, 3] = tiny
    call.tensors["terminated"] = mask
    expected = Call(call.name, call.tensors | {"terminated": mask != 0}, {}, call.numbers).run(ops.reference)
    assert relative_error(call.run(ops), expected) < 1e-10


@pytest.mark.parametrize("trailing", [(3,), (5, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("horizon", [None, 3, 9])
def test_trailing_axes(trailing: tuple[int, ...], horizon: int | None) -> None:
    check(make_call("trace_returns", 4, 7, 36, trailing, broadcast=True, horizon=horizon))
    check(make_call("trace_returns", 4, 7, 36, trailing, strided=True, horizon=horizon))


def test_agents_outermost() -> None:
    """[n, B, T] storage seen as [B, T, n]: steps are neighbours, rows have several axes."""
    call = make_call("trace_returns", 4, 6, 64, (3,))
    call.tensors = {k: x.permute(2, 0, 1).contiguous().permute(1, 2, 0) for k, x in call.tensors.items()}
    check(call)
