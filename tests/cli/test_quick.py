"""What answers at once: commands that need no torch do not import it, which takes a second or more."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "tensordict", "matplotlib")


def imported_by(code: str) -> set[str]:
    """Of the heavy packages those that are there after ``code``, in a process of its own."""
    code += f"\nimport sys\nprint('imported:', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


COMMANDS = [
    "--help",
    "train --help",
    "train ader --help",
    "resume --help",
    "eval --help",
    "plot --help",
    "envs",
    "replay --help",
    "report --help",
    "reproduce",
    "sweep --help",
    "bench --help",
    "doctor --help",
    "sc2 --help",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_answers_without_torch(command: str) -> None:
    code = f"from emix.cli import main\ntry:\n    main({command.split()})\nexcept SystemExit:\n    pass"
    assert imported_by(code) == set()


def test_names_are_there_before_torch_is() -> None:
    assert imported_by("import emix, emix.learners, emix.training, emix.data, emix.envs\ndir(emix)") == set()


def test_a_learner_is_imported_when_it_is_asked_for() -> None:
    code = "from emix import learners\nassert learners.get('smix').config().td_lambda == 0.8\n"
    assert imported_by(code) == set()
    assert "torch" in imported_by(code + "assert learners.get('smix').learner.__name__ == 'ValueLearner'\n")
