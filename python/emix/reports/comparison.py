"""Runs compared: tables, figures and what may be said of them, as :func:`report` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path

import numpy as np

from emix._version import __version__
from emix.errors import UsageError
from emix.reading import one_line
from emix.reports import numbers
from emix.reports.columns import NONE, seeds, steps_to, with_interval
from emix.reports.document import Document, Heading, Picture, Table, Text
from emix.reports.marl_eval import export
from emix.reports.numbers import LEVEL
from emix.reports.pictures import Comparison, Profile, draw_improvement, draw_profiles
from emix.reports.published import Published
from emix.reports.records import RETURN, WON, Gathered, Record, ordered, save, write
from emix.training.plot import LABELS, draw_curves
from emix.training.spread import statistics

ALL_PAIRS = 5  # methods, of more only those pairs are compared that have the baseline
PROFILE_POINTS, PROFILE_DRAWS = 101, 2_000
UNEQUAL = 0.9  # runs of one task whose steps differ by more than this ratio are told of


@dataclass(frozen=True)
class Choices:
    """How runs are compared.

    Args:
        metric: of the runs; None: the test win rate where every run has it, else the test return.
        tests: at the end, whose mean is a run's score, and in a row, whose mean has to stay at the threshold.
        steps: look at the curves up to so many environment steps only.
        threshold: to be sustained; None: 0.9 of a win rate, none of other metrics.
        bounds: by patterns of environments' names, what scores of 0 and 1 are; win rates are what they are.
        baseline: the title of the method that the others are compared with where they are many; None: the first.
        titles: of runs' names.
        order: of titles in tables and figures.
    """

    metric: str | None = None
    tests: int = numbers.TESTS_AT_THE_END
    steps: int | None = None
    threshold: float | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    baseline: str | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()


class Compared:
    """Runs by task and by what their method is called, with their curves and scores.

    Raises:
        UsageError: there is none with the metric, or two of one method, task and seed.
    """

    def __init__(self, gathered: Gathered, choices: Choices) -> None:
        self.choices, self.left_out = choices, list(gathered.left_out)
        records = gathered.records
        won = bool(records) and all(WON in run.curves for run in records)
        self.metric = choices.metric or (WON if won else RETURN)
        self.records = [run for run in records if self.metric in run.curves]
        for run in records:
            if self.metric not in run.curves:
                known = one_line(", ".join(run.curves), 200) or "no metric"
                self.left_out.append((str(run), f"it has no metric {self.metric}: it has {known}"))
        if not self.records:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out[:3])
            raise UsageError(f"there is no finished run with {self.metric} to report on: {reasons or 'none was given'}")
        self.titles = ordered({self.title(run) for run in self.records}, choices.order)
        self.tasks = sorted({run.env for run in self.records})
        self.threshold = 0.9 if choices.threshold is None and self.metric == WON else choices.threshold
        seen: dict[tuple[str, str, int], Record] = {}
        for run in self.records:
            other = seen.setdefault((run.env, self.title(run), run.seed), run)
            if other is not run:
                raise UsageError(f"{run} and {other} are both called {self.title(run)}: report on them apart")

    def title(self, run: Record) -> str:
        """What a run's method is called."""
        return self.choices.titles.get(run.name, run.name)

    def runs(self, title: str, task: str) -> list[Record]:
        """Those of a method on a task, by their seeds."""
        return [run for run in self.records if (self.title(run), run.env) == (title, task)]

    def curve(self, run: Record) -> np.ndarray:
        """[2, points]: of the metric, as far as it is looked at."""
        curve = run.curve(self.metric)
        return curve if self.choices.steps is None else numbers.up_to(curve, self.choices.steps)

    def scores(self, title: str, tasks: Sequence[str], *, scaled: bool = False) -> list[np.ndarray]:
        """Of each task those of the method's runs, ``[runs]``; ``scaled`` to the bounds."""
        found = []
        for task in tasks:
            low, high = (self.bounds(task) or (0.0, 1.0)) if scaled else (0.0, 1.0)
            ends = [numbers.at_the_end(self.curve(run), self.choices.tests) for run in self.runs(title, task)]
            found.append((np.array(ends) - low) / (high - low))
        return found

    def bounds(self, task: str) -> tuple[float, float] | None:
        """What scores of 0 and 1 are on a task; None where nobody has said so."""
        for pattern, bounds in self.choices.bounds.items():
            if fnmatchcase(task, pattern):
                return bounds
        return (0.0, 1.0) if self.metric == WON else None

    def shared(self, titles: Sequence[str]) -> list[str]:
        """The tasks on which all these methods have runs."""
        return [task for task in self.tasks if all(self.runs(title, task) for title in titles)]

    def pairs(self) -> list[Comparison]:
        """Every pair of methods that have tasks in common, or each method beside the baseline where they are many."""
        titles, found = self.titles, []
        asked = list(combinations(titles, 2))
        if len(titles) > ALL_PAIRS:
            baseline = self.choices.baseline or titles[0]
            asked = [(baseline, title) for title in titles if title != baseline]
        for ours, theirs in asked:
            tasks = self.shared([ours, theirs])
            if tasks:
                x, y = self.scores(ours, tasks), self.scores(theirs, tasks)
                interval = numbers.improvement_interval(x, y)
                found.append((ours, theirs, numbers.improvement(x, y), interval, numbers.permutation_p(x, y)))
        adjusted = numbers.holm([pair[-1] for pair in found])
        return [Comparison(*pair, p) for pair, p in zip(found, adjusted, strict=True)]


def report(
    gathered: Gathered, out: Path, title: str, choices: Choices, published: Published, notes: Sequence[str] = ()
) -> Document:
    """Write ``report.md``, ``report.html``, the pictures, ``records.jsonl`` and ``marl-eval.json`` into a folder.

    Args:
        gathered: the runs.
        out: the folder, made where missing.
        title: of the report.
        choices: how they are compared.
        published: figures to put beside them.
        notes: what else is to be said, at the start.

    Raises:
        UsageError: there is nothing to compare, or the folder cannot be written.
    """
    compared = Compared(gathered, choices)
    if choices.baseline not in (None, *compared.titles):
        raise UsageError(f"no run is of the baseline {choices.baseline!r}: expected {', '.join(compared.titles)}")
    write(gathered.records, out / "records.jsonl")
    metrics = ordered({name for run in compared.records for name in run.curves}, [compared.metric])
    exported = export(compared.records, choices.titles, metrics)
    save(out / "marl-eval.json", json.dumps(exported, indent=1).encode() + b"\n")
    document = Document(title)
    document.blocks += [Text([note]) for note in (_what(compared), *notes)]
    for part in (_scores, _learning, _overall, _improvement, _left_out):
        part(compared, published, out, document)
    document.blocks += [Heading("How to read it"), Text(_explanations(compared), items=True)]
    save(out / "report.md", document.markdown().encode())
    save(out / "report.html", document.html().encode())
    return document


def _what(compared: Compared) -> str:
    runs = compared.records
    text = (
        f"{len(runs)} finished runs of {len(compared.titles)} methods on {len(compared.tasks)} tasks, made by emix "
        f"{__version__}; the metric is {compared.metric}. A run's score is the mean of its last "
        f"{compared.choices.tests} tests"
    )
    return text + (f" up to {compared.choices.steps:,} environment steps." if compared.choices.steps else ".")


def _scores(compared: Compared, published: Published, out: Path, document: Document) -> None:
    """Of each task and method the scores at the end, beside what was published."""
    rows, sources, unequal = [], [], []
    for task in compared.tasks:
        lengths = [compared.curve(run)[0, -1] for title in compared.titles for run in compared.runs(title, task)]
        if min(lengths) < UNEQUAL * max(lengths):
            unequal.append(f"{task}: {min(lengths):,.0f} to {max(lengths):,.0f}")
        for title in compared.titles:
            if runs := compared.runs(title, task):
                scores = compared.scores(title, [task])
                spread = statistics(scores[0].tolist())
                theirs = published.find(task, runs[0].name, title, compared.metric)
                if theirs and theirs.source not in sources:
                    sources.append(theirs.source)
                mark = f" [{sources.index(theirs.source) + 1}]" if theirs else ""
                rows.append(
                    [
                        task, title, seeds(runs), f"{max(compared.curve(run)[0, -1] for run in runs):,.0f}",
                        with_interval(scores[0].tolist()), _number(spread["std"]), _number(spread["median"]),
                        _interval(float(numbers.value(scores, numbers.iqm)), numbers.bootstrap(scores, numbers.iqm)),
                        *([theirs.text() + mark if theirs else NONE]),
                    ]
                )  # fmt: skip
    head = ["task", "method", "seeds", "steps", "mean ± 95 %", "std", "median", "IQM [95 %]", "published"]
    if not sources:
        head, rows = head[:-1], [row[:-1] for row in rows]
    document.blocks += [Heading("Scores at the end"), Table(head, rows, texts=3)]
    for number, source in enumerate(sources, 1):
        document.blocks.append(Text([f"[{number}] {source}"]))
    if unequal:
        document.blocks.append(
            Text([f"Not of equal training, in environment steps: {'; '.join(unequal)}. Compare them with --steps."])
        )


def _learning(compared: Compared, published: Published, out: Path, document: Document) -> None:
    """Areas under the curves, sustained thresholds, and the curves themselves."""
    rows = []
    for task in compared.tasks:
        for title in compared.titles:
            if runs := compared.runs(title, task):
                areas = [numbers.area(compared.curve(run)) for run in runs]
                row = [task, title, with_interval(areas)]
                if compared.threshold is not None:
                    curves = [compared.curve(run) for run in runs]
                    row.append(steps_to(curves, compared.threshold, compared.choices.tests))
                rows.append(row)
    head = ["task", "method", "area under the curve, mean ± 95 %"]
    if compared.threshold is not None:
        head.append(f"stays at {compared.threshold:g}: runs, and from which step")
    panels = {
        task: {
            title: [compared.curve(run) for run in compared.runs(title, task)]
            for title in compared.titles
            if compared.runs(title, task)
        }
        for task in compared.tasks
    }
    picture = draw_curves(panels, _label(compared), out / "curves.png")
    caption = f"{_label(compared)} over environment steps: means of the seeds, and their 95 % intervals (Student)"
    document.blocks += [Heading("Learning"), Table(head, rows, texts=2), Picture(picture, caption)]


def _overall(compared: Compared, published: Published, out: Path, document: Document) -> None:
    """Aggregates over the tasks that all methods have runs on, and performance profiles."""
    tasks = compared.shared(compared.titles)
    unbounded = [task for task in tasks if compared.bounds(task) is None]
    if not tasks or len(compared.tasks) == 1:
        if not tasks:
            text = "No task has runs of all methods, so that there are no aggregates over tasks."
            document.blocks += [Heading("Over all tasks"), Text([text])]
        return
    document.blocks.append(Heading("Over all tasks"))
    if unbounded:
        text = (
            f"No aggregates: what scores of 0 and 1 are on {one_line(', '.join(unbounded), 200)} is not said "
            f"(--bounds '{unbounded[0]}=LOW,HIGH')."
        )
        document.blocks.append(Text([text]))
        return
    rows, profiles = [], {}
    scores = {title: compared.scores(title, tasks, scaled=True) for title in compared.titles}
    every = np.concatenate([task for method in scores.values() for task in method])
    low, high = min(0.0, every.min()), max(1.0, every.max())
    thresholds = np.linspace(low, high, PROFILE_POINTS)
    for title, method in scores.items():
        iqm, mean = (
            _interval(float(numbers.value(method, statistic)), numbers.bootstrap(method, statistic))
            for statistic in (numbers.iqm, numbers.mean)
        )
        rows.append([title, str(sum(map(len, method))), iqm, mean])
        share = numbers.profile(thresholds)
        band = numbers.bootstrap(method, share, draws=PROFILE_DRAWS)
        profiles[title] = Profile(numbers.value(method, share), band)
    missing = [task for task in compared.tasks if task not in tasks]
    if missing:
        text = f"Of {len(tasks)} tasks; not all methods have runs on {one_line(', '.join(missing), 200)}."
        document.blocks.append(Text([text]))
    label = _label(compared) if compared.metric == WON else "normalised score"
    picture = draw_profiles(thresholds, profiles, label, out / "profiles.png")
    caption = "performance profiles, with 95 % bands where every task has several runs"
    head = ["method", "runs", "IQM [95 %]", "mean [95 %]"]
    document.blocks += [Table(head, rows), Picture(picture, caption)]


def _improvement(compared: Compared, published: Published, out: Path, document: Document) -> None:
    """How sure it is that one method is better than another."""
    pairs = compared.pairs()
    if not pairs:
        return
    rows = [
        [
            pair.ours, pair.theirs, str(len(compared.shared([pair.ours, pair.theirs]))),
            _interval(pair.probability, pair.interval), f"{pair.p:.3f}", f"{pair.adjusted:.3f}",
            "cannot be told apart" if pair.adjusted >= LEVEL
            else f"{pair.ours if pair.probability > 0.5 else pair.theirs} is better",
        ]
        for pair in pairs
    ]  # fmt: skip
    head = ["first", "second", "tasks", "P(first > second) [95 %]", "p", "p (Holm)", f"at p < {LEVEL:g}"]
    picture = draw_improvement(pairs, out / "improvement.png")
    caption = "probability of improvement, with 95 % intervals where every task has several runs of both"
    document.blocks += [Heading("Probability of improvement"), Table(head, rows, texts=2), Picture(picture, caption)]


def _left_out(compared: Compared, published: Published, out: Path, document: Document) -> None:
    if compared.left_out:
        lines = [f"{name}: {why}" for name, why in compared.left_out]
        document.blocks += [Heading("Left out"), Text(lines, items=True)]


def _explanations(compared: Compared) -> list[str]:
    fewest = min(len(compared.runs(compared.title(run), run.env)) for run in compared.records)
    lines = [
        "mean ± 95 %: half the width of Student's interval of the mean over seeds. A single run has none.",
        "IQM [95 %]: interquartile mean, without the floor(n / 4) lowest and highest scores, and percentiles of 50,000 "
        "bootstrap draws, stratified over tasks. Of fewer than some ten runs such an interval is too narrow, and "
        "Student's is the one to read.",
        "area under the curve: by trapezoids, over the curve's length: the mean over the training.",
        "P(first > second): the probability that a run of the first has a higher score than one of the second on the "
        "same task, equal scores counting half. p: two-sided, of a permutation test within the tasks; p (Holm): "
        "adjusted for the number of pairs. Of three runs against three on one task no result is below about 0.1.",
    ]
    if compared.threshold is not None:
        lines.append(
            f"stays at {compared.threshold:g}: the mean of {compared.choices.tests} tests in a row is at least that, "
            f"from that step to the end. Where three or more stay there: the median over all runs, where it is one of "
            f"those steps, and the range."
        )
    if fewest == 1:
        lines.append("Some methods have a single run on a task: nothing is known of how far their seeds lie apart.")
    return lines


def _label(compared: Compared) -> str:
    return LABELS.get(compared.metric, compared.metric.replace("_", " "))


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _interval(value: float, interval: np.ndarray | None) -> str:
    return f"{value:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")
