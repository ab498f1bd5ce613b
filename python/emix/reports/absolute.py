"""The absolute metric of a run: its best policy, tested anew on ten times the episodes of a test.

Gorsane et al., "Towards a standardised performance evaluation protocol for cooperative MARL", 2022. The best of many
tests of few episodes is partly luck, which the new episodes have no part in: they are those of
``emix eval RUN --best``, which neither training nor its tests have seen. What was measured is stored in the run's
folder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emix._version import __version__
from emix.errors import UsageError
from emix.reading import expect_keys, read_json
from emix.training.files import replace_file
from emix.training.folder import CHECKPOINT
from emix.training.settings import read_settings

ABSOLUTE = "absolute.json"
TIMES = 10  # the episodes of a test


@dataclass(frozen=True)
class Absolute:
    """What the best policy of a run has shown.

    Args:
        env_steps: that it was trained for.
        episodes: that it played.
        values: of each metric of a test, its mean over them.
    """

    env_steps: int
    episodes: int
    values: dict[str, float]


def absolute(folder: Path) -> Absolute:
    """That of the run in a folder, on the CPU: measured where it has not been measured yet of this policy.

    Raises:
        UsageError: the run has no best policy, cannot be played here or was trained under other rules, or is damaged,
            or the folder cannot be written.
    """
    settings = read_settings(folder)
    digest, episodes = _digest(folder), TIMES * settings.training.test_episodes
    if digest is not None and (stored := _stored(folder, digest, episodes)):
        return stored
    if other := settings.other_rules():
        raise UsageError(f"{folder} {other}: it can be measured by the emix that made it alone")
    from emix.training.trained import load  # loads torch, which a report of records need not wait for

    policy = load(folder, best=True)  # says where there is none
    measured = policy.evaluate(episodes).items()
    values = {name: value for name, value in measured if name.endswith("_mean") and math.isfinite(value)}
    found = Absolute(policy.env_steps, episodes, values)
    content = json.dumps({**asdict(found), "policy": digest, "emix": __version__}, indent=1).encode() + b"\n"
    try:
        replace_file(folder / ABSOLUTE, content)
    except OSError as error:
        raise UsageError(f"cannot write {folder / ABSOLUTE}: {error.strerror or error}; report on a copy") from error
    return found


def parse_absolute(values: Mapping[str, Any], problem: str) -> Absolute:
    """Of what JSON has of one.

    Raises:
        UsageError: something is missing or of another kind; the message begins with ``problem``.
    """
    expect_keys(values, {"env_steps": int, "episodes": int, "values": dict}, problem)
    expect_keys(values["values"], dict.fromkeys(values["values"], (int, float)), problem)
    return Absolute(values["env_steps"], values["episodes"], dict(values["values"]))


def _digest(folder: Path) -> str | None:
    """The SHA-256 of the run's best policy, where there is one."""
    from emix.training.state import read_checkpoint

    manifest = read_checkpoint(folder / CHECKPOINT) or {}
    part = manifest.get("parts", {}).get(f"best-{(manifest.get('best') or {}).get('env_steps')}")
    return None if part is None else str(part["sha256"])


def _stored(folder: Path, digest: str, episodes: int) -> Absolute | None:
    """What was measured of the policy with this SHA-256 on so many episodes, where that was stored."""
    path = folder / ABSOLUTE
    if not os.path.lexists(path):
        return None
    problem = f"{path} is not an absolute metric; delete it, and it is measured anew"
    values = read_json(path, "an absolute metric")
    found = parse_absolute(values, problem)
    return found if (values.get("policy"), found.episodes) == (digest, episodes) else None
