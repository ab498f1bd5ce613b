"""Finished runs in the compact form in which they are committed: a line of JSON each.

A page of results is made from these lines, so that whoever doubts a table can make it again without training.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from emix.training import read_rows
from emix.training.settings import read_settings

DIGITS = 4  # of a metric: less than its seeds differ by


@dataclass(frozen=True)
class Record:
    """A finished run.

    Args:
        name: ``Settings.name``, the algorithm with what differs from its recipe.
        env: name of the environment.
        seed: of the run.
        env_steps: that it took.
        seconds: that it took, on one thread of a machine that did other work, too.
        curves: of each metric the environment steps where it was logged, and its values.
    """

    name: str
    env: str
    seed: int
    env_steps: int
    seconds: float
    curves: dict[str, tuple[list[int], list[float]]]

    def curve(self, metric: str) -> np.ndarray:
        """[2, points]: environment steps and values."""
        return np.array(self.curves[metric], dtype=float)


def collect(root: Path, names: Collection[str], metrics: Sequence[str]) -> list[Record]:
    """The finished runs below a folder whose ``Settings.name`` is one of ``names``; of runs without a metric, the
    other metrics."""
    runs = [_record(summary, metrics) for summary in sorted(root.rglob("summary.json"))]
    return [run for run in runs if run.name in names]


def _record(summary: Path, metrics: Sequence[str]) -> Record:
    settings, rows, done = read_settings(summary.parent), read_rows(summary.parent), json.loads(summary.read_text())
    curves = {}
    for metric in metrics:
        points = [(row["env_steps"], float(f"{row[metric]:.{DIGITS}g}")) for row in rows if metric in row]
        if points:
            steps, values = zip(*points, strict=True)
            curves[metric] = (list(steps), list(values))
    return Record(settings.name, settings.env, settings.training.seed, done["env_steps"], done["seconds"], curves)


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """All of them, in a fixed order; a run that was made again replaces the old one."""
    runs = {(run.env, run.name, run.seed): run for run in (*old, *new)}
    return [runs[key] for key in sorted(runs)]


def read(path: Path) -> list[Record]:
    """Of a file that :func:`write` wrote; none where there is no such file."""
    if not path.exists():
        return []
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()]


def write(records: Sequence[Record], path: Path) -> None:
    """A line for each."""
    path.write_text("".join(json.dumps(asdict(run), separators=(",", ":")) + "\n" for run in records))
