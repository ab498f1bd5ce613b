"""One battle at one moment as small NumPy arrays, and the moments between two environment steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from emix.envs.battle.fields import CLOCK, LOOPS, MIND, STAT, UNIT

if TYPE_CHECKING:
    from torch import Tensor

    from emix.envs.battle.scenario import Scenario


@dataclass(frozen=True)
class Frame:
    """A battle at one moment. The arrays are [slots]; csrc/battle/fields.h says what the rows of these names hold."""

    x: np.ndarray
    y: np.ndarray
    health: np.ndarray
    shield: np.ndarray
    energy: np.ndarray
    aim_x: np.ndarray
    aim_y: np.ndarray
    goal_x: np.ndarray
    goal_y: np.ndarray
    kind: np.ndarray
    order: np.ndarray
    order_target: np.ndarray
    target: np.ndarray
    victim: np.ndarray  # of the last shot
    held: np.ndarray
    fired: np.ndarray  # loops since the unit's last shot
    dead: np.ndarray  # loops since the unit died; infinite where it lives or nobody saw it die
    step: int
    status: int
    closed: int
    total: float | None  # reward so far, where somebody has added it up


class Battles(Protocol):
    """What is looked at: a ``BattleEnv``."""

    scenario: Scenario
    units: Tensor  # [B, rows, slots]
    minds: Tensor  # [B, rows, slots]
    clock: Tensor  # [B, rows]


def snapshot(env: Battles, index: int = 0, *, total: float | None = None) -> Frame:
    """Copy battle ``index`` of ``env`` to the CPU; ``total`` is the reward so far, which the battle does not know."""
    units, minds, clock = (rows[index].cpu().numpy().copy() for rows in (env.units, env.minds, env.clock))
    rows = {name: units[row] for name, row in UNIT.items()} | {name: minds[row] for name, row in MIND.items()}
    stats = env.scenario.stats[:, rows["kind"]]  # [rows, slots]
    full = stats[STAT["period"]] - stats[STAT["windup"]]  # [slots]: of a shot, a random bit more
    return Frame(
        **{name: rows[name] for name in Frame.__dataclass_fields__ if name in rows},
        fired=np.maximum(full - rows["cooldown"], 0.0),
        dead=np.full_like(full, np.inf),
        step=int(clock[CLOCK["step"]]),
        status=int(clock[CLOCK["status"]]),
        closed=int(clock[CLOCK["closed"]]),
        total=total,
    )


def follow(before: Frame, after: Frame) -> Frame:
    """``after``, which comes one environment step later, with the time since each death."""
    died = np.where((before.health > 0) & (after.health <= 0), 0.0, before.dead + LOOPS)
    return replace(after, dead=np.where(after.health > 0, np.inf, died))


def between(before: Frame, after: Frame, fraction: float) -> Frame:
    """The moment ``fraction`` (0 to 1) of the way from ``before`` to ``after``, one environment step later.

    What moves or fills moves on a straight line. A shot is ``after``'s from the loop on in which it left.
    """
    if fraction >= 1:
        return after
    elapsed, ahead = LOOPS * fraction, LOOPS * (1 - fraction)
    lines = {
        name: (1 - fraction) * getattr(before, name) + fraction * getattr(after, name)
        for name in ("x", "y", "health", "shield", "energy")
    }
    shot = (after.fired >= ahead) & (after.fired < LOOPS)  # [slots], it has left since `before`
    rows = {name: np.where(shot, getattr(after, name), getattr(before, name)) for name in ("victim", "aim_x", "aim_y")}
    return replace(
        before,
        **lines,
        **rows,
        fired=np.where(shot, after.fired - ahead, before.fired + elapsed),
        dead=before.dead + elapsed,
    )
