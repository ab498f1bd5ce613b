"""Games start one after the other, those of all of a user's processes."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """Hold a lock that all of a user's processes share: games that start at once take each other's ports, and the
    machine's memory and cores."""
    path = Path(tempfile.gettempdir()) / f"emix-sc2-{os.getuid()}.lock"
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
