"""One row of numbers: to the files, to TensorBoard, and to the person who watches."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

from emix.playing.stopwatch import Stopwatch
from emix.training.metrics import MetricsWriter
from emix.training.progress import Progress
from emix.training.run import Run


class Journal:
    """Joins what was measured to how far the run is and how long it took; the first of a group writes it.

    Args:
        run: whose counters are read at every row and told the wall time, and whose metrics' files go on where the
            checkpoint was made that it continues.
        progress: shows every row.
    """

    def __init__(self, run: Run, progress: Progress) -> None:
        self.counters, self.progress = run.state.counters, progress
        offsets, first = run.manifest and run.manifest["offsets"], run.state.group.first
        self.writer = MetricsWriter(run.folder, offsets=offsets, env_steps=self.counters.env_steps) if first else None
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
            self.writer.write(done | dict(row), timing)
        self.progress.log(counters.env_steps, row, timing)
        self.restart_row()

    def sync(self) -> dict[str, int]:
        """Force everything to the disk; bytes of each metrics file."""
        self.counters.seconds = self.seconds_before + self.process.elapsed()
        return self.writer.sync() if self.writer is not None else {}

    def close(self) -> None:
        """Close the files."""
        if self.writer is not None:
            self.writer.close()
