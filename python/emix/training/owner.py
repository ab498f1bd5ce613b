"""Who writes a run's folder: one process at a time, with file locks and without.

A lock keeps a second process out. Where the file system has none, or grants them to everybody, the file ``lock`` still
says who came last: the others notice before they write a row or a checkpoint, and stop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emix.errors import UsageError
from emix.reading import short
from emix.training.files import make_folder, open_own, write_all

LOCK = "lock"
_held: set[str] = set()  # by this process, in which a second lock of the same file would succeed
_guard = threading.Lock()


class LostRunError(RuntimeError):
    """Another process has taken the run over."""


class Owner:
    """This process's claim on a run's folder.

    Args:
        folder: of the run.
        descriptor: of its file ``lock``.
        locked: whether the file system has granted a lock on it.
    """

    def __init__(self, folder: Path, descriptor: int, locked: bool) -> None:
        self.folder, self.descriptor, self.locked = folder, descriptor, locked
        self.token = uuid.uuid4().hex
        who = f"process {os.getpid()} on {os.uname().nodename}"
        self.claim = f"{who}\n{self.token} {_started(os.getpid())}\n".encode()
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        write_all(descriptor, self.claim)

    def check(self) -> None:
        """Raise ``LostRunError`` where another process has made its claim since."""
        found = self._present()
        if found not in (None, self.claim):
            raise LostRunError(
                f"{self.folder} was taken over by {_name(found or b'')}: this process stops, and what it wrote since "
                f"then does not count"
            )

    def _present(self) -> bytes | None:
        """What ``lock`` says; None where somebody has deleted it."""
        path = self.folder / LOCK
        try:
            here = os.stat(path)
        except OSError:
            return None
        mine = os.fstat(self.descriptor)
        if self.locked and (here.st_dev, here.st_ino) == (mine.st_dev, mine.st_ino):
            return os.pread(self.descriptor, 4096, 0)  # closing another descriptor of the file would end the lock
        with suppress(OSError), open(path, "rb") as file:  # opened anew: a network's file system looks then
            return file.read(4096)
        return None


@contextmanager
def own(folder: Path) -> Iterator[Owner]:
    """Make ``folder`` where missing, and be the only process that writes there.

    Raises:
        UsageError: another one does, or the folder cannot be written.
    """
    key = os.path.realpath(folder)
    with _guard:
        if key in _held:
            raise UsageError(f"{folder} is in use by this process: close that run first, or choose another --seed")
        _held.add(key)
    try:
        try:
            make_folder(folder)
            descriptor = open_own(folder / LOCK, os.O_RDWR)
        except OSError as error:
            raise UsageError(
                f"cannot write the run folder {folder}: {error.strerror}; choose another with --runs or --run-dir"
            ) from error
        try:
            locked = _lock(descriptor)
            found = os.pread(descriptor, 4096, 0)
            if locked is None or _is_alive(found):
                raise UsageError(
                    f"{folder} is in use by {_name(found)}: wait for it, stop it, or choose another --seed"
                )
            yield Owner(folder, descriptor, locked)
        finally:
            os.close(descriptor)
    finally:
        with _guard:
            _held.discard(key)


def _lock(descriptor: int) -> bool | None:
    """Whether the file is locked now; None where another process has locked it, False where there are no locks."""
    try:
        # A record lock, not flock: processes forked from here do not inherit it, so it ends with this one.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EAGAIN) else False
    return True


def _name(claim: bytes) -> str:
    """``process 5 on host``, as a claim says."""
    first = claim.decode(errors="replace").partition("\n")[0].strip()
    return (first if first.isprintable() and len(first) < 200 else short(first)) or "another process"


def _is_alive(claim: bytes) -> bool:
    """Whether the claim is that of another process of this machine, which still runs."""
    words = claim.decode(errors="replace").split()
    if len(words) != 6 or words[3] != os.uname().nodename or not words[1].isdecimal() or len(words[1]) > 9:
        return False
    process, started = int(words[1]), words[5]
    return process != os.getpid() and started != "unknown" and _started(process) == started


def _started(process: int) -> str:
    """When a process started, in ticks since the machine did: its number may be given out again."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "unknown"
    return "unknown" if state[0] in "ZX" else state[19]
