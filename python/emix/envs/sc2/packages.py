"""Which packages are there for ``sc2/<map>`` and ``smac/<map>``, and the commands that mend what is wrong.

``s2clientprotocol`` and ``pys2clientprotocol`` install the same folder: the first, made by an old compiler of protobuf,
works with protobuf 3 alone or in its slow pure-Python mode; the second works with protobuf 6 and 7. SMAC is not on
PyPI, where ``smac`` is AutoML's optimiser, and works with either of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from emix.envs.sc2.locate import INSTALL_MAPS, find_game
from emix.errors import UsageError

SC2_PACKAGES = 'pip install "emix[sc2]"'
_PROTOCOL = "pip uninstall -y s2clientprotocol pys2clientprotocol && pip install pys2clientprotocol"
# pysc2's own requirements keep protobuf below 3.21 and bring much that SMAC does not use.
_SMAC = (
    "pip install pys2clientprotocol websocket-client absl-py portpicker && "
    "pip install --no-deps pysc2 git+https://github.com/oxwhirl/smac.git"
)


@dataclass(frozen=True)
class Look:
    """What one look has found. ``broken`` is there, but does not work."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    mend: str = ""


def missing_for_sc2() -> tuple[str, str]:
    """What ``sc2/<map>`` lacks, and the command that mends it; both empty where it lacks nothing."""
    return _first(look_at_protocol(), look_at_websocket(), look_at_game(), look_at_maps())


def missing_for_smac() -> tuple[str, str]:
    """What ``smac/<map>`` lacks, and the command that mends it; both empty where it lacks nothing."""
    return _first(look_at_smac(), look_at_game(), look_at_maps())


def look_at_smac() -> Look:
    """Whether SMAC is there, whether it is SMAC, and whether it can be imported."""
    folders = _folders("smac")
    if not folders:
        return Look("SMAC", "missing", "SMAC is not installed (needed only for smac/ environments)", _SMAC)
    if not any((folder / "env" / "__init__.py").is_file() for folder in folders):
        found = f"smac {_version('smac') or ''}".strip()
        clash = f"{found} in {folders[0]} is another package of the same name (PyPI's is AutoML's optimiser)"
        return Look("SMAC", "broken", clash, f"pip uninstall -y smac && {_SMAC}")
    try:
        import_module("smac.env")
    except Exception as error:  # of a package that it needs, or of one that does not fit
        return Look("SMAC", "broken", f"smac.env cannot be imported ({_text(error)})", _SMAC)
    return Look("SMAC", "ok", f"{_version('smac') or 'without a version'} in {folders[0]}")


def look_at_protocol() -> Look:
    """Which of the two packages has StarCraft II's messages, which protobuf there is, and whether they fit."""
    new, old, protobuf = (_version(name) for name in ("pys2clientprotocol", "s2clientprotocol", "protobuf"))
    there = [f"{name} {found}" for name, found in (("pys2clientprotocol", new), ("s2clientprotocol", old)) if found]
    names = f"{' and '.join(there) or 'no package'} with protobuf {protobuf or 'missing'}"
    if find_spec("s2clientprotocol") is None:
        return Look("SC2 messages", "missing", "s2clientprotocol is not installed", SC2_PACKAGES)
    try:
        from s2clientprotocol import sc2api_pb2

        sc2api_pb2.Request.FromString(sc2api_pb2.Request(id=1).SerializeToString())
    except Exception as error:  # TypeError, AttributeError, ImportError, by protobuf's version
        return Look("SC2 messages", "broken", f"{names} cannot be imported ({_text(error)})", _PROTOCOL)
    if new and old:
        clash = f"{names}: both install the folder s2clientprotocol, and the one that came last is there"
        return Look("SC2 messages", "broken", clash, _PROTOCOL)
    return Look("SC2 messages", "ok", names)


def look_at_websocket() -> Look:
    """Whether ``websocket-client`` is there: another package, ``websocket``, has the same import name."""
    spec = find_spec("websocket")
    if spec is None:
        return Look("websocket-client", "missing", "websocket-client is not installed", SC2_PACKAGES)
    if not any((folder / "_core.py").is_file() for folder in _folders("websocket")):
        mend = "pip uninstall -y websocket && pip install --force-reinstall websocket-client"
        return Look("websocket-client", "broken", "the import name websocket is that of another package", mend)
    return Look("websocket-client", "ok", _version("websocket-client") or "")


def look_at_game() -> Look:
    """Whether StarCraft II is where SMAC looks for it."""
    try:
        game = find_game()
    except UsageError as error:
        detail, _, mend = str(error).partition(": ")
        return Look("StarCraft II", "missing", detail, mend)
    return Look("StarCraft II", "ok", f"build {game.build} in {game.root}")


def look_at_maps() -> Look:
    """Whether SMAC's maps are where SMAC looks for them."""
    try:
        game = find_game()
    except UsageError:
        return Look("SMAC's maps", "missing", "no StarCraft II", "")
    count = len(list(game.maps.glob("**/*.SC2Map")))
    if count == 0:
        mend = INSTALL_MAPS.format(maps=game.root / "Maps")
        return Look("SMAC's maps", "missing", f"there are none in {game.maps}", mend)
    return Look("SMAC's maps", "ok", f"{count} in {game.maps}")


def _first(*looks: Look) -> tuple[str, str]:
    return next(((look.detail, look.mend) for look in looks if look.state != "ok"), ("", ""))


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _folders(package: str) -> list[Path]:
    """Where a package lies, without importing it."""
    spec = find_spec(package)
    return [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
