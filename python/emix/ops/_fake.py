"""What the fake kernels share.

For tensors without numbers (meta tensors, torch.compile, torch.export) they say of shapes, types and devices what the
compiled ops say, and allocate the results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake as register_with_torch

MAX_AXES, MAX_MEMBERS, MAX_ACTIONS, MAX_HIDDEN = 8, 64, 128, 256  # as in csrc

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

Tensors = Mapping[str, Tensor | None]
_NONE: Tensors = {}


def register_fake(name: str) -> Callable[[Callable[..., Any]], None]:
    """Make a function the fake kernel of ``emix::name``, which then gets no None where the schema wants a tensor."""
    arguments = getattr(torch.ops.emix, name).default._schema.arguments
    tensors = {place: each.name for place, each in enumerate(arguments) if str(each.type) == "Tensor"}

    def register(kernel: Callable[..., Any]) -> None:
        def fake(*inputs: Any, **others: Any) -> Any:
            for place, argument in tensors.items():
                require(inputs[place] is not None, "`{}` must be a tensor, got None", argument)
            return kernel(*inputs, **others)

        register_with_torch(f"emix::{name}", fake)

    return register


def require(condition: Any, sentence: str, *shown: object) -> None:
    """Refuse the call unless that holds, by a sentence like the compiled ops', argument names in backticks."""
    if torch.compiler.is_dynamo_compiling():
        torch._check(condition)  # Dynamo of torch 2.11 takes no message that reads variables
    else:
        torch._check(condition, lambda: "emix: " + sentence.format(*shown))


def check_types(floats: Tensors, masks: Tensors = _NONE, integers: Tensors = _NONE) -> None:
    """Refuse types that the ops do not take, and tensors that are not all on the first one's device."""
    first, device = next((name, tensor.device) for name, tensor in floats.items() if tensor is not None)
    for name, tensor in {**floats, **masks, **integers}.items():
        if tensor is None:
            continue
        if name in floats:
            sentence = "`{}` must be a float16, bfloat16, float32 or float64 tensor, got {}"
            require(tensor.dtype in _FLOATS, sentence, name, tensor.dtype)
        if name in masks:
            require(not tensor.dtype.is_complex, "`{}` must be real, got {}", name, tensor.dtype)
        if name in integers:
            sentence = "`{}` must be an integer tensor, such as int64, got {}"
            require(tensor.dtype in _INTEGERS, sentence, name, tensor.dtype)
        sentence = "`{}` must be on {} like `{}`, got {}"
        require(tensor.device == device, sentence, name, device, first, tensor.device)


def check_shape(name: str, tensor: Tensor | None, shape: Sequence[Any]) -> None:
    """Refuse any other shape; sizes may be symbols."""
    if tensor is None:
        return
    sentence, shown = "`{}` must have shape {}, got {}", (name, list(shape), list(tensor.shape))
    require(tensor.dim() == len(shape), sentence, *shown)
    for size, expected in zip(tensor.shape, shape, strict=True):
        require(size == expected, sentence, *shown)


def check_actions(name: str, tensor: Tensor) -> None:
    """Refuse what is not [..., A]."""
    sentence = "`{}` must have shape [..., A] with 1 to {} actions and {} axes at most, got {}"
    shown = (name, MAX_ACTIONS, MAX_AXES, list(tensor.shape))
    require(0 < tensor.dim() <= MAX_AXES, sentence, *shown)
    require(tensor.shape[-1] >= 1, sentence, *shown)
    require(tensor.shape[-1] <= MAX_ACTIONS, sentence, *shown)


def check_members(name: str, tensor: Tensor, axes: int = 1) -> None:
    """Refuse what is not [N, ...], with so many axes at least."""
    sentence = "`{}` must have 1 to {} members on its first axis and {} axes at least, got {}"
    shown = (name, MAX_MEMBERS, axes, list(tensor.shape))
    require(tensor.dim() >= axes, sentence, *shown)
    require(tensor.shape[0] >= 1, sentence, *shown)
    require(tensor.shape[0] <= MAX_MEMBERS, sentence, *shown)


def check_floor(floor: float, floor_tensor: Tensor | None, logits: Tensor) -> None:
    """Refuse what is no floor of a policy."""
    require(0 <= floor <= 1, "`floor` must lie in [0, 1], got {}", floor)
    check_types({"logits": logits, "floor": floor_tensor})
    check_shape("floor", floor_tensor, ())


def wide(*tensors: Tensor | None) -> torch.dtype:
    """The type that an op computes in: float64 where an input is float64, else float32."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32


def common(*tensors: Tensor | None) -> torch.dtype:
    """The type that inputs are read in, and that the larger gradients are written in: theirs, where it is one."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    return dtypes.pop() if len(dtypes) == 1 else wide(*tensors)


def empty_if(wanted: bool, like: Tensor, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """A result; what is not wanted has no elements."""
    return like.new_empty(shape if wanted else (0,), dtype=dtype)
