"""The rows of a run's metrics, read within bounds; without torch, so that a picture need not wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emix.errors import UsageError
from emix.reading import MIB, expect_keys, parse_json, read_bytes, short

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
WON, RETURN = "test_battle_won_mean", "test_return_mean"  # what decides which test is the best
MOST_METRICS = 256 * MIB  # some 300,000 rows
_TAIL = 64 << 10


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``; a last line that is still being written is left out.

    Raises:
        UsageError: the file cannot be read, is larger than any run makes it, or a line is not what a run writes.
    """
    return _parse(folder / METRICS, read_bytes(folder / METRICS, most=MOST_METRICS), first=1)


def read_last_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the last 64 KiB of ``metrics.jsonl``, none where there is none; see ``read_rows``."""
    path = folder / METRICS
    if not path.is_file():
        return []
    start = max(0, path.stat().st_size - _TAIL)
    data = read_bytes(path, most=2 * _TAIL, offset=start)  # it may grow meanwhile
    return _parse(path, data[data.find(b"\n") + 1 :] if start else data, first=None)


def _parse(path: Path, data: bytes, first: int | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    steps = 0
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=first or 1):
        problem = f"{path} is damaged, line {number}" if first else f"{path} is damaged near its end"
        row = expect_keys(parse_json(line, problem), {"env_steps": int}, problem)
        for name, value in row.items():
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)) or _huge(value):
                raise UsageError(f"{problem}: {short(name)} expects a number or null, got {short(value)}")
        if row["env_steps"] < steps:
            raise UsageError(f"{problem}: {row['env_steps']} steps come after {steps}, as if two processes wrote it")
        steps = row["env_steps"]
        rows.append(row)
    return rows


def _huge(value: float | None) -> bool:
    """Whether a number is too large to be drawn and averaged."""
    return value is not None and not abs(value) <= 1e300
