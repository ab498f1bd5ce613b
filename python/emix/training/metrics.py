"""What a run reports: statistics between two rows, and the files they go to.

Names are PyMARL's, over environment steps. Numbers that repeat from run to run go to ``metrics.jsonl``, wall-clock
numbers to ``timing.jsonl``, so that two runs can be compared byte by byte. TensorBoard gets both.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from emix.errors import UsageError
from emix.playing.evaluate import EpisodeStatistics

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


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
            f"episodes.{name}": torch.tensor(values, dtype=torch.float64)
            for name, values in self.episodes.values.items()
        }
        updates = {f"updates.{name}": total.cpu() for name, total in self.updates.sums.items()}
        return {**episodes, **updates, "update_count": torch.tensor(self.updates.count)}

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
        env_steps: of that checkpoint; TensorBoard is told to forget what came later.

    Raises:
        UsageError: a file is shorter than its offset.
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, *, offsets: Mapping[str, int] | None = None, env_steps: int = 0) -> None:
        self.files = {name: (folder / name).open("ab") for name in (METRICS, TIMING)}
        for name, file in self.files.items():
            keep = (offsets or {}).get(name, 0)
            if file.tell() < keep:
                raise UsageError(
                    f"{folder / name} has {file.tell()} bytes, but the checkpoint was made when it had {keep}: "
                    f"put the file back, or train again in another folder"
                )
            file.truncate(keep)
        self.tensorboard = SummaryWriter(str(folder), purge_step=env_steps + 1 if offsets else 0)

    def write(self, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Append one row to each file. Both have ``env_steps``; a number that is not finite becomes null."""
        for name, values in ((METRICS, row), (TIMING, timing)):
            self.files[name].write(_json_line(values))
            self.files[name].flush()
        step = int(row["env_steps"])
        for name, value in row.items():
            tag = f"test/{name.removeprefix('test_')}" if name.startswith("test_") else f"train/{name}"
            self.tensorboard.add_scalar(tag, value, step)
        for name, value in timing.items():
            self.tensorboard.add_scalar(f"time/{name}", value, step)

    def sync(self) -> dict[str, int]:
        """Force everything to the disk and return the bytes of each file."""
        for file in self.files.values():
            os.fsync(file.fileno())
        self.tensorboard.flush()
        return {name: file.tell() for name, file in self.files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()
        self.tensorboard.close()


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``; a last line that is still being written is left out."""
    text = (folder / METRICS).read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _json_line(values: Mapping[str, float]) -> bytes:
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"
