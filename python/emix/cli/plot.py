"""``emix plot RUN...``: learning curves."""

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
from emix.training.plot import plot_runs
from emix.training.spread import Interval


@dataclass(frozen=True)
class Plot:
    """Draw runs over environment steps: a panel per environment, a line per configuration.

    A line is over its seeds, and the band around it their --interval.
    """

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """Folders of runs, or folders above runs."""
    out: Path = Path("curves.png")
    """The picture to write: .png, .pdf, .svg, .jpg or .eps."""
    metric: str | None = None
    """A name of metrics.jsonl; by default the test win rate where there is one, else the test return."""
    interval: Interval = "95"
    """Of several seeds: 95, the mean and its 95 % interval (Student's t); iqm, the interquartile mean and the
    quartiles; std, the mean and the standard deviation."""
    imports: Imports = ()
    """Module or .py file that a run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Plot, arguments, "plot")
    if not chosen.runs:
        raise UsageError(
            "emix plot expects the folder of at least one run, such as `emix plot runs/smix/matrix/msteps-5`"
        )
    import_named(chosen.imports)
    print(plot_runs(chosen.runs, chosen.out, metric=chosen.metric, interval=chosen.interval))
    return 0
