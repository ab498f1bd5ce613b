"""What a column of a table says of several runs of one method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emix.errors import UsageError
from emix.reading import short
from emix.reports.numbers import TESTS_AT_THE_END, area, at_the_end, sustained
from emix.reports.published import Published, published
from emix.reports.records import Record
from emix.training.spread import statistics

NONE = "-"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        kind: a key of :data:`KINDS`.
        title: its head.
        metric: that it is about.
        digits: after the point.
        limit: what the metric is compared with.
    """

    kind: str
    title: str
    metric: str = ""
    digits: int = 2
    limit: float = 0.0

    def text(self, runs: Sequence[Record]) -> str:
        """The cell for these runs; of those that lack the metric nothing is said."""
        if self.metric:
            runs = [run for run in runs if self.metric in run.curves]
        return KINDS[self.kind](self, runs) if runs else NONE


def make_column(values: Mapping[str, Any], problem: str) -> Column:
    """The column that a page describes.

    Raises:
        UsageError: a field is missing, unknown or of another kind; the message begins with ``problem``.
    """
    known = {field.name for field in fields(Column)}
    if not isinstance(values, Mapping) or not {"kind", "title"} <= set(values) <= known:
        raise UsageError(f"{problem}: a column expects kind, title, and some of metric, digits, limit: {short(values)}")
    if values["kind"] not in KINDS:
        raise UsageError(f"{problem}: unknown kind of column {short(values['kind'])}: expected {', '.join(KINDS)}")
    return Column(**values)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def with_interval(values: Sequence[float], digits: int = 2) -> str:
    """The mean, and half the width of its 95 % interval (Student) where there are several."""
    spread = statistics(values)
    width = "" if spread["ci95"] is None else f" ± {spread['ci95']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{width}"


def seeds(runs: Sequence[Record]) -> str:
    """Their numbers."""
    return ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))


def steps_to(curves: Sequence[np.ndarray], threshold: float, tests: int) -> str:
    """How many curves stay at a threshold, and from which step on: the range of those that do, and of three or more the
    median over all, in which those that do not are later than all others."""
    found = [sustained(curve, threshold, tests) for curve in curves]
    reached = sorted(step for step in found if step is not None)
    count = f"{len(reached)} of {len(curves)}"
    if not reached:
        return count
    ends = f"{reached[0]:,.0f}" if reached[0] == reached[-1] else f"{reached[0]:,.0f} to {reached[-1]:,.0f}"
    median = np.median(reached + [np.inf] * (len(curves) - len(reached)))
    return (
        f"{count}: {median:,.0f} ({ends})"
        if len(reached) > 2 and np.isfinite(median) and len(set(reached)) > 1
        else f"{count}: {ends}"
    )


def _of_each(value: Callable[[np.ndarray], float]) -> Callable[[Column, Sequence[Record]], str]:
    return lambda column, runs: with_interval([value(run.curve(column.metric)) for run in runs], column.digits)


def _count(holds: Callable[[np.ndarray, float], bool]) -> Callable[[Column, Sequence[Record]], str]:
    return lambda column, runs: str(sum(bool(holds(run.curve(column.metric), column.limit)) for run in runs))


def _sustained(column: Column, runs: Sequence[Record]) -> str:
    return steps_to([run.curve(column.metric) for run in runs], column.limit, TESTS_AT_THE_END)


def _published(column: Column, runs: Sequence[Record]) -> str:
    """What a paper has of this method, known by its run's name, on this task."""
    if len({(run.env, run.name) for run in runs}) > 1:
        return NONE
    figure = Published(list(published().values())).find(runs[0].env, runs[0].name, runs[0].name, column.metric)
    return NONE if figure is None else figure.text()


def _sum(curve: np.ndarray) -> float:
    """Values times the steps that they were logged for."""
    return float((np.diff(curve[0], prepend=0) * curve[1]).sum())


KINDS: dict[str, Callable[[Column, Sequence[Record]], str]] = {
    "seeds": lambda column, runs: seeds(runs),
    "runs": lambda column, runs: str(len(runs)),
    "steps": lambda column, runs: f"{max(run.env_steps for run in runs):,}",
    "minutes": lambda column, runs: f"{sum(run.seconds for run in runs) / len(runs) / 60:.1f}",
    "area": _of_each(area),
    "end": _of_each(at_the_end),
    "sum": _of_each(_sum),
    "sustained": _sustained,
    "published": _published,
    "ends_below": _count(lambda curve, limit: at_the_end(curve) < limit),
    "last_above": _count(lambda curve, limit: curve[1, -1] > limit),
    "ever_above": _count(lambda curve, limit: (curve[1] > limit).any()),
}
