"""The report on runs that are compared: tables, figures and what may be said of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emix._version import __version__
from emix.errors import UsageError
from emix.reading import one_line
from emix.reports import numbers
from emix.reports.absolute import TIMES
from emix.reports.columns import NONE, seeds, steps_to, with_interval
from emix.reports.comparison import Choices, Compared
from emix.reports.document import Document, Heading, Picture, Table, Text
from emix.reports.marl_eval import export
from emix.reports.numbers import LEVEL
from emix.reports.pictures import Profile, draw_improvement, draw_profiles
from emix.reports.published import Published
from emix.reports.records import Gathered, Record, ordered, save, write
from emix.training.plot import LABELS, draw_curves
from emix.training.rows import WON
from emix.training.spread import statistics

PROFILE_POINTS, PROFILE_DRAWS = 101, 2_000
UNEQUAL = 0.9  # runs of one task whose steps differ by more than this ratio are told of


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
    measured = bool(compared.absolutes(compared.records))
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
                        *([_absolute(compared, runs)] if measured else []),
                        *([theirs.text() + mark if theirs else NONE]),
                    ]
                )  # fmt: skip
    head = ["task", "method", "seeds", "steps", "mean ± 95 %", "std", "median", "IQM [95 %]"]
    head += [*(["absolute, mean ± 95 %"] if measured else []), "published"]
    if not sources:
        head, rows = head[:-1], [row[:-1] for row in rows]
    document.blocks += [Heading("Scores at the end"), Table(head, rows, texts=3)]
    for number, source in enumerate(sources, 1):
        document.blocks.append(Text([f"[{number}] {source}"]))
    if unequal:
        document.blocks.append(
            Text([f"Not of equal training, in environment steps: {'; '.join(unequal)}. Compare them with --steps."])
        )

    if compared.unmeasured:
        lines = [f"without the absolute metric: {name}: {why}" for name, why in compared.unmeasured]
        document.blocks.append(Text(lines, items=True))


def _absolute(compared: Compared, runs: Sequence[Record]) -> str:
    """The absolute metric of the runs that have it, and of how many where not all do."""
    values = compared.absolutes(runs)
    some = f" ({len(values)} of {len(runs)} runs)" if len(values) < len(runs) else ""
    return with_interval(values) + some if values else NONE


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
    if compared.absolutes(compared.records):
        lines.append(
            f"absolute: the policy of each run's best test (its win rate, where it has one, else its return; of equal "
            f"tests the later), on {TIMES} times the episodes of a test, which training and tests have not seen "
            f"(Gorsane et al. 2022)."
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
