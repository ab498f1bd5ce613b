"""What the C library does with freed memory, while a run trains."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emix._host import keep_freed_memory

# glibc's numbers of the settings that keep_freed_memory changes, and their values unless the environment has others
# (malloc.h; mallopt(3)).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULTS = {_TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 128 << 10), _MMAP_MAX: ("MALLOC_MMAP_MAX_", 65536)}
_users = 0


@contextmanager
def freed_memory_kept(keep: bool = True) -> Iterator[None]:
    """Let the C library keep freed memory for what is allocated next; afterwards it gives it back as before.

    With glibc; elsewhere nothing happens. glibc cannot say what is set, so that its defaults, or those of the
    environment, are put back: where a program has called ``mallopt`` itself, it should say ``keep_memory=False``.
    """
    global _users
    if not keep or not keep_freed_memory():
        yield
        return
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            _put_back()


def _put_back() -> None:
    libc: Any = ctypes.CDLL(None)
    for setting, (variable, default) in _DEFAULTS.items():
        text = os.environ.get(variable, "")
        libc.mallopt(setting, int(text) if text.isdecimal() else default)
    libc.malloc_trim(0)
