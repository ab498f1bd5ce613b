"""Many runs at once: each a process of ``emix train`` or ``emix resume``, and what came out of them together."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from emix._version import __version__
from emix.training.loop import StopRequest
from emix.training.metrics import METRICS, read_rows
from emix.training.run import read_summary, refuse_other_run
from emix.training.settings import CONFIG, Settings
from emix.training.spread import statistics

LOG = "log.txt"
POLL_SECONDS = 0.2
State = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass
class Job:
    """One run of a sweep: what is asked for, where it lies, and how far it is."""

    settings: Settings
    folder: Path
    options: Sequence[str]
    """Of ``emix train``, as the user gave them; they made ``settings``."""
    state: State = "waiting"
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def __str__(self) -> str:
        return f"{self.settings.name} on {self.settings.env}, seed {self.settings.training.seed}"

    def inspect(self) -> None:
        """Set ``done`` where the folder holds this run, finished. Raises UsageError where it holds another one."""
        if (self.folder / CONFIG).exists():
            refuse_other_run(self.folder, self.settings, "give the sweep another folder with --runs")
            if (summary := read_summary(self.folder)) and summary["env_steps"] >= self.settings.training.steps:
                self.state = "done"

    def start(self) -> None:
        """Train, or go on where the folder holds a part of the run. What it prints goes to ``log.txt``."""
        training = self.settings.training
        if (self.folder / CONFIG).exists():
            arguments = ["resume", str(self.folder), "--steps", str(training.steps)]
        else:
            arguments = ["train", self.settings.algorithm, self.settings.env, *self.options]
            arguments += ["--seed", str(training.seed), "--run-dir", str(self.folder)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("ab") as log:
            # A session of its own: a terminal's Ctrl-C reaches the sweep alone, which passes it on once.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "emix", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.state, self.started = "running", time.monotonic()

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process, where there is one, to save a checkpoint and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(by)

    def poll(self, stopping: bool) -> bool:
        """Whether the process has just ended."""
        if self.process is None or self.state != "running" or self.process.poll() is None:
            return False
        ended_well = self.process.returncode == 0
        self.state = "done" if ended_well else "stopped" if stopping else "failed"
        return True

    def summary(self) -> dict[str, Any]:
        """The finished run's ``summary.json``."""
        summary = read_summary(self.folder)
        assert summary is not None
        return summary

    def last_row(self) -> dict[str, Any]:
        """The newest value of each metric; empty before the first row."""
        latest: dict[str, Any] = {}
        for row in read_rows(self.folder) if (self.folder / METRICS).exists() else []:
            latest |= row
        return latest

    def last_words(self) -> str:
        """The last line that the process printed."""
        lines = (self.folder / LOG).read_text(errors="replace").splitlines() if (self.folder / LOG).exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return last.removeprefix("emix: ")


@contextmanager
def pass_on_signals(jobs: Sequence[Job]) -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGHUP let every running job save a checkpoint and end; a second Ctrl-C ends them at once."""
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal = stop.signal or signal.Signals(number)
        for job in jobs:
            job.end(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_jobs(jobs: Sequence[Job], at_once: int, stop: StopRequest, show: Callable[[Job | None], None]) -> None:
    """Start the waiting ones, ``at_once`` at a time, until none is left or ``stop``; then wait for those that run.

    ``show`` gets each job that has just started or ended, and None after every look at them.
    """
    while True:
        for job in jobs:
            if job.poll(stopping=stop.signal is not None):
                show(job)
        running = sum(job.state == "running" for job in jobs)
        waiting = [job for job in jobs if job.state == "waiting" and stop.signal is None]
        for job in waiting[: at_once - running]:
            job.start()
            if stop.signal is not None:  # came while it was being started
                job.end()
            show(job)
        show(None)
        if not waiting and not running:
            return
        time.sleep(POLL_SECONDS)


def default_jobs(threads: int) -> int:
    """How many runs of ``threads`` threads this machine's cores hold; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // threads)


def results(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """A row for each environment and configuration: statistics of the last test of its finished runs.

    The metric is the test win rate where every finished run on the environment has one, else the test return.
    """
    rows = []
    for env in dict.fromkeys(job.settings.env for job in jobs):
        here = [job for job in jobs if job.settings.env == env]
        summaries = {id(job): job.summary() for job in here if job.state == "done"}
        won = all("test_battle_won_mean" in summary for summary in summaries.values())
        metric = "test_battle_won_mean" if won and summaries else "test_return_mean"
        for name in dict.fromkeys(job.settings.name for job in here):
            mine = [job for job in here if job.settings.name == name]
            done, settings = [job for job in mine if job.state == "done"], mine[0].settings
            values = [summaries[id(job)][metric] for job in done]
            rows.append(
                {
                    "env": env,
                    "algorithm": settings.algorithm,
                    "configuration": settings.configuration,
                    "recipe": settings.recipe["name"],
                    "recipe_version": settings.recipe["version"],
                    "metric": metric,
                    "runs": len(mine),
                    "seeds": [job.settings.training.seed for job in done],
                    "values": values,
                    **statistics(values),
                }
            )
    return rows


def write_results(root: Path, command: Sequence[str], jobs: Sequence[Job], rows: Sequence[dict[str, Any]]) -> None:
    """Write ``sweep.json`` (everything) and ``sweep.csv`` (the table) into ``root``."""
    runs = [
        {
            "folder": str(job.folder),
            "algorithm": job.settings.algorithm,
            "configuration": job.settings.configuration,
            "recipe": job.settings.recipe,
            "env": job.settings.env,
            "env_options": job.settings.env_options,
            "seed": job.settings.training.seed,
            "state": job.state,
            "summary": job.summary() if job.state == "done" else None,
        }
        for job in jobs
    ]
    content = {"command": list(command), "emix": __version__, "results": list(rows), "runs": runs}
    root.mkdir(parents=True, exist_ok=True)
    (root / "sweep.json").write_text(json.dumps(content, indent=1) + "\n")
    with (root / "sweep.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: " ".join(map(str, row[name])) for name in ("seeds", "values")})
