"""The policy of a run's best test so far, which its checkpoints keep beside the present one.

It is what the absolute metric is measured of (Gorsane et al., "Towards a standardised performance evaluation protocol
for cooperative MARL", 2022): the best parameters of a training, evaluated anew with ten times the episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Target
from emix.reading import expect_keys
from emix.training import checkpoint
from emix.training.rows import RETURN, WON


class Best:
    """Of the tests seen so far the best one and the policy that was tested; of equal ones the later.

    What counts is the win rate where the first test has one, else the return. A test without that number, or in which
    it is none, is passed over.
    """

    def __init__(self) -> None:
        self.metric: str | None = None
        self.score = -math.inf
        self.env_steps = 0
        self.policy: dict[str, Tensor] = {}  # of the learner's parts; empty: there was no test yet

    def consider(self, row: Mapping[str, float], env_steps: int, parts: Parts) -> None:
        """Take in what a test has measured of the policy as it is now, after so many environment steps."""
        self.metric = self.metric or (WON if WON in row else RETURN)
        score = row.get(self.metric, math.nan)
        if math.isfinite(score) and score >= self.score:
            self.score, self.env_steps, self.policy = score, env_steps, policy_of(parts)

    @property
    def part(self) -> str | None:
        """What the checkpoint calls it; None where there is none yet."""
        return f"best-{self.env_steps}" if self.policy else None

    def header(self) -> dict[str, Any] | None:
        """What the manifest says of it."""
        if not self.policy:
            return None
        return {"metric": self.metric, "score": self.score, "env_steps": self.env_steps}


def policy_of(parts: Parts) -> dict[str, Tensor]:
    """All that playing may read: a learner's parts without optimisers and targets, as copies on the CPU."""
    others = tuple(f"{name}." for name, part in parts.parts.items() if isinstance(part, Optimiser | Target))
    state = parts.state_dict()
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items() if not name.startswith(others)}


def check_header(manifest: Mapping[str, Any], problem: str) -> None:
    """Raise UsageError unless a manifest says of a best test what a run writes, or nothing."""
    if (header := manifest.get("best")) is not None:
        expect_keys(manifest, {"best": dict}, problem)
        expect_keys(header, {"metric": str, "score": (int, float), "env_steps": int}, f"{problem}: best")


def restore_best(folder: Path, manifest: Mapping[str, Any], most: int) -> Best | None:
    """As a checkpoint has it; None where an emix has made it that kept none: which test was the best is not known any
    more.

    Args:
        folder: of the checkpoint.
        manifest: of the checkpoint.
        most: bytes that the policy can have.

    Raises:
        UsageError: it is damaged.
    """
    if "best" not in manifest:
        return None
    best = Best()
    if header := manifest["best"]:
        best.metric, best.score, best.env_steps = header["metric"], header["score"], header["env_steps"]
        best.policy = checkpoint.load(folder, manifest, f"best-{best.env_steps}", most=most)
    return best


def load_best(learner: Learner, folder: Path, manifest: Mapping[str, Any], what: str, most: int) -> int:
    """Let a learner that a checkpoint was loaded into play as at the best test; say after how many environment steps
    that was.

    Raises:
        UsageError: the checkpoint has none, or is damaged.
    """
    best = restore_best(folder, manifest, most)
    if best is None:
        raise UsageError(
            f"{folder} has no best test: emix {manifest['emix']} has begun the run, which kept none; "
            f"evaluate its last networks, or train again in another folder"
        )
    if not best.policy:
        raise UsageError(f"{folder} has no best test: none has a finite {RETURN} so far; `emix resume` goes on")
    with checkpoint.explained(folder):
        learner.parts.load_state_dict({**learner.parts.state_dict(), **best.policy}, what)
    return best.env_steps
