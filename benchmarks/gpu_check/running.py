"""A command under a time limit: its whole process group ends with it, and what it had printed is kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SKIPPED = 77  # the exit status of a command that says why it cannot be run here, as automake has it
GRACE = 12.0  # seconds between SIGINT, after which pytest still ends its workers and says what has failed, and SIGKILL

# From the most telling to the least; the first line that matches is the error.
_ERRORS = [
    r"^=+ (Invalid|Error:|Race|Barrier|Program hit|Internal).*",  # compute-sanitizer
    r"^(FAILED|ERROR) \S+::.*",  # pytest's summary
    r"^\s*CMake Error.*(\n\s*\S.*)?",
    r"^.*\b(error|fatal)\s*: .*",  # compilers, ptxas
    r"^ERROR: .*",  # pip
    r"^emix: .*",
    r"^│ .*",  # tyro, of wrong options
    r"^[\w.]*(Error|Exception)\b.*",  # the last line of a traceback
    r"^E   .*",
]


@dataclass(frozen=True)
class Outcome:
    """How a part ended."""

    result: Literal["passed", "failed", "skipped"]
    seconds: float
    limit: float
    detail: str  # what failed first; otherwise the last line that was printed

    @property
    def failed(self) -> bool:
        return self.result == "failed"

    def __str__(self) -> str:
        return f"{self.result} after {self.seconds:.0f} s: {self.detail}"


def run(command: Sequence[str], log: Path, limit: float, environment: Mapping[str, str], folder: Path) -> Outcome:
    """Run ``command``, for ``limit`` seconds at most, and write what it prints to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
        reached = None  # the last line before the limit
        try:
            code = process.wait(limit - min(GRACE, limit / 4))
        except subprocess.TimeoutExpired:
            reached = _last_line(log.read_text(errors="replace"))
            process.send_signal(signal.SIGINT)  # to it alone: pytest's workers would take its summary with them
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(GRACE, limit / 4))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind, after a Ctrl-C, too
            process.wait()
    seconds, text = time.monotonic() - start, log.read_text(errors="replace")
    if reached is not None:
        detail = first_error(text) or reached
        return Outcome("failed", seconds, limit, f"stopped at its limit{f'; {detail}' if detail else ''}")
    if code == SKIPPED:
        return Outcome("skipped", seconds, limit, _last_line(text))
    if code:
        error = first_error(text) or _last_line(text) or "it printed nothing"
        return Outcome("failed", seconds, limit, f"{error}{f' (killed by signal {-code})' if code < 0 else ''}")
    return Outcome("passed", seconds, limit, _last_line(text))


def first_error(text: str) -> str:
    """The line of a log that says what went wrong first, or an empty string."""
    for pattern in _ERRORS:
        if found := re.search(pattern, text, flags=re.MULTILINE):
            return " ".join(found[0].strip("│ ").split())
    return ""


def _last_line(text: str) -> str:
    """The last line with a word in it: a table's frame says nothing."""
    lines = [" ".join(line.strip("│ ").split()) for line in text.split("\n")]
    return next((line for line in reversed(lines) if re.search(r"\w", line)), "")
