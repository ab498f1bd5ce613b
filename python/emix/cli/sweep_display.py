"""What a person sees while a sweep runs: a table of the running jobs on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from emix.training.listener import Listener, clock
from emix.training.sweep import Job

REFRESH_SECONDS = 1.0
LINE_SECONDS = 60.0


class Display:
    """A line for each run that starts or ends; between them the running ones: a live table, or a line a minute.

    Args:
        jobs: of the sweep.
        output: where to; a table where that is a terminal.
    """

    def __init__(self, jobs: Sequence[Job], *, output: TextIO | None = None) -> None:
        listener: Any = Listener(output or sys.stdout)
        self.jobs, self.output = jobs, listener
        self.next = 0.0
        self.live: Live | None = None
        if self.output.isatty():
            self.live = Live(console=Console(file=self.output), auto_refresh=False, transient=True)
            self.live.start()
        else:
            self.next = time.monotonic() + LINE_SECONDS

    def show(self, job: Job | None) -> None:
        """A job that has just started or ended; None: how far the running ones are, once in a while."""
        if job is not None:
            self._say(_event(job))
        elif (now := time.monotonic()) >= self.next:
            self.next = now + (REFRESH_SECONDS if self.live else LINE_SECONDS)
            if self.live:
                self.live.update(self._table(), refresh=True)
            else:
                self._say(self._counts())

    def close(self) -> None:
        """Take the table away; the lines stay."""
        if self.live:
            self.live.stop()

    def _say(self, text: str) -> None:
        if self.live:
            self.live.console.print(text, highlight=False, markup=False)
        else:
            self.output.say(text)

    def _counts(self) -> str:
        states = [job.state for job in self.jobs]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
        running = [job for job in self.jobs if job.state == "running"]
        done = sum(job.last_row().get("env_steps", 0) for job in running)
        steps = f"; the running ones at {done:,} of {sum(job.settings.training.steps for job in running):,} steps"
        return ", ".join(counts) + (steps if running else "")

    def _table(self) -> Table:
        table = Table(caption=self._counts(), caption_justify="left")
        for column in ("algorithm", "environment", "seed", "steps", "test", "time"):
            table.add_column(column, justify="left" if column in ("algorithm", "environment") else "right")
        for job in self.jobs:
            if job.state == "running":
                settings, row = job.settings, job.last_row()
                steps = f"{row.get('env_steps', 0):,} / {settings.training.steps:,}"
                name = (settings.name, settings.env, str(settings.training.seed))
                table.add_row(*name, steps, _score(row), clock(time.monotonic() - job.started))
        return table


def _event(job: Job) -> str:
    if job.halted and job.process is not None:
        return f"halted  {job}: somebody has stopped process {job.process.pid}; `kill -CONT {job.process.pid}` goes on"
    if job.state == "running":
        return f"started {job}, in {job.folder}"
    after = f"after {clock(time.monotonic() - job.started)}"
    if job.state == "done":
        return f"done    {job}: {_score(job.summary())} {after}"
    return f"{job.state:<7} {job} {after}: {job.last_words()}"


def _score(row: dict[str, Any]) -> str:
    for name, label in (("test_battle_won_mean", "test win rate"), ("test_return_mean", "test return")):
        if row.get(name) is not None:
            return f"{label} {row[name]:.3f}"
    return ""
