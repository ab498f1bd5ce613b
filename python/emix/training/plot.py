"""Learning curves: one line per configuration, with a band over its seeds, one panel per environment."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emix.errors import UsageError
from emix.reading import one_line, path_of, short
from emix.training.files import replace_file
from emix.training.rows import METRICS, read_rows
from emix.training.settings import find_runs, read_settings
from emix.training.spread import Interval, band_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDEST = 3  # panels in a row
MOST_INSIDE, LONGEST_INSIDE = 3, 40  # lines, and letters of the longest name, whose legend lies in the panel
LONGEST_IN_COLUMNS = 54  # letters of a name in the legend below it, two of which fit side by side
MARKERS = "os^DvPX*<"  # not as many as colours, so that a colour that comes again has another mark
MARKS = 8  # on a line, where several lines may cover each other
FORMATS = ("png", "pdf", "svg", "jpg", "eps")
SHOWN: dict[Interval, str] = {"95": "mean, 95 % interval", "iqm": "IQM, quartiles", "std": "mean, std"}
LABELS = {
    "test_return_mean": "test return",
    "test_battle_won_mean": "test win rate",
    "critic_grad_norm": "norm of the critics' gradient",
}


def plot_runs(folders: Sequence[Path], out: Path, *, metric: str | None = None, interval: Interval = "95") -> Path:
    """Draw a metric over environment steps, and return the path of the picture.

    Runs of one ``Settings.name`` on one environment are one line with a band, over its seeds: see
    :func:`~emix.training.spread.band_curve`. It ends where the shortest of them does.

    Args:
        folders: of runs, or above runs.
        out: file to write; its name ends in png, pdf, svg, jpg or eps, and anything else becomes a PNG.
        metric: a name of metrics.jsonl; by default ``test_battle_won_mean`` where every run has it, else
            ``test_return_mean``. What is logged of each agent, ``target_entropy_0`` and so on, is drawn of all of them
            where it is named without the number: a line for each agent.
        interval: "95", "iqm" or "std".

    Raises:
        UsageError: a folder holds no run, a run has no such metric, or ``out`` cannot be written.
    """
    if interval not in SHOWN:
        raise UsageError(f"interval expects {', '.join(SHOWN)}, got {short(interval)}")
    folders, out = [run for folder in folders for run in _runs(path_of(folder))], path_of(out)
    rows = {folder: read_rows(folder) for folder in folders}
    if metric is None:
        won = all(any("test_battle_won_mean" in row for row in run) for run in rows.values())
        metric = "test_battle_won_mean" if won else "test_return_mean"
    runs = {folder: read_settings(folder) for folder in folders}
    versions = {(run.env, run.env_rules) for run in runs.values()}
    panels: dict[str, dict[str, list[np.ndarray]]] = {}
    for folder, settings in runs.items():
        lines = panels.setdefault(settings.env, {})
        several = sum(env == settings.env for env, _ in versions) > 1
        rules = f", rules {settings.env_rules}" if several else ""  # games of their own
        for ending, name in _agents(rows[folder], metric):
            lines.setdefault(settings.name + rules + ending, []).append(_curve(folder, rows[folder], name))
    return draw_curves(panels, label_of(metric), out, interval=interval)


def label_of(metric: str) -> str:
    """What an axis calls a metric."""
    return LABELS.get(metric, metric.replace("_", " "))


def _runs(folder: Path) -> list[Path]:
    """Of a folder above runs those that have logged something."""
    found = [run for run in find_runs(folder) if run == folder or (run / METRICS).exists()]
    if not found or not (found[0] / METRICS).exists():
        raise UsageError(f"{folder} holds no run: expected a folder with {METRICS}, as `emix train` makes it")
    return found


def _agents(rows: list[dict[str, float]], metric: str) -> list[tuple[str, str]]:
    """How the labels of a metric's lines end, and the names they have in the rows."""
    names = {name for row in rows for name in row}
    numbers = [k for k in range(len(names)) if f"{metric}_{k}" in names]
    if metric in names or not numbers:
        return [("", metric)]
    return [(f", agent {k}", f"{metric}_{k}") for k in numbers]


def _curve(folder: Path, rows: list[dict[str, float]], metric: str) -> np.ndarray:
    """[2, points]: environment steps and the metric, where it was logged."""
    points = [(row["env_steps"], row[metric]) for row in rows if row.get(metric) is not None]
    if not points:
        names = sorted({name for row in rows for name in row} - {"env_steps"})
        known = one_line(", ".join(names), 1000) or "none yet"
        raise UsageError(f"{folder / METRICS} has no metric {short(metric)}: expected one of {known}")
    return np.array(points, dtype=float).T


def draw_curves(
    panels: Mapping[str, Mapping[str, Sequence[np.ndarray]]],
    label: str,
    out: Path,
    *,
    interval: Interval = "95",
    order: Sequence[str] = (),
) -> Path:
    """Draw a panel for each environment and in it a line for each configuration, and return the path of the picture.

    Args:
        panels: of each environment's name and each line's name the curves of its runs, each ``[2, points]``: steps and
            values. One curve is drawn as it is, several as :func:`~emix.training.spread.band_curve` has them.
        label: of the vertical axes, which go from 0 to 1 for what is a rate or a share.
        out: file to write.
        interval: what the bands are.
        order: of the lines' names, in legends and colours; those that are not in it follow by the alphabet.

    Raises:
        UsageError: ``out`` cannot be written.
    """
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(panels) if len(panels) <= WIDEST else math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.4 * columns, 4.2 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = {name for panel in panels.values() for name in panel}
    names = [name for name in order if name in drawn]
    styles = {name: i for i, name in enumerate([*names, *sorted(drawn.difference(names))])}
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (env, lines) in zip(places, panels.items(), strict=False):
        axes.set_title(env, fontsize=11)
        _draw_panel(axes, lines, styles, label, interval)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return save_figure(figure, out)


def _draw_panel(
    axes: Axes,
    lines: Mapping[str, Sequence[np.ndarray]],
    styles: Mapping[str, int],
    label: str,
    interval: Interval,
) -> None:
    from matplotlib.ticker import EngFormatter

    rate = any(word in label.split() for word in ("rate", "share", "fraction", "won", "reached", "epsilon"))
    for name, curves in sorted(lines.items(), key=lambda line: styles[line[0]]):
        band = band_curve(curves, interval)
        seeds = f"{SHOWN[interval]} of {len(curves)} seeds" if len(curves) > 1 else "1 seed"
        colour, dashes = line_style(styles[name])
        axes.plot(
            band.steps,
            band.centre,
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            label=f"{name} ({seeds})",
            **_marks(styles[name], len(styles), len(band.steps)),
        )
        if len(curves) > 1:
            low, high = (np.clip(edge, 0, 1) if rate else edge for edge in (band.low, band.high))
            alpha = 0.2 if len(curves) > 2 else 0.08  # two runs' interval is often the whole panel
            axes.fill_between(band.steps, low, high, color=colour, alpha=alpha, linewidth=0)
    axes.set_ylim((-0.02, 1.02) if rate else _limits([curve for curves in lines.values() for curve in curves]))
    axes.set_xlabel("environment steps")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    longest = max(len(text) for text in axes.get_legend_handles_labels()[1])
    if len(lines) <= MOST_INSIDE and longest <= LONGEST_INSIDE:
        axes.legend(framealpha=0.75, edgecolor="none", fontsize=9)  # curves behind it stay in sight, the names legible
    else:
        columns = 2 if longest <= LONGEST_IN_COLUMNS else 1
        axes.legend(frameon=False, fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def line_style(number: int) -> tuple[str, str]:
    """The colour and the dashes of a picture's lines: once the colours are used up, they come again, dashed."""
    return COLOURS[number % len(COLOURS)], ("-", "--", ":")[number // len(COLOURS) % 3]


def _marks(number: int, lines: int, points: int) -> dict[str, Any]:
    """What tells a line from others that it covers: a mark of its own, at other places than theirs."""
    if lines == 1:
        return {}
    every = max(1, points // MARKS)
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "markevery": (number * every // lines if points > MARKS else 0, every),
    }


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure in the format that the file's name ends in, and return its path.

    Raises:
        UsageError: ``out`` cannot be written, or its name ends in none of the formats.
    """
    ending = out.suffix.lower().removeprefix(".").replace("jpeg", "jpg")
    if ending and ending not in FORMATS and not out.exists():  # a file without an ending, or a device: a PNG
        raise UsageError(f"{out}: a picture's name ends in .{', .'.join(FORMATS)}, got .{ending}")
    form = ending if ending in FORMATS else "png"
    import matplotlib

    picture = BytesIO()
    dated = {"pdf": "CreationDate", "svg": "Date", "eps": "CreationDate"}
    with matplotlib.rc_context({"svg.hashsalt": "emix", "pdf.fonttype": 42, "ps.fonttype": 42}):  # fonts as type
        metadata: Any = {dated[form]: None} if form in ("pdf", "svg") else None  # the same bytes tomorrow
        figure.savefig(picture, format=form, metadata=metadata)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists() and not out.is_file():  # such as /dev/stdout
            out.write_bytes(picture.getvalue())
        else:
            replace_file(out, picture.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose another file with --out") from error
    return out


def import_matplotlib() -> None:
    """Import it; a notebook's MPLBACKEND, which its processes inherit, need not be one that there is here."""
    backend = os.environ.pop("MPLBACKEND", None)
    if backend is None:
        return
    first = "matplotlib" not in sys.modules
    try:
        import matplotlib  # refuses a backend that it does not know, and cannot be imported again then

        if first:
            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend  # as it would have done itself
    finally:
        os.environ["MPLBACKEND"] = backend


def _limits(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """What runs reached, and a little more: the interval of two or three is so wide that it would flatten the lines."""
    low, high = min(curve[1].min() for curve in curves), max(curve[1].max() for curve in curves)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin
