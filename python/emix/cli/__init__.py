"""The command ``emix``. Each subcommand is a module of this package whose ``main(arguments)`` returns the exit code.

Exit codes: 0 done; 1 the run failed; 2 the request was wrong (one sentence on stderr says how); 130 and 143 stopped by
Ctrl-C and SIGTERM. Nothing is imported before it is needed: ``emix --help`` does not wait for torch.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import emix
from emix.errors import UsageError

COMMANDS = {
    "train": "train a learner on an environment",
    "resume": "continue a run that was stopped or killed",
    "sweep": "train algorithms x environments x seeds, as many at once as the machine holds",
    "eval": "play greedy episodes with a trained run",
    "plot": "draw the learning curves of runs",
    "replay": "show a trained run's battles as a GIF or MP4",
    "bench": "measure the ops on this machine, beside eager PyTorch and torch.compile",
    "envs": "list the environments, and how to install those that are missing",
    "doctor": "check this machine, and say how to mend what is missing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_help())
        return 0
    if command == "--version":
        print(f"emix {emix.__version__}")
        return 0
    try:
        if command not in COMMANDS:
            closest = difflib.get_close_matches(command, COMMANDS, n=1)
            hint = f"did you mean `emix {closest[0]}`?" if closest else f"expected one of {', '.join(COMMANDS)}"
            raise UsageError(f"unknown command {command!r}: {hint}")
        return import_module(f"emix.cli.{command}").main(arguments[1:])
    except UsageError as error:
        print(f"emix: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"emix: {error}\nemix: `emix doctor` says what is missing", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("emix: interrupted", file=sys.stderr)
        return 130


def _help() -> str:
    lines = [f"  {name:<8} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: emix COMMAND [...]",
            "",
            "Multi-agent reinforcement learning with compiled hot paths.",
            "",
            *lines,
            "",
            "`emix COMMAND --help` describes a command; `emix --version` prints the version.",
            "Example: emix train smix matrix/msteps-5 --steps 20000 --seed 1",
        ]
    )
