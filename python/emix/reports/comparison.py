"""Runs compared: by task and by method, with their curves and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import combinations

import numpy as np

from emix.errors import UsageError
from emix.reading import one_line
from emix.reports import numbers
from emix.reports.pictures import Comparison
from emix.reports.records import Gathered, Record, ordered
from emix.training.rows import RETURN, WON

ALL_PAIRS = 5  # methods, of more only those pairs are compared that have the baseline


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
        self.choices, self.left_out, self.unmeasured = choices, list(gathered.left_out), gathered.unmeasured
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

    def absolutes(self, runs: Sequence[Record]) -> list[float]:
        """What the best policies of runs have shown of the metric, of those of which it is known. The best of a whole
        run says nothing of its curve up to some step."""
        if self.choices.steps is not None:
            return []
        values = [run.absolute.values.get(self.metric) for run in runs if run.absolute is not None]
        return [value for value in values if value is not None]

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
