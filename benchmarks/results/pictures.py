"""Curves of records, as ``emix plot`` draws those of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.results.records import Record

from emix.training.plot import draw_curves


def curves(records: Sequence[Record], lines: Mapping[str, Sequence[tuple[str, str]]], label: str, out: Path) -> None:
    """A panel for each environment; ``lines`` says of each configuration's name which lines of which metrics it is."""
    panels: dict[str, dict[str, list[np.ndarray]]] = {}
    for run in records:
        for line, metric in lines.get(run.name, ()):
            if metric in run.curves:
                panels.setdefault(run.env, {}).setdefault(line, []).append(run.curve(metric))
    if panels:
        draw_curves(panels, label, out)
