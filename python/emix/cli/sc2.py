"""``emix sc2 check``: where the game and its simulation differ, on a machine that has StarCraft II."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from emix.cli.options import read_command_line
from emix.data.integers import check_seed
from emix.envs.options import closest
from emix.envs.sc2.packages import missing_for_sc2
from emix.envs.sc2.scripts import SCRIPTS
from emix.errors import UsageError


@dataclass(frozen=True)
class Sc2:
    """Play scripted orders in StarCraft II and in the battle, and print what differs. Exits with 1 where any does."""

    what: Annotated[Positional[Literal["check"]], tyro.conf.arg(metavar="WHAT")]
    """check."""
    script: tuple[str, ...] = ()
    """Only these: run, between, retreat, shoot, missiles, mixed."""
    seed: int = 0
    """Of the game's and the battle's random numbers."""
    build: int | None = None
    """Of StarCraft II, such as 75689 for 4.10; None: the newest that is installed."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Sc2, arguments, "sc2")
    seed = check_seed("seed", chosen.seed)
    for name in chosen.script:
        if name not in SCRIPTS:
            raise UsageError(f"unknown script {name!r}, {closest(name, SCRIPTS)}")
    lacks, mend = missing_for_sc2()
    if lacks:
        raise UsageError(f"emix sc2 check cannot play: {lacks}: {mend}")
    from emix.envs.sc2.check import check_script  # which needs what may be missing

    found = []
    for name in dict.fromkeys(chosen.script or SCRIPTS):
        script = SCRIPTS[name]
        try:
            new = check_script(name, script, seed=seed, build=chosen.build)
        except RuntimeError as error:  # the game was lost
            print(f"emix: {error}", file=sys.stderr)
            return 1
        print(f"{name} ({script.map}: {script.what}): {len(new)} differences", flush=True)
        found += new
    if not found:
        print("the game and the battle do not differ in what was looked at")
        return 0
    table = Table()
    for column in ("where", "what", "whose", "game", "battle"):
        table.add_column(column)
    for row in dict.fromkeys(found):  # scripts of one map have its data in common
        table.add_row(row.where, row.what, row.whose, _text(row.game), _text(row.battle))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
    return 1


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
