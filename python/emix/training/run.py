"""A run and its folder: made, locked, continued; what lies in it beside the metrics."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emix.distributed import Alone, Group
from emix.errors import UsageError
from emix.training import checkpoint
from emix.training.metrics import METRICS, read_rows
from emix.training.settings import CONFIG, Settings, difference, read_settings, write_config, write_steps
from emix.training.state import TrainingState

SUMMARY, CHECKPOINT, LOCK = "summary.json", "checkpoint", "lock"


@dataclass
class Run:
    """A run that this process trains: made by ``create`` or ``resume``, whose ``with`` block it lasts for.

    All processes of a group have one; the first of them has the lock, and is the only one that writes.
    """

    folder: Path
    settings: Settings
    state: TrainingState
    manifest: dict[str, Any] | None = None  # of the checkpoint that it continues

    @classmethod
    @contextmanager
    def create(cls, folder: Path, settings: Settings, group: Group | None = None) -> Iterator[Run]:
        """A new run, of which ``folder`` holds ``config.yaml`` from here on.

        Raises:
            UsageError: the folder holds a run already, cannot be written or is in use, or the settings make no sense.
        """
        refuse_existing_run(folder)
        # Built before the folder is made, so that an unknown environment leaves none behind.
        with closing(TrainingState.create(settings, group)) as state, _locked(folder, state.group):
            if state.group.first:
                refuse_existing_run(folder)  # once more, now that nobody else can make one
                write_config(folder, settings, episode_limit=state.source.spec.episode_limit)
            yield cls(folder, settings, state)

    @classmethod
    @contextmanager
    def resume(cls, folder: Path, *, steps: int | None = None, group: Group | None = None) -> Iterator[Run]:
        """The run in ``folder`` as its last checkpoint has it, or from the start where there was none yet.

        Args:
            folder: of the run.
            steps: train up to so many environment steps, in place of those in ``config.yaml``.
            group: of processes; alone where not given.

        Raises:
            UsageError: there is no run, it is in use, damaged or has lost its checkpoint, or has done more steps.
        """
        group = group or Alone()
        read_settings(folder)  # before the lock, which would make a folder that is not there
        with _locked(folder, group):
            settings = read_settings(folder)
            manifest = checkpoint.read_manifest(folder / CHECKPOINT)
            if manifest is None:
                _refuse_lost_checkpoint(folder, settings)
            done = manifest["counters"]["env_steps"] if manifest else 0
            if steps is not None and steps != settings.training.steps:
                if steps < done:
                    raise UsageError(
                        f"steps expects at least the {done:,} environment steps that {folder} has done, got {steps:,}"
                    )
                settings = replace(settings, training=replace(settings.training, steps=steps))
                if group.first:
                    write_steps(folder, steps)
            with closing(TrainingState.create(settings, group)) as state:
                if manifest is not None:
                    state.restore(folder / CHECKPOINT, settings, manifest)
                yield cls(folder, settings, state, manifest)

    def save(self, offsets: dict[str, int]) -> None:
        """Write a checkpoint; ``offsets`` are the bytes of the metrics files."""
        if self.state.group.first:
            self.state.save(self.folder / CHECKPOINT, self.settings, offsets)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """``summary.json`` of a run that has come to an end, which may have been extended since; None where it has not."""
    path = folder / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def refuse_other_run(folder: Path, asked: Settings, advice: str) -> None:
    """Raise UsageError unless the run in ``folder`` can become the one that is asked for: fewer steps at most."""
    theirs = read_settings(folder)
    if found := difference(theirs.as_dict(), asked.as_dict()):
        name, other, ours = found
        raise UsageError(f"{folder} holds a run with {name} {other!r}, not {ours!r} as is asked for: {advice}")
    if theirs.training.steps > asked.training.steps:
        raise UsageError(
            f"{folder} holds a run of {theirs.training.steps:,} steps, more than the {asked.training.steps:,} "
            f"that are asked for: {advice}"
        )


def refuse_existing_run(folder: Path) -> None:
    """Raise ``UsageError`` where ``folder`` already holds a run."""
    if any((folder / name).exists() for name in (CONFIG, CHECKPOINT, SUMMARY, METRICS)):
        raise UsageError(
            f"{folder} already holds a run: continue it with `emix resume {folder}`, "
            f"or choose another --seed, --runs or --run-dir"
        )


def _refuse_lost_checkpoint(folder: Path, settings: Settings) -> None:
    """Raise ``UsageError`` where a run without checkpoint must have had one: starting again would wipe its metrics."""
    rows = read_rows(folder) if (folder / METRICS).is_file() else []
    if (folder / SUMMARY).exists() or (rows and rows[-1]["env_steps"] >= 2 * settings.training.checkpoint_interval):
        raise UsageError(
            f"{folder} has no checkpoint any more, so that it cannot be continued: "
            f"restore {folder / CHECKPOINT}, or train again in another folder"
        )


@contextmanager
def _locked(folder: Path, group: Group) -> Iterator[None]:
    """Make ``folder`` where missing and be the only process, or group, that writes there."""
    if not group.first:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UsageError(
            f"cannot write the run folder {folder}: {error.strerror}; choose another with --runs or --run-dir"
        ) from error
    with file:
        try:
            # A record lock, not flock: processes forked from here do not inherit it, so it ends with this one.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UsageError(
                f"{folder} is in use by {owner}: wait for it, stop it, or choose another --seed"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
