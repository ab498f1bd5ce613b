"""What a name of multi-agent MuJoCo says: ``mamujoco/<scenario>-<factorisation>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emix.errors import UsageError, closest

FACTORISATIONS = {
    "Ant": ("2x4", "2x4d", "4x2"),
    "HalfCheetah": ("2x3", "6x1"),
    "Hopper": ("3x1",),
    "Humanoid": ("9|8",),
    "HumanoidStandup": ("9|8",),
    "Pusher": ("3p",),
    "Reacher": ("2x1",),
    "Swimmer": ("2x1",),
    "Walker2d": ("2x3",),
}
"""Those of gymnasium-robotics, by scenario."""
NAMES = tuple(f"{scenario}-{each}" for scenario, known in FACTORISATIONS.items() for each in known)
_SEGMENTED = {"ManySegmentAnt": "Ant", "ManySegmentSwimmer": "Swimmer"}  # scenario: the body that it is made of
_SEGMENTS = re.compile(r"(?P<agents>\d{1,3})x(?P<each>\d{1,3})", re.ASCII)
_MOST_SEGMENTS = 100  # MuJoCo's compiler takes minutes for more


@dataclass(frozen=True)
class MujocoTask:
    """A body whose joints are divided among agents."""

    scenario: str  # as gymnasium-robotics calls it
    factorisation: str
    body: str  # as gymnasium calls it, without its version
    segments: int = 0  # of a body that is put together of so many; 0: it is not


def read_task(name: str) -> MujocoTask:
    """The task of ``mamujoco/<scenario>-<factorisation>``.

    Raises:
        UsageError: it is no such name, or gymnasium-robotics cannot play it.
    """
    scenario, _, factorisation = name.removeprefix("mamujoco/").partition("-")
    if scenario == "CoupledHalfCheetah":
        raise UsageError(
            f"{name}: gymnasium-robotics 1.4.2 cannot play it (IndexError): it reads the tendon's Jacobian as rows of "
            f"a matrix, which today's MuJoCo gives in sparse form: choose HalfCheetah-2x3 or HalfCheetah-6x1"
        )
    if scenario in _SEGMENTED:
        match = _SEGMENTS.fullmatch(factorisation)
        agents, each = (int(match["agents"]), int(match["each"])) if match else (0, 0)
        if not (agents >= 2 and each >= 1 and agents * each <= _MOST_SEGMENTS):
            raise UsageError(
                f"{name}: expected {scenario}-<n>x<k>, n agents (2 or more) with k segments each, {_MOST_SEGMENTS} "
                f"segments at most, got {factorisation or 'none'}"
            )
        return MujocoTask(scenario, f"{agents}x{each}", _SEGMENTED[scenario], segments=agents * each)
    if scenario not in FACTORISATIONS:
        raise UsageError(f"{name}: unknown scenario {scenario!r}, {closest(scenario, (*FACTORISATIONS, *_SEGMENTED))}")
    if factorisation not in FACTORISATIONS[scenario]:
        known = ", ".join(FACTORISATIONS[scenario])
        raise UsageError(f"{name}: {scenario} is divided as one of {known}, got {factorisation or 'none'}")
    return MujocoTask(scenario, factorisation, scenario)
