"""One row of numbers: to the files, to TensorBoard, and to the person who watches."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

from emix.playing.stopwatch import Stopwatch
from emix.training.metrics import MetricsWriter
from emix.training.progress import Progress
from emix.training.rows import read_last_rows
from emix.training.run import Run
from emix.training.wandb import WandB


class Journal:
    """Joins what was measured to how far the run is and how long it took; the first of a group writes it.

    Args:
        run: whose counters are read at every row and told the wall time, and whose metrics' files go on where the
            checkpoint was made that it continues.
        progress: shows every row.
    """

    def __init__(self, run: Run, progress: Progress) -> None:
        self.counters, self.progress = run.state.counters, progress
        self.run, self.writer = run, None
        if run.state.group.first:
            manifest = run.manifest or {}
            self.writer = MetricsWriter(
                run.folder,
                offsets=manifest.get("offsets"),
                digests=manifest.get("digests"),
                env_steps=self.counters.env_steps,
                viewers=_viewers(run),
            )
        self.seconds_before, self.process = self.counters.seconds, Stopwatch()
        self.restart_row()

    def restart_row(self) -> None:
        """Measure from here on what the next row reports."""
        self.watch, self.since = Stopwatch(), copy(self.counters)

    def write(self, row: Mapping[str, float]) -> None:
        """Write a row of metrics, with the wall-clock numbers since the last one beside it."""
        counters, elapsed = self.counters, self.watch.elapsed()
        counters.seconds = self.seconds_before + self.process.elapsed()
        timing = {
            "env_steps": counters.env_steps,
            "seconds": counters.seconds,
            "steps_per_s": (counters.env_steps - self.since.env_steps) / elapsed,
            "updates_per_s": (counters.updates - self.since.updates) / elapsed,
            **{f"frac_{phase}": share for phase, share in self.watch.shares().items()},
        }
        done = {"env_steps": counters.env_steps, "episodes": counters.episodes, "updates": counters.updates}
        if self.writer is not None:
            self.run.check_owner()
            self.writer.write(done | dict(row), timing)
            self._tell_problem(self.writer)
        self.progress.log(counters.env_steps, row, timing)
        self.restart_row()

    def tested(self) -> bool:
        """Whether there is a row with an evaluation after as many environment steps as there are now."""
        rows = read_last_rows(self.run.folder)
        here = [row for row in rows if row["env_steps"] == self.counters.env_steps]
        return any(name.startswith("test_") for row in here for name in row)

    def last_step(self) -> int:
        """The environment steps of the last row; 0 before the first."""
        rows = read_last_rows(self.run.folder)
        return rows[-1]["env_steps"] if rows else 0

    def sync(self) -> dict[str, dict[str, Any]]:
        """Force everything to the disk; the bytes of each metrics file and its SHA-256, as a checkpoint holds them."""
        self.counters.seconds = self.seconds_before + self.process.elapsed()
        if self.writer is None:
            return {}
        return {"offsets": self.writer.sync(), "digests": self.writer.digests()}

    def _tell_problem(self, writer: MetricsWriter) -> None:
        for viewer in writer.viewers:
            if viewer.problem:
                self.progress.say(f"note: {viewer.problem}")
                viewer.problem = None

    def close(self) -> None:
        """Close the files."""
        if self.writer is not None:
            self.writer.close()


def _viewers(run: Run) -> list[WandB]:
    """Those that somebody has asked for."""
    if run.wandb is None and not WandB.remembered(run.folder):
        return []
    return [WandB(run.folder, run.wandb, run.settings)]
