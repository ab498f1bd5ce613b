"""What a run reports: statistics between two rows, and the files they go to.

Names are PyMARL's, over environment steps. Numbers that repeat from run to run go to ``metrics.jsonl``, wall-clock
numbers to ``timing.jsonl``, so that two runs can be compared byte by byte. TensorBoard gets both.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from emix.playing.evaluate import EpisodeStatistics
from emix.reading import one_line
from emix.training.files import AppendedFile
from emix.training.rows import METRICS, TIMING


class UpdateStatistics:
    """Means of the learner's numbers over its updates, summed on its device so that no update waits for the host."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Take in what an update returned, 0-dim tensors."""
        for name, value in metrics.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if self.count else value
        self.count += 1

    def means(self) -> dict[str, float]:
        """Mean of each number; empty where there was no update."""
        return {name: float(total) / self.count for name, total in sorted(self.sums.items())}


class TrainingStatistics:
    """What happened since the last row: the part of a run's state that is neither learner, replay nor environment."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        self.episodes = EpisodeStatistics()
        self.updates = UpdateStatistics()

    def means(self) -> dict[str, float]:
        """Of the episodes and of the updates."""
        return self.episodes.means() | self.updates.means()

    def state_dict(self) -> dict[str, Tensor]:
        """A flat dict of tensors, exact to the bit."""
        episodes = {
            f"episodes.{name}": torch.tensor(values, dtype=torch.float64, device="cpu")
            for name, values in self.episodes.values.items()
        }
        updates = {f"updates.{name}": total.cpu() for name, total in self.updates.sums.items()}
        return {**episodes, **updates, "update_count": torch.tensor(self.updates.count, device="cpu")}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Continue from a ``state_dict``; ``device`` is the learner's."""
        self.clear()
        for key, tensor in state.items():
            group, _, name = key.partition(".")
            if group == "episodes":
                self.episodes.values[name] = tensor.tolist()
            elif group == "updates":
                self.updates.sums[name] = tensor.to(device)
        self.updates.count = int(state["update_count"])


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, ``timing.jsonl`` and TensorBoard's event files in ``folder``.

    Args:
        folder: the run's folder.
        offsets: bytes of each file to keep, from a checkpoint: what a killed run wrote after it is cut off. All of it,
            where there is no checkpoint.
        digests: SHA-256 of what is kept of each file, where the checkpoint has them.
        env_steps: of that checkpoint; TensorBoard is told to forget what came later.
        viewers: others beside TensorBoard that get the numbers.

    Raises:
        UsageError: a file is shorter than its offset, or other than its digest says.
        OSError: a file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        offsets: Mapping[str, int] | None = None,
        digests: Mapping[str, str] | None = None,
        env_steps: int = 0,
        viewers: Sequence[Viewer] = (),
    ) -> None:
        self.files: dict[str, AppendedFile] = {}
        for name in (METRICS, TIMING):
            self.files[name] = AppendedFile(folder / name, (offsets or {}).get(name, 0), (digests or {}).get(name))
        self.viewers = (TensorBoard(folder, purge_step=env_steps + 1 if offsets else 0), *viewers)

    def write(self, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Append one row to each file. Both have ``env_steps``; a number that is not finite becomes null."""
        for name, values in ((METRICS, row), (TIMING, timing)):
            self.files[name].append(_json_line(values))
        tags = {f"test/{k.removeprefix('test_')}" if k.startswith("test_") else f"train/{k}": v for k, v in row.items()}
        tags |= {f"time/{name}": value for name, value in timing.items()}
        for viewer in self.viewers:
            viewer.write(tags, int(row["env_steps"]))

    def sync(self) -> dict[str, int]:
        """Force everything to the disk and return the bytes of each file."""
        for file in self.files.values():
            file.sync()
        for viewer in self.viewers:
            viewer.flush()
        return {name: file.size for name, file in self.files.items()}

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        return {name: file.digest() for name, file in self.files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()
        for viewer in self.viewers:
            viewer.close()


class Viewer(Protocol):
    """Where numbers are looked at. Without it a run goes on: what goes wrong there is only told."""

    problem: str | None

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers by their tags."""

    def flush(self) -> None:
        """Write what waits."""

    def close(self) -> None:
        """Write what waits, and end."""


class TensorBoard:
    """Event files in ``folder``, for the eye: without them the run goes on, and ``problem`` says what was wrong."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        self.problem: str | None = None
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter  # imports protobuf, which may not fit what is installed

            _leave_the_second(folder)
            self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        except Exception as error:
            self._give_up(error)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Append the numbers by their tags."""
        if self.writer is not None:
            try:
                for tag, value in values.items():
                    self.writer.add_scalar(tag, value, step)
            except Exception as error:
                self._give_up(error)

    def flush(self) -> None:
        """Write what waits."""
        if self.writer is not None:
            try:
                self.writer.flush()
            except Exception as error:
                self._give_up(error)

    def close(self) -> None:
        """Write what waits, and end."""
        if self.writer is not None:
            with suppress(Exception):
                self.writer.close()

    def _give_up(self, error: Exception) -> None:
        self.writer, self.problem = None, f"no TensorBoard events from here on: {one_line(error)}"


def _leave_the_second(folder: Path) -> None:
    # TensorBoard reads event files in the order of their names: the second, the process' number and a
    # count as text, in which 10 is before 9. A run resumed in the second that it began in would be read first.
    now = int(time.time())
    if any(folder.glob(f"events.out.tfevents.{now:010d}.*")):
        time.sleep(max(0.0, now + 1 - time.time()))


def _json_line(values: Mapping[str, float]) -> bytes:
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"
