"""Many runs at once: each a process of ``emix train`` or ``emix resume``, and what came out of them together."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from emix._version import __version__
from emix.errors import UsageError
from emix.reading import read_bytes
from emix.training.files import make_folder, open_own, replace_file
from emix.training.folder import finished, refuse_other_run
from emix.training.rows import read_last_rows
from emix.training.settings import CONFIG, Settings
from emix.training.signals import StopRequest, handled
from emix.training.spread import statistics

LOG = "log.txt"
POLL_SECONDS = 0.2
STOP_SECONDS = 600.0  # for the runs to save their checkpoints, once the sweep is to stop
_TAIL = 16 << 10
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
    problem: str | None = None
    """Why it could not be started, or was ended."""
    log_start: int = 0
    """Bytes of ``log.txt`` that other processes have written."""
    halted: bool = False
    """Whether somebody has stopped the process, as SIGSTOP does."""

    def __str__(self) -> str:
        return f"{self.settings.name} on {self.settings.env}, seed {self.settings.training.seed}"

    def inspect(self) -> None:
        """Set ``done`` where the folder holds this run, finished. Raises UsageError where it holds another one."""
        if (self.folder / CONFIG).exists():
            refuse_other_run(self.folder, self.settings, "give the sweep another folder with --runs")
            if finished(self.folder, self.settings.training.steps):
                self.state = "done"

    def start(self) -> None:
        """Train, or go on where the folder holds a part of the run. What it prints goes to ``log.txt``, which is locked
        as long as it runs: another sweep's process would write there, too."""
        training = self.settings.training
        if (self.folder / CONFIG).exists():
            arguments = ["resume", str(self.folder), "--steps", str(training.steps)]
        else:
            arguments = ["train", self.settings.algorithm, self.settings.env, *self.options]
            arguments += ["--seed", str(training.seed), "--run-dir", str(self.folder)]
        self.state, self.started = "running", time.monotonic()
        try:
            make_folder(self.folder)
            log = open_own(self.folder / LOG, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            self.state, self.problem = "failed", f"cannot write {self.folder / LOG}: {error.strerror or error}"
            return
        try:
            if not _lock(log):
                self.state, self.problem = "failed", f"{self.folder} is in use by another sweep: wait for it"
                return
            self.log_start = os.fstat(log).st_size
            # A session of its own: a terminal's Ctrl-C reaches the sweep alone, which passes it on once.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "emix", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)  # the process has it, and the lock with it

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process, where there is one, to save a checkpoint and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(by)

    def poll(self, stopping: bool) -> bool:
        """Whether something has happened: the process has just ended, or somebody has stopped it or let it go on."""
        if self.process is None or self.state != "running":
            return False
        halted, self.halted = self.halted, _is_halted(self.process)
        if self.process.poll() is None:
            return halted != self.halted
        self.state = "stopped" if stopping else "failed"
        if self.process.returncode == 0:
            try:
                self.state = "done" if finished(self.folder, self.settings.training.steps) else self.state
            except UsageError as error:
                self.problem = str(error)
        return True

    def summary(self) -> dict[str, Any]:
        """The finished run's ``summary.json``."""
        summary = finished(self.folder, self.settings.training.steps)
        if summary is None:
            raise UsageError(f"{self.folder} has lost its summary while the sweep ran: the same command writes it anew")
        return summary

    def last_row(self) -> dict[str, Any]:
        """The newest value of each metric; empty before the first row."""
        latest: dict[str, Any] = {}
        with suppress(UsageError):  # it is for the eye
            for row in read_last_rows(self.folder):
                latest |= row
        return latest

    def last_words(self) -> str:
        """The last line that the process printed, or why there is none."""
        if self.problem is not None:
            return self.problem
        try:
            size = (self.folder / LOG).stat().st_size
            start = max(self.log_start, size - _TAIL)
            text = read_bytes(self.folder / LOG, most=4 * _TAIL, offset=start).decode(errors="replace")
        except (OSError, UsageError) as error:
            return f"its log cannot be read: {error}"
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
        return last.removeprefix("emix: ")


@contextmanager
def pass_on_signals(jobs: Sequence[Job]) -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGHUP let every running job save a checkpoint and end; a second Ctrl-C ends them at once, a
    third one whatever they wait for."""
    stop, interrupts = StopRequest(), 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        stop.signal = stop.signal or signal.Signals(number)
        interrupts += number == signal.SIGINT
        for job in jobs:
            job.end(signal.SIGKILL if interrupts > 2 else signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    with handled(handle):
        yield stop


def run_jobs(jobs: Sequence[Job], at_once: int, stop: StopRequest, show: Callable[[Job | None], None]) -> None:
    """Start the waiting ones, ``at_once`` at a time, until none is left or ``stop``; then wait for those that run, but
    no longer than ``STOP_SECONDS``.

    ``show`` gets each job that has just started or ended, and None after every look at them.
    """
    deadline: float | None = None
    while True:
        for job in jobs:
            if job.poll(stopping=stop.signal is not None):
                show(job)
        running = [job for job in jobs if job.state == "running"]
        waiting = [job for job in jobs if job.state == "waiting" and stop.signal is None]
        for job in waiting[: max(0, at_once - len(running))]:
            job.start()
            if stop.signal is not None:  # came while it was being started
                job.end()
            show(job)
        show(None)
        if not waiting and not running:
            return
        if stop.signal is not None:
            deadline = deadline or time.monotonic() + STOP_SECONDS
            for job in running:
                if time.monotonic() > deadline:
                    job.problem = f"it has not ended within {STOP_SECONDS:g} seconds, and was killed"
                    job.end(signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _lock(descriptor: int) -> bool:
    """Whether the file is now locked for this process and those that inherit it; also where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _is_halted(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child is stopped, as by SIGSTOP; nothing is taken from those that wait for its end."""
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return state[:1] == ["T"]


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
            values = [summaries[id(job)].get(metric) for job in done]
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
                    **statistics([value for value in values if value is not None]),
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
    table = StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {name: " ".join(map(str, row[name])) for name in ("seeds", "values")})
    make_folder(root)
    replace_file(root / "sweep.json", json.dumps(content, indent=1).encode() + b"\n")
    replace_file(root / "sweep.csv", table.getvalue().encode())
