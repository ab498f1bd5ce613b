"""The command ``emix``. Each subcommand is a module of this package whose ``main(arguments)`` returns the exit code.

Exit codes: 0 done; 1 the run failed; 2 the request was wrong (one sentence on stderr says how); 130 and 143 stopped by
Ctrl-C and SIGTERM. Nothing is imported before it is needed: ``emix --help`` does not wait for torch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import emix
from emix.errors import UsageError, is_out_of_memory, near

TRAINING = ("train", "resume", "sweep", "reproduce")
_LONGEST = 2000  # characters of a sentence
COMMANDS = {
    "train": "train a learner on an environment",
    "resume": "continue a run that was stopped or killed",
    "sweep": "train algorithms x environments x seeds, several runs at once",
    "eval": "play greedy episodes with a trained run",
    "plot": "draw the learning curves of runs",
    "report": "compare runs: tables with intervals, figures, Markdown and HTML",
    "reproduce": "train what a table or figure of a paper shows, and compare",
    "replay": "show a trained run's battles as a GIF or MP4",
    "bench": "measure the ops, beside eager PyTorch and torch.compile",
    "sc2": "check the simulator against StarCraft II: `emix sc2 check`",
    "envs": "list the environments, and how to install those that are missing",
    "doctor": "check this machine, and say how to mend what is missing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if arguments is not None:
        return _run(list(arguments))
    _open_standard_files()
    code = _run(sys.argv[1:])
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # from here on there is nothing that Ctrl-C could spoil
    return code


def _run(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "--help"
    try:
        return _flushed(command, _carry_out(command, arguments[1:]))
    except UsageError as error:
        return _fail(2, str(error))
    except ImportError as error:
        return _fail(1, str(error), "`emix doctor` says what is missing")
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        _leave_stdout()
        return 1
    except OSError as error:
        if error.filename is None:
            _leave_stdout()
        return _fail(1, f"{error.filename or 'standard output'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, RecursionError) or is_out_of_memory(error)):
            raise
        return _fail(1, f"not enough memory: {' '.join(str(error).split()) or type(error).__name__}")
    except KeyboardInterrupt:
        return _fail(130, "interrupted")


def _flushed(command: str, code: int) -> int:
    """The exit code, after all that was printed has been written, while what is wrong there can still be told. What a
    training has shown decides nothing."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        if command not in TRAINING:
            raise
        _leave_stdout()
    return code


def _carry_out(command: str, arguments: list[str]) -> int:
    if command in ("-h", "--help"):
        print(_help())
        return 0
    if command == "--version":
        print(f"emix {emix.__version__}")
        return 0
    if command not in COMMANDS:
        meant = near(command, COMMANDS)[:1]
        hint = f"did you mean `emix {meant[0]}`?" if meant else f"expected one of {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {command!r}: {hint}")
    return import_module(f"emix.cli.{command}").main(arguments)


def _fail(code: int, *lines: str) -> int:
    """Say what is wrong in lines that anybody's terminal can show, whatever stands in the files that they quote."""
    for line in lines:
        shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in line)
        if len(shown) > _LONGEST:
            shown = f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
        with suppress(OSError, ValueError):
            print(f"emix: {shown}", file=sys.stderr)
    return code


def _open_standard_files() -> None:
    """Where a standard file is closed, the next file that is opened would take its number, and what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # None where it was closed
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _leave_stdout() -> None:
    """Let nothing be written there any more, at the interpreter's end either."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help() -> str:
    lines = [f"  {name:<9} {summary}" for name, summary in COMMANDS.items()]
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
