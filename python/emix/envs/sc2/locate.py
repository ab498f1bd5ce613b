"""Where StarCraft II and SMAC's maps are: the places where pysc2, and so SMAC, looks for them."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from emix.errors import UsageError

OLDEST = 55958  # the first build whose API SMAC's maps were made for
INSTALL = (
    "wget https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip && unzip -P iagreetotheeula SC2.4.10.zip -d ~ "
    "(the password accepts Blizzard's licence), or set SC2PATH to the folder where it is"
)
INSTALL_MAPS = (
    "wget https://github.com/oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip && unzip SMAC_Maps.zip -d '{maps}'"
)


@dataclass(frozen=True)
class Installation:
    """A StarCraft II on this machine."""

    root: Path
    executable: Path
    build: int  # 75689 for 4.10

    @property
    def maps(self) -> Path:
        """The folder of SMAC's maps."""
        return self.root / "Maps" / "SMAC_Maps"


def find_game(build: int | None = None) -> Installation:
    """StarCraft II in ``$SC2PATH``, or else in ``~/StarCraftII``: its newest build, or ``build``.

    Raises:
        UsageError: it is not there; the text says how to get it.
    """
    root = game_folder()
    builds = _builds(root)
    if not builds:
        raise UsageError(f"StarCraft II is not in {root} (no Versions/Base<build>/{_EXECUTABLE} there): {INSTALL}")
    chosen = max(builds) if build is None else build
    if chosen not in builds:
        known = ", ".join(map(str, sorted(builds)))
        raise UsageError(f"StarCraft II of build {chosen} is not in {root}, which has {known}: choose one of these")
    if chosen < OLDEST:
        raise UsageError(f"StarCraft II of build {chosen} in {root} is older than {OLDEST}, SMAC's oldest: {INSTALL}")
    return Installation(root, builds[chosen], chosen)


def find_map(game: Installation, name: str) -> Path:
    """The map's file: ``Maps/SMAC_Maps/<name>.SC2Map``, or one folder deeper.

    Raises:
        UsageError: it is not there; the text says how to get SMAC's maps.
    """
    for folder in (game.maps, *sorted(each for each in game.maps.glob("*") if each.is_dir())):
        path = folder / f"{name}.SC2Map"
        if path.is_file():
            return path
    there = sorted(path.stem for path in game.maps.glob("**/*.SC2Map"))
    found = f"it has {', '.join(there)}" if there else "it has no maps"
    command = INSTALL_MAPS.format(maps=game.root / "Maps")
    raise UsageError(f"the map {name}.SC2Map is not in {game.maps} ({found}): {command}")


def game_folder() -> Path:
    """Where StarCraft II is looked for."""
    named = os.environ.get("SC2PATH")
    if named:
        return Path(named).expanduser()
    return Path("/Applications/StarCraft II") if sys.platform == "darwin" else Path.home() / "StarCraftII"


_EXECUTABLE = "SC2.app/Contents/MacOS/SC2" if sys.platform == "darwin" else "SC2_x64"


def _builds(root: Path) -> dict[int, Path]:
    """The executables by build."""
    found = {}
    for folder in root.glob("Versions/Base*"):
        match, path = re.fullmatch(r"Base(\d+)", folder.name), folder / _EXECUTABLE
        if match and path.is_file() and os.access(path, os.X_OK):
            found[int(match[1])] = path
    return found
