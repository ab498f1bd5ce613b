"""How the public functions call the compiled ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.library import Library, fallthrough_kernel

from emix.ops._errors import explained

_autograd = Library("emix", "IMPL", "Autograd")
_SAME: dict[str, str] = {}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(name: str) -> Callable[..., Any]:
    """The compiled op ``emix::name``, which autograd passes by.

    Without an entry for autograd torch would warn of a missing derivative; the derivatives are in ``_gradient``.
    """
    _autograd.impl(name, fallthrough_kernel)
    return getattr(torch.ops.emix, name).default


def public(names: Mapping[str, str] = _SAME) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A public function, whose errors name its arguments. ``names``: from an op's argument to the function's."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                raise explained(error, function, names, args, kwargs) from None

        return call

    return decorate
