"""Hyperparameters, checked. No configuration imports torch, which ``emix train --help`` would wait for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from emix.errors import UsageError
from emix.learners.plan import MOST_WHOLE
from emix.reading import short


def check_fields(
    config: Any,
    *,
    choices: Mapping[str, tuple[Any, ...]],
    fractions: Collection[str],
    not_negative: Collection[str] = (),
    signed: Collection[str] = (),
) -> None:
    """Check a dataclass of hyperparameters against the types of its defaults.

    Args:
        config: the instance.
        choices: the values that a field may have.
        fractions: fields from 0 to 1.
        not_negative: fields from 0 up.
        signed: fields that may be any number. Every other number must be above 0, those of a tuple, too; where the
            default is None, it may be None.

    Raises:
        UsageError: a value is of the wrong type or out of range.
    """
    for field in fields(config):
        value: Any = getattr(config, field.name)
        if is_dataclass(field.default):  # which checks itself
            if type(value) is not type(field.default):
                raise UsageError(f"{field.name}: expected a {type(field.default).__name__}, got {value!r}")
        elif isinstance(field.default, tuple):
            _check_numbers(field.name, value)
        elif value is not None or field.default is not None:
            _check_value(field.name, value, 0.5 if field.default is None else field.default, choices)
            if field.name in signed:
                if not math.isfinite(value):
                    raise UsageError(f"{field.name}: expected a finite number, got {value!r}")
            elif not isinstance(value, str | bool):
                _check_range(field.name, value, field.name in fractions, field.name in not_negative)


def _check_numbers(name: str, values: Any) -> None:
    fits = isinstance(values, tuple) and all(type(each) in (int, float) and each > 0 for each in values)
    if not fits:
        raise UsageError(f"{name}: expected numbers above 0, got {values!r}")


def _check_value(name: str, value: Any, default: Any, choices: Mapping[str, tuple[Any, ...]]) -> None:
    numbers = (int, float) if isinstance(default, float) else type(default)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, numbers):
        raise UsageError(f"{name}: expected a value like {default!r}, got {value!r}")
    if name in choices and value not in choices[name]:
        raise UsageError(f"{name}: expected one of {', '.join(map(str, choices[name]))}, got {value!r}")


def _check_range(name: str, value: float, fraction: bool, not_negative: bool) -> None:
    if isinstance(value, int) and value > MOST_WHOLE:
        raise UsageError(f"{name}: expected at most {MOST_WHOLE:,}, got {short(value)}")
    if fraction:
        if not 0 <= value <= 1:
            raise UsageError(f"{name}: expected a number from 0 to 1, got {value!r}")
    elif not_negative:
        if not value >= 0:
            raise UsageError(f"{name}: expected 0 or a number above it, got {value!r}")
    elif not value > 0:
        raise UsageError(f"{name}: expected a number above 0, got {value!r}")
