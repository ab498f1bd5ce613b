"""``emix resume RUN``: go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import Imports
from emix.cli.running import carry_out, title
from emix.plugins import import_named
from emix.training.run import Run, read_summary
from emix.training.settings import read_settings


@dataclass(frozen=True)
class Resume:
    """Continue a run from its last checkpoint, with the settings of its config.yaml.

    A run that was killed before its first checkpoint starts again.
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    steps: int | None = None
    """Train up to this many environment steps instead."""
    imports: Imports = ()
    """Module or .py file that the run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Resume, args=list(arguments), prog="emix resume")
    import_named(chosen.imports)
    folder, summary = chosen.run, read_summary(chosen.run)
    steps = read_settings(folder).training.steps if chosen.steps is None else chosen.steps
    if summary is not None and summary["env_steps"] >= steps and chosen.steps in (None, summary["env_steps"]):
        done = summary["env_steps"]
        print(f"{folder} is finished ({done:,} environment steps); `emix resume {folder} --steps N` trains on")
        return 0
    return carry_out(Run.resume(folder, steps=chosen.steps), folder, _introduction)


def _introduction(run: Run) -> str:
    done, steps = run.state.counters.env_steps, run.settings.training.steps
    return f"resuming {run.folder} at {done:,} of {steps:,} environment steps\n{title(run.settings)}"
