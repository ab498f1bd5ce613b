"""One row of numbers: to the files, to TensorBoard, and to the person who watches."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path

from emix.training.metrics import MetricsWriter
from emix.training.progress import Progress
from emix.training.state import Counters
from emix.training.stopwatch import Stopwatch


class Journal:
    """Joins what was measured to how far the run is and how long it took.

    Args:
        folder: the run's.
        counters: of the run; read at every row, and told the wall time.
        progress: shows every row.
        offsets: bytes of the metrics files to keep, from the checkpoint that the run continues.
    """

    def __init__(
        self, folder: Path, counters: Counters, progress: Progress, *, offsets: Mapping[str, int] | None = None
    ) -> None:
        self.counters = counters
        self.progress = progress
        self.writer = MetricsWriter(folder, offsets=offsets, env_steps=counters.env_steps)
        self.seconds_before = counters.seconds
        self.process = Stopwatch()
        self.restart_row()

    def restart_row(self) -> None:
        """Measure from here on what the next row reports."""
        self.watch = Stopwatch()
        self.since = copy(self.counters)

    def write(self, row: Mapping[str, float]) -> None:
        """Write a row of metrics, with the wall-clock numbers since the last one beside it."""
        counters, elapsed = self.counters, self.watch.elapsed()
        self.update_seconds()
        timing = {
            "env_steps": counters.env_steps,
            "seconds": counters.seconds,
            "steps_per_s": (counters.env_steps - self.since.env_steps) / elapsed,
            "updates_per_s": (counters.updates - self.since.updates) / elapsed,
            **{f"frac_{phase}": share for phase, share in self.watch.shares().items()},
        }
        done = {"env_steps": counters.env_steps, "episodes": counters.episodes, "updates": counters.updates}
        self.writer.write(done | dict(row), timing)
        self.progress.log(counters.env_steps, row, timing)
        self.restart_row()

    def sync(self) -> dict[str, int]:
        """Force everything to the disk; bytes of each metrics file."""
        self.update_seconds()
        return self.writer.sync()

    def update_seconds(self) -> None:
        """Bring the counters' wall time up to date."""
        self.counters.seconds = self.seconds_before + self.process.elapsed()

    def close(self) -> None:
        """Close the files."""
        self.writer.close()
