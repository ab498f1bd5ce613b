"""What the commands share: their command lines are read, and their help fits the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Annotated, Any, TextIO, TypeAlias

import tyro

Imports: TypeAlias = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="import", metavar="MODULE")
]
"""``--import MODULE``, which may be repeated."""

_FRAME = "\u256d\u2502\u2570"  # what tyro has folded begins with one of these


def read_command_line(kind: Any, arguments: Sequence[str], command: str, **options: Any) -> Any:
    """The dataclass ``kind`` from ``arguments``, as ``tyro.cli`` reads it with ``options``.

    Raises:
        SystemExit: help was asked for, or tyro has said what is wrong.
    """
    output: Any = _Folded(sys.stdout)
    with redirect_stdout(output):
        return tyro.cli(kind, args=list(arguments), prog=f"emix {command}", **options)


def folded(text: str, indent: str = "") -> str:
    """``text`` in lines that fit the terminal; of a pipe, 80 columns."""
    inner = indent + "    " if text.startswith("usage:") else indent
    return textwrap.fill(text, _width(), initial_indent=indent, subsequent_indent=inner, break_on_hyphens=False)


def _width() -> int:
    return max(40, shutil.get_terminal_size().columns)


class _Folded:
    """A file whose long lines are folded: tyro leaves those above its frames as they are."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        lines = (
            line if len(line) <= _width() or line[0] in _FRAME or "\x1b" in line else folded(line)
            for line in text.split("\n")
        )
        return self.file.write("\n".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
