"""A maintainer who might take over looks at state, layout and tests: python -m tests.journeys.maintainer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.journeys.steps import ROOT, emix, travel


def state(folder: Path) -> None:
    """Does it run here, and what is missing?"""
    text = emix("doctor", folder=folder)
    assert "torch" in text


def layout(folder: Path) -> None:
    """What docs/development.md says of the sources is there."""
    page = (ROOT / "docs" / "development.md").read_text()
    for word in re.findall(r"`(\w+)`", page.split("The words of the compiled side are")[1].split("which on a GPU")[0]):
        assert (ROOT / "csrc" / word).is_dir(), word
        assert (ROOT / "python" / "emix" / "ops" / f"{word}.py").is_file(), word


def order(folder: Path) -> None:
    """Imports run one way, and names and help are as they should be: the tests that say so pass."""
    tests = ["tests/test_imports.py", "tests/cli/test_envs.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout


def measure(folder: Path) -> None:
    """What is an op worth on this machine? (about a minute)"""
    text = emix("bench", "ops", "--op", "lambda_returns", folder=folder)
    assert "lambda_returns" in text


def lint(folder: Path) -> None:
    """Style and types, as the continuous integration looks at them (about a minute)."""
    for command in (["ruff", "check", "python", "tests", "benchmarks", "examples"], ["mypy"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    travel("maintainer", (state, layout), (order, measure, lint))
