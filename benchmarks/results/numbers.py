"""What tables say of several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.results.records import Record

from emix.training.spread import statistics

TESTS_AT_THE_END = 5


def at_the_end(run: Record, metric: str) -> float:
    """The mean of the last five tests: one of 100 episodes is noise."""
    return float(run.curve(metric)[1, -TESTS_AT_THE_END:].mean())


def over_all(run: Record, metric: str) -> float:
    """The mean of all tests, which is the area under the curve over its length: who learns sooner has more."""
    return float(run.curve(metric)[1].mean())


def with_interval(runs: Sequence[Record], value: Callable[[Record], float], digits: int = 2) -> str:
    """The mean, and half the width of its 95 % interval where there are several runs."""
    spread = statistics([value(run) for run in runs])
    width = "" if spread["ci95"] is None else f" ± {spread['ci95']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{width}"


def seeds(runs: Sequence[Record]) -> str:
    """Their numbers."""
    return ", ".join(str(seed) for seed in sorted(run.seed for run in runs))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
