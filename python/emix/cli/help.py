"""Help that fits the terminal: tyro wraps its boxes of options, but neither usage nor description."""

from __future__ import annotations

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TextIO

_UNBREAKABLE = "\xa0"


class _Collected(io.StringIO):
    """Keeps what is printed, for a terminal or a file like the one behind: tyro chooses colours and boxes by that."""

    def __init__(self, behind: TextIO) -> None:
        super().__init__()
        self.behind = behind

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As behind."""
        return self.behind.encoding

    def isatty(self) -> bool:
        """As behind."""
        return self.behind.isatty()


def print_help(command: Callable[[], int]) -> int:
    """Run a command that is asked for its help, and print that no wider than the terminal; return the exit code."""
    out = sys.stdout
    collected = _Collected(out)
    try:
        with redirect_stdout(collected):
            return command()
    finally:
        out.write(wrapped(collected.getvalue(), shutil.get_terminal_size().columns))


def wrapped(text: str, width: int) -> str:
    """The text with its longer lines broken at spaces, in a usage line at none within brackets."""
    return "".join(_broken(line, width) + "\n" for line in text.splitlines())


def _broken(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    usage = "usage:" in line.partition(" ")[0]
    if usage:
        line = re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", _UNBREAKABLE), line)
    indent = "    " if usage else ""
    lines = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_UNBREAKABLE, " ")
