"""What a run's folder says of the run; without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from emix.errors import UsageError
from emix.reading import expect_keys, read_json, short
from emix.training.rows import METRICS
from emix.training.settings import CONFIG, Settings, difference, read_settings

SUMMARY, CHECKPOINT = "summary.json", "checkpoint"


def read_summary(folder: Path) -> dict[str, Any] | None:
    """``summary.json`` of a run that has come to an end, which may have been extended since; None where it has not.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / SUMMARY
    if not os.path.lexists(path):
        return None
    problem = f"{path} is not the summary of an emix run"
    advice = f"; delete it, and `emix resume {folder}` writes it anew"
    try:
        summary = read_json(path, "the summary of an emix run")
        expect_keys(summary, {"env_steps": int}, problem)
        if "seconds" in summary:
            expect_keys(summary, {"seconds": (int, float)}, problem)
        for name, value in summary.items():
            if name.startswith("test_") and not isinstance(value, int | float | None):
                raise UsageError(f"{problem}: {short(name)} expects a number, got {short(value)}")
    except UsageError as error:
        raise UsageError(f"{error}{advice}") from error
    return summary


def finished(folder: Path, steps: int | None = None) -> dict[str, Any] | None:
    """The summary of a run that is finished, else None. The one answer to when a run is: once ``summary.json`` tells of
    as many environment steps as are asked for. It is the last thing that a run writes, so that one which was killed
    before it still has to be resumed, however far its checkpoint is.

    Args:
        folder: of the run.
        steps: that are asked for, where they are not those in ``config.yaml``; a run of more is not one of these.

    Raises:
        UsageError: there is no run, or a file of it is damaged.
    """
    whole = read_settings(folder).training.steps
    asked, summary = whole if steps is None else steps, read_summary(folder)
    return summary if summary is not None and summary["env_steps"] >= asked >= whole else None


def refuse_other_run(folder: Path, asked: Settings, advice: str) -> None:
    """Raise UsageError unless the run in ``folder`` can become the one that is asked for: fewer steps at most."""
    theirs = read_settings(folder)
    if found := difference(theirs.as_dict(), asked.as_dict()):
        name, other, ours = found
        raise UsageError(
            f"{folder} holds a run with {name} {short(other)}, not {short(ours)} as is asked for: {advice}"
        )
    if theirs.training.steps > asked.training.steps:
        raise UsageError(
            f"{folder} holds a run of {theirs.training.steps:,} steps, more than the {asked.training.steps:,} "
            f"that are asked for: {advice}"
        )


def refuse_existing_run(folder: Path) -> None:
    """Raise ``UsageError`` where ``folder`` already holds a run."""
    if any(os.path.lexists(folder / name) for name in (CONFIG, CHECKPOINT, SUMMARY, METRICS)):
        raise UsageError(
            f"{folder} already holds a run: continue it with `emix resume {folder}`, "
            f"or choose another --seed, --runs or --run-dir"
        )
