"""Files that a run's settings name by paths, such as a map of one's own: the run has copies, as others may change.

A run that is evaluated or resumed later, from another folder or on another machine, then plays what it was trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emix.errors import UsageError
from emix.reading import MIB, path_of, read_bytes, short
from emix.training.files import make_folder, replace_file

FILES = "files"
_MOST = 16 * MIB
_DIGEST = re.compile(r"[0-9a-f]{64}")


def find_files(env: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The YAML files that an environment's name (``battle/<path>``) and its options name, each with its SHA-256.

    What cannot be read is left out: the environment says what is wrong with it.
    """
    _, _, inner = env.partition("/")
    named = [value for value in (inner, *options.values()) if isinstance(value, str)]
    files = {}
    for name in named:
        if name.endswith((".yaml", ".yml")) and path_of(name).is_file():
            files[name] = _digest(read_bytes(path_of(name), most=_MOST))
    return files


def copy_files(folder: Path, files: Mapping[str, str]) -> None:
    """Put copies into a run's folder.

    Raises:
        UsageError: a file is not the one any more whose SHA-256 is given.
        OSError: a copy cannot be written.
    """
    for name, digest in files.items():
        data = read_bytes(path_of(name), most=_MOST)
        if _digest(data) != digest:
            raise UsageError(f"{name} has changed while the run was being made: start it again")
        if (folder / FILES).is_symlink():
            raise UsageError(f"{folder / FILES} is a link, through which the run would write elsewhere: remove it")
        make_folder(folder / FILES)
        replace_file(_place(folder, digest), data)


def own_path(folder: Path, name: str, digest: str) -> str:
    """The path of a run's copy of the file that its settings call ``name``.

    Raises:
        UsageError: there is none, or it is another file.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise UsageError(f"files: {short(name)} expects a SHA-256, got {short(digest)}")
    path = _place(folder, digest)
    if _digest(read_bytes(path, most=_MOST)) != digest:
        raise UsageError(
            f"{path} is not the copy of {short(name)} that the run was made with: restore it, or train again elsewhere"
        )
    return str(path)


def _place(folder: Path, digest: str) -> Path:
    return folder / FILES / f"{digest[:16]}.yaml"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
