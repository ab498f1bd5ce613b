"""Where a training is shown: what cannot be written there decides nothing."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO


class Listener:
    """A text file that somebody may read. Once it cannot be written, because the terminal or a pipe's reader is gone,
    nothing is; letters that its encoding lacks become question marks. No error comes of either.

    Args:
        file: None where there is nobody.
    """

    def __init__(self, file: TextIO | None) -> None:
        self.file = file

    def write(self, text: str) -> int:
        """Write as far as that can be done."""
        if self.file is not None:
            try:
                self.file.write(text)
            except UnicodeEncodeError:
                encoding = self.file.encoding or "ascii"
                return self.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError):  # ValueError: it is closed
                self.file = None
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        if self.file is not None:
            try:
                self.file.flush()
            except (OSError, ValueError):
                self.file = None

    def say(self, text: str) -> None:
        """Write a line, at once."""
        self.write(f"{text}\n")
        self.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with suppress(ValueError):
            return self.file is not None and self.file.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        """Whatever else a file has."""
        if self.file is None:
            raise AttributeError(name)
        return getattr(self.file, name)


def say(text: str, output: TextIO | None = None) -> None:
    """Print a line, to stdout unless told otherwise, where somebody listens: what is shown decides no exit code."""
    Listener(output or sys.stdout).say(text)


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes = round(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02}:{round(seconds) % 60:02}"
