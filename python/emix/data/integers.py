"""Integers that callers hand in, NumPy's among them, and which of them are seeds. Nothing here imports torch."""

from __future__ import annotations

import operator
from typing import Any

from emix.errors import UsageError

MAX_SEED = (1 << 63) - 1
"""The largest seed that everything takes: NumPy's, torch's and the compiled generators."""


def integer(what: str, value: Any, *, least: int, most: int | None = None) -> int:
    """``value`` as a Python integer.

    Raises:
        UsageError: it is none (2.0 and True are none), or out of range; the message begins with ``what``.
    """
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {_written(most)}"
        raise UsageError(f"{what} must be an integer {bounds}, got {value!r}")
    return number


def check_seed(what: str, value: Any) -> int:
    """``value`` as a seed, from 0 to 2^63 - 1: everywhere the same, so that one that is taken here is taken there.

    Raises:
        UsageError: it is none; the message begins with ``what``.
    """
    return integer(what, value, least=0, most=MAX_SEED)


def _written(number: int) -> str:
    return f"2^{number.bit_length()} - 1" if number >= 1 << 31 and number & (number + 1) == 0 else str(number)
