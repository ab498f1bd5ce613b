"""What a wrong call is told: the argument, what was expected and what came, in the words of the public function.

Right calls pay nothing for it. The compiled ops check all that they read before they change anything; where they, torch
or Python on the way to them refuse, the arguments are looked through here.
"""

from __future__ import annotations

import ctypes
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_OURS = "emix: "
_FAILED_INSIDE = "API call failed at"
_NO_KERNEL = "from the 'CUDA' backend"
_WORDS = {Tensor: "a tensor", float: "a number", int: "a 64-bit integer", bool: "True or False", type(None): "None"}
_DEVICES = ("cpu", "cuda", "meta")
_INTEGERS = range(-(2**63), 2**63)


def explained(
    error: Exception,
    function: Callable[..., Any],
    names: Mapping[str, str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Exception:
    """The ValueError for a caller's mistake, torch's own error where memory ran out, any other error as it came.

    Args:
        error: what the public function raised.
        function: that function.
        names: from an argument of the compiled op to the public one, where they differ.
        args: the arguments of the call.
        kwargs: those given by name.
    """
    try:
        arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:  # one too many, or missing: Python has named it
        return error
    text = str(error)
    mistake = _mistake(function, arguments)
    if mistake:
        return ValueError(mistake)
    if _FAILED_INSIDE in text:
        return torchs_own(error)
    if _NO_KERNEL in text:
        return RuntimeError("this emix was built without CUDA: `emix doctor` says how to build it with CUDA")
    if _OURS not in text:
        return error
    text = text.split(_OURS, 1)[1].splitlines()[0]
    if "`" not in text:  # a kernel that cannot be launched, say
        return RuntimeError(text)
    return ValueError(_renamed(text, names))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for name in names:  # two passes, so that a new name is not replaced again
        text = text.replace(f"`{name}`", f"`\0{name}`")
    for name, public in names.items():
        text = text.replace(f"`\0{name}`", f"`{public}`")
    return text.replace("`", "")


def _mistake(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments, as far as types and devices tell."""
    hints = _hints(function)
    parts = [part for name, value in arguments.items() for part in _parts(name, value, hints[name])]
    for name, value, hint in parts:
        if not any(_is(value, kind) for kind in _alternatives(hint)):
            return f"{name} must be {' or '.join(map(_word, _alternatives(hint)))}, got {_shown(value)}"
    first: tuple[str, Tensor] | None = None
    for name, tensor, _ in parts:
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
            return f"{name} must be a dense tensor, got a nested, quantized or {tensor.layout} one"
        if tensor.device.type not in _DEVICES:
            return f"{name} must be on the CPU or on a CUDA device, got {tensor.device}"
        first = first or (name, tensor)
        if tensor.device != first[1].device:
            return f"{name} must be on {first[1].device} like {first[0]}, got {tensor.device}"
    generator = arguments.get("generator")
    if first and generator is not None and generator.device.type != first[1].device.type:
        return f"generator must be on {first[1].device.type} like {first[0]}, got {generator.device}"
    return None


def _hints(of: Any) -> dict[str, Any]:
    return typing.get_type_hints(of)


def _parts(name: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """An argument with its hint, followed by its fields or elements with theirs."""
    yield name, value, hint
    if hasattr(value, "_asdict") and type(value) is hint:
        hints = _hints(hint)
        for field, each in value._asdict().items():
            yield from _parts(f"{name}.{field}", each, hints[field])
    elif _is_sequence(hint):
        for i, each in enumerate(_elements(value) or ()):
            yield f"{name}[{i}]", each, typing.get_args(hint)[0]


def _is_sequence(hint: Any) -> bool:
    return typing.get_origin(hint) in (Sequence, list)


def _elements(value: Any) -> list[Any] | None:
    try:
        return None if isinstance(value, Tensor | str | bytes | Mapping) else list(value)
    except TypeError:
        return None


def _is_integer(value: Any) -> bool:
    try:
        return not isinstance(value, Tensor) and operator.index(value) in _INTEGERS
    except TypeError:
        return False


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    if _is_sequence(kind):
        return _elements(value) is not None
    if kind is float:
        return isinstance(value, Real)
    if kind is int:
        return _is_integer(value)
    return isinstance(value, kind)


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        *others, last = [f'"{each}"' for each in typing.get_args(kind)]
        return f"{', '.join(others)} or {last}"
    if _is_sequence(kind):
        return f"a sequence, each of it {_word(typing.get_args(kind)[0])}"
    return _WORDS.get(kind, f"a {kind.__module__.split('.')[0]}.{kind.__name__}")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str | Real):
        return repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
    return f"a {type(value).__name__}"


def torchs_own(error: Exception) -> Exception:
    """What torch said where the stable ABI only says that a call failed, such as one for memory; else the error."""
    if _FAILED_INSIDE not in str(error):
        return error
    said = _last_words()
    if "out of memory" in said:
        return torch.OutOfMemoryError(said)
    return RuntimeError(said or f"{error} (torch has written why on stderr)")


def _last_words() -> str:
    """The message of this thread's last exception inside torch: torch 2.13 or newer keeps it."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    try:
        what = library.torch_exception_get_what_without_backtrace
    except AttributeError:
        return ""
    what.restype = ctypes.c_char_p
    return (what() or b"").decode(errors="replace").strip()
