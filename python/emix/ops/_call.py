"""How the public functions call the compiled ops, and what the ops' fake kernels share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from emix.errors import UsageError
from emix.ops._errors import explained

_autograd = torch.library.Library("emix", "IMPL", "Autograd")
_SAME: dict[str, str] = {}


def compiled(name: str) -> Callable[..., Any]:
    """The compiled op ``emix::name``, which autograd passes by.

    Without an entry for autograd torch would warn of a missing derivative; the derivatives are in ``_gradient``.
    """
    _autograd.impl(name, torch.library.fallthrough_kernel)
    return getattr(torch.ops.emix, name).default


def call(op: Callable[..., Any], *inputs: Any, names: Mapping[str, str] = _SAME) -> Any:
    """``op(*inputs)``, whose errors name the caller's arguments. ``names``: from an op's argument to the public one."""
    try:
        return op(*inputs)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise explained(error, names) from None


def check_tensors(**tensors: object) -> None:
    """Raise for what is no tensor, where Python looks into a tensor before the op does."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{name} must be a tensor, got {'None' if tensor is None else type(tensor).__name__}")


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


def empty_if(wanted: bool, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A fake kernel's result; what is not wanted has no elements."""
    return like.new_empty(shape if wanted else (0,), dtype=dtype)
