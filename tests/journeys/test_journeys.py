"""The quick parts of the journeys; ``make journeys`` takes all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.journeys.steps import ROOT


@pytest.mark.parametrize("who", ["student", "engineer", "maintainer"])
def test_the_quick_part(who: str) -> None:
    command = [sys.executable, "-m", f"tests.journeys.{who}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
