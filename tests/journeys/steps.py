"""What the journeys share: steps one after another, in a folder of their own, each said and timed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
Step = Callable[[Path], None]


def emix(*arguments: object, folder: Path, code: int = 0) -> str:
    """What the command prints, on both files; it must end with ``code``."""
    command = [sys.executable, "-m", "emix", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=7200, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == code, f"emix {' '.join(map(str, arguments))} ended with {done.returncode}:\n{text}"
    assert "Traceback" not in text, text
    return text


def python(code: str, *, folder: Path) -> str:
    """What a script prints, which must succeed without a word on stderr."""
    (folder / "script.py").write_text(code)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=7200, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def travel(who: str, quick: tuple[Step, ...], long: tuple[Step, ...]) -> None:
    """Take the quick steps, with ``--all`` the long ones, too; the first that fails ends the journey."""
    steps = quick + long if "--all" in sys.argv[1:] else quick
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder  # what --import remembers is theirs alone
        for number, step in enumerate(steps, start=1):
            print(f"{who}, {number} of {len(steps)}: {step.__doc__}", flush=True)
            start = time.perf_counter()
            step(Path(folder))
            print(f"    done in {time.perf_counter() - start:.1f} s", flush=True)
