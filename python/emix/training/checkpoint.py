"""A folder of tensors that is whole at every moment, whenever the process is killed.

``manifest.json`` names the data files with their sizes and SHA-256. A save writes new data files under new names,
forces them to the disk, and then replaces ``manifest.json``: that one rename is the commit. Only then are those files
deleted that the manifest before named and this one does not; what else lies in the folder stays. Tensors are
safetensors, everything else is JSON: loading executes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emix._version import __version__
from emix.errors import UsageError
from emix.reading import expect_keys, one_line, open_regular, read_json, short
from emix.training.files import force_to_disk, make_folder, open_own, replace_file

FORMAT = 3
MANIFEST = "manifest.json"
MOST_HEADER = 1 << 20  # bytes that describe the tensors of a part, some hundred each
# One file of the folder itself, whatever somebody has written into the manifest.
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,150}\.safetensors")
_ADVICE = "restore the file, or train again in another folder"


def save(
    folder: Path,
    header: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Tensor]],
    keep: Collection[str] = (),
    *,
    guard: Callable[[Mapping[str, Any] | None], None] = lambda present: None,
) -> dict[str, Any]:
    """Replace the checkpoint in ``folder``.

    Args:
        folder: made where missing.
        header: JSON values that go into the manifest.
        parts: name -> tensors, each written to a file of its own.
        keep: names of parts of the present checkpoint that the new one contains unchanged; they are not written again.
        guard: called with the present manifest right before the commit; it raises where the commit must not be.

    Returns:
        The new manifest.

    Raises:
        OSError: a file cannot be written; the previous checkpoint is still whole.
    """
    if folder.is_symlink():
        raise OSError(errno.EINVAL, "it is a link, through which the run would write elsewhere", folder)
    make_folder(folder)
    previous = read_manifest(folder) or {"save": 0, "parts": {}}
    number = previous["save"] + 1
    files = {name: previous["parts"][name] for name in keep}
    for name, tensors in parts.items():
        path = folder / f"{name}.{number}.safetensors"
        _write_part(path, tensors)
        files[name] = {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
    kept = {entry["file"] for entry in files.values()}
    old = {*previous.get("replaced", ()), *(entry["file"] for entry in previous["parts"].values())} - kept
    replaced = sorted(name for name in old if (folder / name).is_file())
    versions = {"format": FORMAT, "emix": __version__, "torch": str(torch.__version__)}
    manifest = {**versions, "save": number, **header, "parts": files, "replaced": replaced}
    text = json.dumps(manifest, indent=1).encode()
    guard(read_manifest(folder))
    replace_file(folder / MANIFEST, text)
    delete_replaced(folder, manifest)
    return manifest


def delete_replaced(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Delete the files of the checkpoint before, as a save does last: a run that was killed there has them still.

    Behind a link nothing is deleted.
    """
    if folder.is_symlink():
        return
    present = {entry["file"] for entry in manifest["parts"].values()}
    for name in manifest["replaced"]:
        if name not in present:
            with suppress(OSError):  # the checkpoint is made; the next one tries again
                (folder / name).unlink()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the checkpoint in ``folder``, None where there is none.

    Raises:
        UsageError: it is damaged or of another format.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    problem = f"{path} is not the manifest of an emix checkpoint"
    try:
        manifest = read_json(path, "the manifest of an emix checkpoint", finite=False)  # a setting may be infinite
        expect_keys(manifest, {"format": int}, problem)
        if manifest["format"] == FORMAT:
            _check(manifest, problem)
    except UsageError as error:
        raise UsageError(f"{error}; restore it, or train again in another folder") from error
    if (found := manifest["format"]) != FORMAT:
        raise UsageError(
            f"{path} has format {found!r}, this emix ({__version__}) reads {FORMAT}: use the emix that wrote it"
        )
    return manifest


def load(folder: Path, manifest: Mapping[str, Any], name: str, *, most: int | None = None) -> dict[str, Tensor]:
    """The tensors of part ``name``, on the CPU, after its size and SHA-256 have been checked. They are copies: nothing
    holds the file.

    Args:
        folder: of the checkpoint.
        manifest: of the checkpoint.
        name: of the part.
        most: bytes that the part can have at most, where that is known.

    Raises:
        UsageError: the part is missing or not what the manifest says.
    """
    if name not in manifest["parts"]:
        raise UsageError(f"{folder / MANIFEST} names no part {name!r}: expected a checkpoint that `emix train` wrote")
    entry = manifest["parts"][name]
    path = folder / entry["file"]
    if not path.is_file():
        raise UsageError(f"{path} is missing, but {MANIFEST} names it: {_ADVICE}")
    if (size := path.stat().st_size) != entry["bytes"]:
        raise UsageError(f"{path} is damaged: expected {entry['bytes']} bytes, got {size}; {_ADVICE}")
    if most is not None and size > most:
        raise UsageError(f"{path} does not belong to this run: expected at most {most} bytes, got {size}; {_ADVICE}")
    _check_header(path, size)
    if (digest := _sha256(path)) != entry["sha256"]:
        raise UsageError(
            f"{path} is damaged: expected SHA-256 {entry['sha256'][:12]}..., got {digest[:12]}...; {_ADVICE}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise UsageError(f"{path} is not a safetensors file: {one_line(error)}; {_ADVICE}") from error


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Whatever tensors lead to that are not a run's, said of the checkpoint."""
    try:
        yield
    except UsageError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UsageError(
            f"the checkpoint in {folder} does not fit the run ({type(error).__name__}: {one_line(error)}): "
            f"restore it, or train again in another folder"
        ) from error


def _check(manifest: dict[str, Any], problem: str) -> None:
    """Raise UsageError unless the manifest has what every checkpoint has."""
    expect_keys(manifest, {"emix": str, "torch": str, "save": int, "parts": dict}, problem)
    named = manifest.setdefault("replaced", [])
    if not isinstance(named, list):
        raise UsageError(f"{problem}: replaced expects a list, got {short(named)}")
    for name, entry in manifest["parts"].items():
        expect_keys(entry, {"file": str, "bytes": int, "sha256": str}, f"{problem}: part {short(name)}")
    for name in [*named, *(entry["file"] for entry in manifest["parts"].values())]:
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise UsageError(f"{problem}: expected names of .safetensors files in this folder, got {short(name)}")


def _write_part(path: Path, tensors: Mapping[str, Tensor]) -> None:
    descriptor = open_own(path, os.O_WRONLY)  # refuses a link, and says what mode a new file has here
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(str(error)) from error
    os.chmod(path, mode)  # safetensors has left it to its owner alone
    force_to_disk(path)


def _check_header(path: Path, size: int) -> None:
    """Raise UsageError where the description of the tensors is longer than any that emix writes."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(MOST_HEADER, size - 8):
        raise UsageError(
            f"{path} is not a part of an emix checkpoint: expected a header of at most "
            f"{max(0, min(MOST_HEADER, size - 8))} bytes, got {length}; {_ADVICE}"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
