"""``emix report RUN...``: runs compared, with intervals; ``--page``: a page of results made from its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import Imports, read_command_line
from emix.errors import UsageError
from emix.plugins import import_named
from emix.reading import one_line, path_of
from emix.reports.absolute import Absolute, absolute
from emix.reports.comparison import Choices
from emix.reports.numbers import TESTS_AT_THE_END
from emix.reports.page import read_page
from emix.reports.published import Published, published
from emix.reports.records import Record, gather, is_test_metric, merge, read, without_old_rules, write
from emix.reports.report import report

EXAMPLE = "`emix report runs --out report`"


@dataclass(frozen=True)
class Report:
    """Compare finished runs: scores and areas with intervals, sustained thresholds,
    performance profiles, probabilities of improvement.

    Writes report.md, report.html (one file), pictures, marl-eval.json and
    records.jsonl, from which the same report can be made without the runs.
    """

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")] = ()
    """Folders of runs, folders with runs below them, or files of records (.jsonl)."""
    out: Path = Path("report")
    """The folder to write."""
    metric: str | None = None
    """A name of metrics.jsonl; by default the test win rate where every run has one, else the test return."""
    tests: int = TESTS_AT_THE_END
    """A run's score is the mean of its last so many tests; as many in a row have to stay at the threshold."""
    steps: int | None = None
    """Look at the runs up to so many environment steps only."""
    threshold: float | None = None
    """To be sustained; by default 0.9 of a win rate, none of other metrics."""
    bounds: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="ENV=LOW,HIGH")] = ()
    """What counts as 0 and 1 on environments of a pattern, to average over tasks: foraging/*=0,1; may be repeated."""
    baseline: str | None = None
    """The method that the others are compared with where there are more than five; by default the first."""
    absolute: bool = False
    """Also test each run's best policy on ten times the episodes of a test, once: its folder keeps the result."""
    collect: Path | None = None
    """Take the runs into this file of records (.jsonl), too."""
    page: Path | None = None
    """Take the runs, if any, into the records of this page (docs/results/perla.yaml), and make its tables and pictures
    anew, in place of a report."""
    imports: Imports = ()
    """Module or .py file that a run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Report, arguments, "report")
    import_named(chosen.imports)
    if chosen.page is not None:
        return _remake(path_of(chosen.page), chosen.runs)
    if not chosen.runs:
        raise UsageError(f"emix report expects the folder of at least one run, or --page, such as {EXAMPLE}")
    for name, number in (("tests", chosen.tests), ("steps", chosen.steps)):
        if number is not None and number < 1:
            raise UsageError(f"--{name} expects at least 1, got {number}")
    if chosen.absolute and chosen.steps is not None:
        raise UsageError("--absolute is of whole runs: leave out --steps")
    measure = _measure if chosen.absolute else None
    found = gather(chosen.runs, lambda name: is_test_metric(name) or name == chosen.metric, measure)
    if chosen.collect is not None:
        path = path_of(chosen.collect)
        write(without_old_rules(merge(read(path), found.records)).records, path)
    choices = Choices(
        metric=chosen.metric,
        tests=chosen.tests,
        steps=chosen.steps,
        threshold=chosen.threshold,
        bounds=dict(map(_bounds, chosen.bounds)),
        baseline=chosen.baseline,
    )
    out = path_of(chosen.out)
    report(found, out, "Runs compared", choices, Published(list(published().values())))
    tell(out, [*found.left_out, *((f"of {name}, the absolute metric", why) for name, why in found.unmeasured)])
    return 0


def tell(out: Path, left_out: Sequence[tuple[str, str]]) -> None:
    """Print what was left out, and where the report is."""
    for name, why in left_out:
        print(f"left out: {name}: {one_line(why)}")
    print(f"report: {out / 'report.md'} and {out / 'report.html'}")


def _measure(folder: Path, run: Record) -> Absolute:
    found = absolute(folder)
    print(f"absolute: {run}: the best policy, of {found.env_steps:,} steps, on {found.episodes} episodes", flush=True)
    return found


def _remake(path: Path, runs: Sequence[Path]) -> int:
    page = read_page(path)
    if runs:
        count, left_out = page.collect(runs)
        for name, why in left_out:
            print(f"left out: {name}: {one_line(why)}")
        print(f"{count} finished runs taken in; the page has {len(page.records)}")
    page.draw()
    print(path.with_suffix(".md"))
    return 0


def _bounds(text: str) -> tuple[str, tuple[float, float]]:
    """``"foraging/*=0,1"`` as its parts."""
    pattern, _, values = text.rpartition("=")
    try:
        low, high = map(float, values.split(","))
    except ValueError:
        low = high = 0.0
    if not pattern or not low < high < float("inf") or low == -float("inf"):
        raise UsageError(f"--bounds expects ENV=LOW,HIGH, such as 'foraging/*=0,1', got {text!r}")
    return pattern, (low, high)
