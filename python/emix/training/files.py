"""Writing into a run's folder: whole at every moment, forced to the disk, for others to read, never through a link.

A folder may come from somebody else, or share files with a copy of itself. What a run writes goes into files of its
own: a link, or a file that has a second name elsewhere, is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from emix.errors import UsageError
from emix.reading import open_regular

_BLOCK = 1 << 20


def make_folder(path: Path) -> None:
    """Make a folder where missing, and those above it; their names are on the disk afterwards.

    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        force_to_disk(each.parent)


def open_own(path: Path, flags: int) -> int:
    """The descriptor of a file that this run may write, made where missing.

    Raises:
        OSError: it is a link or no regular file, has a second name, or cannot be opened.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for a reader.
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _elsewhere(path, "it is a link") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _elsewhere(path, "it has a second name" if stat.S_ISREG(found.st_mode) else "it is no regular file")
    return descriptor


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, whole at every moment, and force it to the disk. Where a link stands, the link is replaced.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    draft = path.with_name(f".{path.name}.new")
    descriptor = open_own(draft, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, 0)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
    force_to_disk(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes: ``os.write`` may take a part of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def force_to_disk(path: Path) -> None:
    """fsync a file, or a folder's list of names, which some file systems cannot."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


class AppendedFile:
    """A file at whose end rows are put.

    It is made anew, with what is kept of the old one: a process that still has the old one open, because the run was
    taken from it, writes into a file that has no name any more.

    Args:
        path: of the file.
        keep: bytes of the old file's beginning that stay.
        digest: their SHA-256, where it is known.

    Raises:
        UsageError: the old file is shorter, or other than the digest says.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, keep: int = 0, digest: str | None = None) -> None:
        self.path, self.size, self.sha256 = path, 0, hashlib.sha256()
        draft = path.with_name(f".{path.name}.new")
        self.descriptor = open_own(draft, os.O_WRONLY)
        try:
            os.ftruncate(self.descriptor, 0)
            if keep:
                with open_regular(path) as old:
                    self._copy(old, keep)
            if self.size < keep:
                raise UsageError(
                    f"{path} has {self.size} bytes, but the checkpoint was made when it had {keep}: "
                    f"put the file back, or train again in another folder"
                )
            if digest is not None and self.digest() != digest:
                raise UsageError(
                    f"{path} is not the file that the checkpoint was made with: expected SHA-256 {digest[:12]}... of "
                    f"its first {keep} bytes, got {self.digest()[:12]}...; put the file back, or train again in "
                    f"another folder"
                )
            os.fsync(self.descriptor)
            os.replace(draft, path)
            force_to_disk(path.parent)
        except BaseException:
            os.close(self.descriptor)
            raise

    def _copy(self, old: BinaryIO, keep: int) -> None:
        while block := old.read(min(_BLOCK, keep - self.size)):
            self.append(block)

    def append(self, data: bytes) -> None:
        """Put ``data`` at the end."""
        write_all(self.descriptor, data)
        self.sha256.update(data)
        self.size += len(data)

    def digest(self) -> str:
        """The SHA-256 of all that it holds."""
        return self.sha256.hexdigest()

    def sync(self) -> None:
        """Force it to the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def _elsewhere(path: Path, why: str) -> OSError:
    return OSError(errno.EINVAL, f"{why}, through which the run would write elsewhere; put a copy in its place", path)
