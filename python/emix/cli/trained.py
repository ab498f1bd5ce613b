"""What ``emix eval`` and ``emix replay`` share: the networks of a run's last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emix import learners
from emix.envs.core import EnvSpec
from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.training import checkpoint
from emix.training.run import CHECKPOINT, Settings, read_settings
from emix.training.state import refuse_other_settings


def read_trained(run: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings of a run and the manifest of its checkpoint.

    Raises:
        UsageError: there is no run or no checkpoint, or one is damaged or of other settings.
    """
    settings = read_settings(run)
    folder = run / CHECKPOINT
    manifest = checkpoint.read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{run} has no checkpoint yet: wait for one, or run `emix resume {run}`")
    refuse_other_settings(folder, settings, manifest)
    return settings, manifest


def load_learner(
    run: Path, settings: Settings, manifest: dict[str, Any], spec: EnvSpec, device: torch.device
) -> Learner:
    """The learner as the checkpoint holds it, for environments of ``spec``."""
    learner = learners.get(settings.algorithm).learner(
        settings.learner, spec, device=device, seed=0, precision=settings.training.precision
    )
    learner.load_state_dict(checkpoint.load(run / CHECKPOINT, manifest, "learner"))
    return learner
