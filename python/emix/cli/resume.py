"""``emix resume RUN``: go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import Imports, read_command_line
from emix.plugins import import_named
from emix.reading import path_of
from emix.training.settings import read_settings

if TYPE_CHECKING:
    from emix.training.run import Run


@dataclass(frozen=True)
class Resume:
    """Continue a run from its last checkpoint, with the settings of its config.yaml.

    A run that was killed before its first checkpoint starts again.
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    steps: int | None = None
    """Train up to this many environment steps instead."""
    device: str | None = None
    """Go on on this device instead, such as cpu; on one of another kind, the numbers are others."""
    imports: Imports = ()
    """Module or .py file that the run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Resume, arguments, "resume")
    from emix.cli.running import carry_out  # loads torch, which --help need not wait for
    from emix.training.building import resolve_device
    from emix.training.folder import finished
    from emix.training.run import Run

    import_named(chosen.imports)
    folder = path_of(chosen.run)
    steps = read_settings(folder).training.steps if chosen.steps is None else chosen.steps
    if summary := finished(folder, steps):
        done = summary["env_steps"]
        print(f"{folder} is finished ({done:,} environment steps); `emix resume {folder} --steps N` trains on")
        return 0
    if chosen.device is not None:
        resolve_device(chosen.device)
    return carry_out(Run.resume(folder, steps=chosen.steps, device=chosen.device), folder, _introduction, steps)


def _introduction(run: Run) -> str:
    done, steps = run.state.counters.env_steps, run.settings.training.steps
    return f"resuming {run.folder} at {done:,} of {steps:,} environment steps\n{run.settings.title}"
