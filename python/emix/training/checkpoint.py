"""A folder of tensors that is whole at every moment, whenever the process is killed.

``manifest.json`` names the data files with their sizes and SHA-256. A save writes new data files under new names,
forces them to the disk, and then replaces ``manifest.json``: that one rename is the commit. Only then are the files
deleted that no longer count. Tensors are safetensors, everything else is JSON: loading executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emix._version import __version__
from emix.errors import UsageError

FORMAT = 3
MANIFEST = "manifest.json"


def save(
    folder: Path, header: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]], keep: Collection[str] = ()
) -> None:
    """Replace the checkpoint in ``folder``.

    Args:
        folder: made where missing.
        header: JSON values that go into the manifest.
        parts: name -> tensors, each written to a file of its own.
        keep: names of parts of the present checkpoint that the new one contains unchanged; they are not written again.

    Raises:
        OSError: a file cannot be written; the previous checkpoint is still whole.
    """
    folder.mkdir(exist_ok=True)
    previous = read_manifest(folder) or {"save": 0, "parts": {}}
    number = previous["save"] + 1
    files = {name: previous["parts"][name] for name in keep}
    for name, tensors in parts.items():
        path = folder / f"{name}.{number}.safetensors"
        try:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
        except SafetensorError as error:  # how it says that the disk is full
            raise OSError(str(error)) from error
        _force_to_disk(path)
        files[name] = {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
    versions = {"format": FORMAT, "emix": __version__, "torch": str(torch.__version__)}
    manifest = {**versions, "save": number, **header, "parts": files}
    draft = folder / f"{MANIFEST}.new"
    draft.write_text(json.dumps(manifest, indent=1))
    _force_to_disk(draft)
    os.replace(draft, folder / MANIFEST)
    _force_to_disk(folder)
    named = {MANIFEST, *(entry["file"] for entry in files.values())}
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the checkpoint in ``folder``, None where there is none.

    Raises:
        UsageError: it is damaged or of another format.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        found = manifest["format"]
        if found == FORMAT:
            {name: (entry["file"], entry["bytes"], entry["sha256"]) for name, entry in manifest["parts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not the manifest of an emix checkpoint ({type(error).__name__}: {error}): "
            f"restore it, or train again in another folder"
        ) from error
    if found != FORMAT:
        raise UsageError(
            f"{path} has format {found!r}, this emix ({__version__}) reads {FORMAT}: use the emix that wrote it"
        )
    return manifest


def load(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of part ``name``, on the CPU, after its size and SHA-256 have been checked.

    Raises:
        UsageError: the part is missing or not what the manifest says.
    """
    if name not in manifest["parts"]:
        raise UsageError(f"{folder / MANIFEST} names no part {name!r}: expected a checkpoint that `emix train` wrote")
    entry = manifest["parts"][name]
    path = folder / entry["file"]
    advice = "restore the file, or train again in another folder"
    if not path.is_file():
        raise UsageError(f"{path} is missing, but {MANIFEST} names it: {advice}")
    if (size := path.stat().st_size) != entry["bytes"]:
        raise UsageError(f"{path} is damaged: expected {entry['bytes']} bytes, got {size}; {advice}")
    if (digest := _sha256(path)) != entry["sha256"]:
        raise UsageError(
            f"{path} is damaged: expected SHA-256 {entry['sha256'][:12]}..., got {digest[:12]}...; {advice}"
        )
    return load_file(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _force_to_disk(path: Path) -> None:
    """fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
