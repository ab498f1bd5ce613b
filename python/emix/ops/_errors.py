"""Turns what the compiled ops and torch's dispatcher say of a wrong call into a ValueError with the public argument
names."""

from __future__ import annotations

from collections.abc import Mapping

_OURS = "emix: "
_WRONG_TYPE = "Expected a value of type"
_NO_KERNEL = "Could not run 'emix::"
_NO_TENSOR = "There were no tensor arguments"


def explained(error: Exception, names: Mapping[str, str]) -> Exception:
    """The ValueError for a caller's mistake; any other error as it came. ``names``: from an op's argument to the
    public one."""
    text = str(error)
    if _OURS in text:
        text = text.split(_OURS, 1)[1].splitlines()[0]
        for name in names:  # two passes, so that a new name is not replaced again
            text = text.replace(f"`{name}`", f"`\0{name}`")
        for name, public in names.items():
            text = text.replace(f"`\0{name}`", f"`{public}`")
        return ValueError(text.replace("`", ""))
    if _WRONG_TYPE in text:
        text = _WRONG_TYPE + text.split(_WRONG_TYPE, 1)[1].splitlines()[0]
        for name, public in names.items():
            text = text.replace(f"argument '{name}'", f"argument '{public}'")
        return ValueError(text)
    if _NO_TENSOR in text:
        return ValueError("the first argument must be a tensor, got None")
    if _NO_KERNEL in text:
        return ValueError(
            "expected dense CPU or CUDA tensors"
            + text.split("'", 2)[2].split(".")[0].replace(" with arguments from", ", got tensors of")
        )
    return error
