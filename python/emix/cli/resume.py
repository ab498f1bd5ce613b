"""``emix resume RUN``: go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.running import built, run_training, title
from emix.errors import UsageError
from emix.training.checkpoint import read_manifest
from emix.training.run import CHECKPOINT, SUMMARY, extend, locked, read_settings, refuse_lost_checkpoint


@dataclass(frozen=True)
class Resume:
    """Continue a run from its last checkpoint, with the settings of its config.yaml.

    A run that was killed before its first checkpoint starts again.
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    steps: int | None = None
    """Train up to this many environment steps instead."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Resume, args=list(arguments), prog="emix resume")
    folder = chosen.run
    read_settings(folder)  # before the lock, which would make a folder that is not there
    with locked(folder):
        settings = read_settings(folder)
        manifest = read_manifest(folder / CHECKPOINT)
        if manifest is None:
            refuse_lost_checkpoint(folder, settings)
        done = manifest["counters"]["env_steps"] if manifest else 0
        if chosen.steps is not None:
            if chosen.steps < done:
                raise UsageError(
                    f"--steps expects at least the {done:,} environment steps that {folder} has done, "
                    f"got {chosen.steps:,}"
                )
            settings = extend(folder, settings, chosen.steps)
        if done >= settings.training.steps and (folder / SUMMARY).exists():
            print(f"{folder} is finished ({done:,} environment steps); `emix resume {folder} --steps N` trains on")
            return 0
        with built(settings) as state:
            print(f"resuming {folder} at {done:,} of {settings.training.steps:,} environment steps")
            print(title(settings), flush=True)
            return run_training(settings, state, folder)
