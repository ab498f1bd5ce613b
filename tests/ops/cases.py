"""What the tests of several ops share: inputs by name, in other types and places, and how far a result is off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Inputs = dict[str, Tensor | None]


def changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {key: None if value is None else change(value) for key, value in inputs.items()}


def converted(inputs: Inputs, dtype: torch.dtype, device: str = "cpu") -> Inputs:
    """The floating inputs as that type; all on that device."""
    return changed(inputs, lambda x: x.to(device, dtype) if x.is_floating_point() else x.to(device))


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, with every axis apart in memory and in reversed order."""
    apart = torch.zeros([2 * size for size in reversed(tensor.shape)], dtype=tensor.dtype, device=tensor.device)
    view = apart.permute(tuple(reversed(range(tensor.dim()))))[tuple(slice(0, 2 * size, 2) for size in tensor.shape)]
    return view.copy_(tensor)


def moved(tensor: Tensor, device: str) -> Tensor:
    """The same numbers on that device, with the same strides; ``Tensor.to`` closes gaps."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((extent if tensor.numel() else 0,), (1,))
    return flat.to(device).as_strided(tensor.shape, tensor.stride())


def untouched(elements: int, dtype: torch.dtype, device: str) -> Tensor:
    """So much memory, to be used at few places; the test is skipped where there is none."""
    size = elements * dtype.itemsize
    if device == "cuda" and size > (free := torch.cuda.mem_get_info()[0]):
        pytest.skip(f"{free / 2**30:.1f} GiB of the GPU's memory are free, {size / 2**30:.1f} GiB are needed")
    try:
        return torch.empty(elements, dtype=dtype, device=device)
    except RuntimeError:
        pytest.skip(f"the system does not hand out {size / 2**30:.1f} GiB of untouched memory")


def leaves(inputs: Inputs) -> list[Tensor]:
    """The floating inputs, which from now on get a gradient."""
    return [x.requires_grad_() for x in inputs.values() if x is not None and x.is_floating_point()]


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """The largest |ours - reference| / (1 + |reference|), on whatever devices they are."""
    assert ours.shape == reference.shape
    ours, reference = ours.double().cpu(), reference.double().cpu()
    errors = (ours - reference).abs() / (1 + reference.abs())
    return errors.masked_fill(ours == reference, 0).max().item() if ours.numel() else 0.0  # infinite ones, too


def error(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, relative to the tensor's largest element where that is above 1."""
    assert ours.shape == reference.shape
    ours, reference = ours.detach().cpu().double(), reference.detach().cpu().double()
    return ((ours - reference).abs().max() / (1 + reference.abs().max())).item() if ours.numel() else 0.0
