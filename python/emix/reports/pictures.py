"""Performance profiles and probabilities of improvement, drawn as ``emix plot`` draws its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emix.training.plot import COLOURS, import_matplotlib, line_style, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Profile(NamedTuple):
    """Of a method: the share of its runs above each threshold, and the band, where there is one."""

    share: np.ndarray  # [thresholds]
    band: np.ndarray | None  # [2, thresholds]


class Comparison(NamedTuple):
    """Of two methods: the probability that the first one's run is better, its interval, and what a test says."""

    ours: str
    theirs: str
    probability: float
    interval: np.ndarray | None  # [2]
    p: float
    adjusted: float
    """p for as many pairs as were compared."""


def draw_profiles(thresholds: np.ndarray, profiles: Mapping[str, Profile], label: str, out: Path) -> Path:
    """A line for each method, with its band; return the path of the PNG."""
    figure, axes = _figure(6.4, 4.2)
    styles = {name: line_style(i) for i, name in enumerate(sorted(profiles))}  # as in the curves
    for name, profile in profiles.items():
        colour, dashes = styles[name]
        axes.step(thresholds, profile.share, color=colour, linestyle=dashes, linewidth=1.8, where="post", label=name)
        if profile.band is not None:
            low, high = profile.band
            axes.fill_between(thresholds, low, high, color=colour, alpha=0.2, linewidth=0, step="post")
    axes.set_xlabel(f"{label} τ")
    axes.set_ylabel("share of runs above τ")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, out)


def draw_improvement(pairs: Sequence[Comparison], out: Path) -> Path:
    """A line for each pair, with its interval, about one half; return the path of the PNG."""
    figure, axes = _figure(8.4, 1.1 + 0.45 * len(pairs))
    for row, pair in enumerate(reversed(pairs)):
        if pair.interval is not None:
            axes.plot(pair.interval, [row, row], color=COLOURS[0], linewidth=7, alpha=0.3, solid_capstyle="butt")
        axes.plot(pair.probability, row, "o", color=COLOURS[0], markersize=6)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(pairs)), [f"{pair.ours}\n> {pair.theirs}" for pair in reversed(pairs)], fontsize=8)
    axes.set_ylim(-0.6, len(pairs) - 0.4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("probability of improvement")
    return save_figure(figure, out)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
