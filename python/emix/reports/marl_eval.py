"""The records as marl-eval reads them (Gorsane et al., "Towards a standardised performance evaluation protocol for
cooperative MARL", 2022): ``{env: {task: {algorithm: {run: {step_i: {step_count, metric: [values]}}}}}}``.

Its aggregates need as many points of every run, so that curves that are longer than others lose their last points. Its
absolute metrics (:mod:`emix.reports.absolute`) are there where all runs have them; without them its aggregates over
tasks refuse the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emix.reports.records import Record
from emix.training.rows import RETURN, WON

NAMES = {RETURN: "mean_episode_return", WON: "win_rate"}


def export(records: Sequence[Record], titles: Mapping[str, str], metrics: Sequence[str]) -> dict[str, Any]:
    """The first metric, which all records have, and those that all have at the same steps, under marl-eval's names. A
    name of an algorithm has no comma there.

    Args:
        records: to export.
        titles: of runs' names; a run of another name is called by it.
        metrics: to export.
    """
    first = metrics[0]
    metrics = [metric for metric in metrics if all(_at_steps_of(run, first, metric) for run in records)]
    points = min(len(run.curves[first][0]) for run in records)
    absolute = all(run.absolute is not None and set(metrics) <= set(run.absolute.values) for run in records)
    content: dict[str, Any] = {}
    for run in records:
        env, _, task = run.env.partition("/")
        title = titles.get(run.name, run.name).replace(",", ";")
        runs = content.setdefault(env, {}).setdefault(task or env, {}).setdefault(title, {})
        runs[f"seed_{run.seed}"] = _run(run, metrics, points)
        if absolute and run.absolute is not None:
            values = {NAMES.get(metric, metric): [run.absolute.values[metric]] for metric in metrics}
            runs[f"seed_{run.seed}"]["absolute_metrics"] = values
    return content


def _at_steps_of(run: Record, first: str, metric: str) -> bool:
    return metric in run.curves and list(run.curves[metric][0]) == list(run.curves[first][0])


def _run(run: Record, metrics: Sequence[str], points: int) -> dict[str, Any]:
    steps = run.curves[metrics[0]][0][:points]
    values = {NAMES.get(metric, metric): run.curves[metric][1] for metric in metrics}
    return {
        f"step_{i}": {"step_count": step, **{name: [each[i]] for name, each in values.items()}}
        for i, step in enumerate(steps)
    }
