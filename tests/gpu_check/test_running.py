"""A part of ``make gpu-check``: its time limit, and what the table says of how it ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.gpu_check.running import SKIPPED, Outcome, first_error, run


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., Outcome]:
    """Run a piece of Python as a part."""
    return lambda code, limit=20.0: run(
        [sys.executable, "-u", "-c", code], tmp_path / "part.log", limit, os.environ, tmp_path
    )


def test_what_passes_shows_its_last_line(go):
    outcome = go("print('one'); print('two,  done'); print()")
    assert (outcome.result, outcome.detail) == ("passed", "two, done")


def test_the_frame_of_a_table_says_nothing(go):
    assert go("print('│ gae │ 3 us │'); print('└─────┴──────┘')").detail == "gae │ 3 us"


def test_what_fails_shows_its_first_error(go):
    outcome = go("print('fine'); raise ValueError('expected 3, got 4')")
    assert (outcome.result, outcome.detail) == ("failed", "ValueError: expected 3, got 4")


def test_what_cannot_be_run_here_says_why(go):
    outcome = go(f"print('there is no GPU'); raise SystemExit({SKIPPED})")
    assert (outcome.result, outcome.detail, outcome.failed) == ("skipped", "there is no GPU", False)


def test_a_crash_is_a_failure(go):
    outcome = go("import os; print('before'); os.kill(os.getpid(), 11)")
    assert (outcome.result, outcome.detail) == ("failed", "before (killed by signal 11)")


def test_a_limit_ends_the_whole_group_and_keeps_what_was_printed(go, tmp_path):
    child = "import time; time.sleep(60)"
    start = time.monotonic()
    outcome = go(
        f"import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"print('child', child.pid)\ntime.sleep(60)",
        2.0,
    )
    assert time.monotonic() - start < 10
    assert outcome.result == "failed"
    pid = (tmp_path / "part.log").read_text().split()[1]
    assert outcome.detail == f"stopped at its limit; child {pid}"
    assert not _alive(int(pid))


def test_what_ignores_the_interrupt_is_killed(go):
    outcome = go("import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)", 1.0)
    assert (outcome.result, outcome.detail) == ("failed", "stopped at its limit")
    assert outcome.seconds < 10


def _alive(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("E   assert 1 == 2\nFAILED a.py::b[cuda] - assert 1 == 2\n1 failed", "FAILED a.py::b[cuda] - assert 1 == 2"),
        ("[3/9] Building\n/x/cuda.cu(7): error: no such thing\nninja: stopped", "/x/cuda.cu(7): error: no such thing"),
        ("========= Invalid __global__ write of size 4 bytes\n", "========= Invalid __global__ write of size 4 bytes"),
        ("emix: --map 'x' is not measured\n", "emix: --map 'x' is not measured"),
        ("ERROR: gymnasium is missing\n", "ERROR: gymnasium is missing"),
        ("  File 'x'\ntorch.OutOfMemoryError: CUDA out of memory\n", "torch.OutOfMemoryError: CUDA out of memory"),
        ("CMake Error at CMakeLists.txt:3:\n  no nvcc\n", "CMake Error at CMakeLists.txt:3: no nvcc"),
        ("╭─ Unrecognized options ─╮\n│ Unrecognized: --jso    │\n╰───╯\n", "Unrecognized: --jso"),
        ("ptxas fatal   : Unresolved symbol\n", "ptxas fatal : Unresolved symbol"),
        ("all is well, 0 errors\n", ""),
    ],
)  # fmt: skip
def test_first_error(log, expected):
    assert first_error(log) == expected
