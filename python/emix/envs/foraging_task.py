"""What an id of level-based foraging says: ``Foraging[-<k>s]-<s>x<s>-<p>p-<f>f[-coop]-v<version>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emix.envs.registry import unknown_name
from emix.errors import UsageError

_ID = re.compile(
    r"(?:lbf|foraging)/Foraging(?:-(?P<sight>\d{1,4})s)?-(?P<rows>\d{1,4})x(?P<cols>\d{1,4})-(?P<players>\d{1,4})p"
    r"-(?P<foods>\d{1,4})f(?P<coop>-coop)?-v(?P<version>\d+)",
    re.ASCII,
)


@dataclass(frozen=True)
class ForagingTask:
    """``players`` gather ``foods`` on a field of ``size`` x ``size`` cells, seeing ``sight`` cells far."""

    size: int
    players: int
    foods: int
    sight: int  # ``size`` sees everything
    coop: bool  # whether every food takes as many levels as the three weakest players have
    version: int


def read_task(name: str) -> ForagingTask:
    """The task of ``lbf/<id>`` or ``foraging/<id>``; ids beyond those that lbforaging registers, too: 10x10-3p-5f.

    Raises:
        UsageError: it is no such id, or its numbers make no sense.
    """
    match = _ID.fullmatch(name)
    if match is None:
        raise unknown_name(name)
    rows, cols, players, foods = (int(match[key]) for key in ("rows", "cols", "players", "foods"))
    sight = int(match["sight"] or rows)
    if rows != cols or rows < 5:
        raise UsageError(f"{name}: the field must be square with sides of at least 5, got {rows}x{cols}")
    most = rows * rows // 4
    if not (2 <= players <= 2 * most and 1 <= foods <= most and 1 <= sight <= rows):
        raise UsageError(
            f"{name}: this field takes 2 to {2 * most} players, 1 to {most} foods and a sight of 1 to {rows}, "
            f"got {players}, {foods} and {sight}"
        )
    return ForagingTask(rows, players, foods, sight, match["coop"] is not None, int(match["version"]))
