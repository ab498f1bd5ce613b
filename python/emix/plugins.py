"""Code of users' own: environments and learners that packages announce, or that ``--import`` names.

A package announces by entry points of the groups ``emix.envs`` and ``emix.learners``: each names a function without
arguments that registers, or a module whose import does. ``--import`` takes a module's name or a ``.py`` file; a run
remembers it, and ``resume``, ``eval``, ``plot`` and ``sweep`` import it again, but only what this account has named
itself before: a folder from somebody else cannot have code run.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import cloudpickle

from emix.errors import UsageError


@cache
def load_entry_points(group: str) -> tuple[str, ...]:
    """Let every installed package of the group register; once.

    Returns:
        A sentence for each that fails, which is also warned of: the others, and all that emix brings, work without it.
        It belongs into the message where a name is unknown that may be the package's.
    """
    broken = []
    for entry in entry_points(group=group):
        try:
            found = entry.load()
            if callable(found):
                found()
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist else "a package"
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            broken.append(
                f"{package} announces {entry.name!r} for {group}, which cannot be loaded ({cause}): mend it, or pip "
                f"uninstall {package}"
            )
            warnings.warn(f"emix goes on without it: {broken[-1]}", RuntimeWarning, stacklevel=2)
    return tuple(broken)


def import_named(names: Iterable[str]) -> tuple[str, ...]:
    """Import what a user names, and remember that this account trusts it.

    Args:
        names: modules, found in the working folder or where Python finds modules, or ``.py`` files.

    Returns:
        What to hand to ``import_again``: names of installed modules, full paths of files.

    Raises:
        UsageError: there is no such module, or it fails.
    """
    found = tuple(_place(name) for name in names)
    for name in found:
        _import(name)
    if new := [name for name in found if name not in _trusted()]:
        _trust_file().parent.mkdir(parents=True, exist_ok=True)
        _trust_file().write_text(json.dumps(sorted({*_trusted(), *new}), indent=1) + "\n")
    return found


def import_again(found: Iterable[str], run: Path) -> None:
    """Import what a run names, if this account has named it before.

    Raises:
        UsageError: it never has, the module is gone, or it fails.
    """
    for name in found:
        if name not in _trusted():
            raise UsageError(
                f"{run} was trained with --import {name}, which nobody on this account has imported: "
                f"look at it, and give --import {name} here, too, if you trust it"
            )
        _import(name)


def _place(name: str) -> str:
    """The full path of a module's file, or, where it is installed, its name."""
    file = Path(name).expanduser()
    if file.suffix == ".py":
        if not file.is_file():
            raise UsageError(f"--import {name}: there is no such file")
        return str(file.resolve())
    beside = Path(*name.split(".")).with_suffix(".py")
    return str(beside.resolve()) if beside.is_file() else name


def _import(name: str) -> None:
    try:
        if not name.endswith(".py"):
            importlib.import_module(name)
            return
        file = Path(name)
        if str(file) in _files:
            return
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"Python has no loader for {file.name}")
        module = importlib.util.module_from_spec(spec)
        if sys.modules.setdefault(file.stem, module) is module:  # dataclasses and pickling look their module up there
            cloudpickle.register_pickle_by_value(module)  # an environment's worker processes cannot import it
        spec.loader.exec_module(module)
        _files.add(str(file))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--import {name} fails ({type(error).__name__}: {error})") from error


_files: set[str] = set()  # imported already


def _trust_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "emix" / "imports.json"


def _trusted() -> list[str]:
    try:
        names = json.loads(_trust_file().read_text())
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
