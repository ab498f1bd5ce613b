"""Training: ``train`` makes a run in one call, ``load`` gives its policy back; below them the loop and a run's files.

``docs/training.md`` shows how the pieces work alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emix._lazy import lazy_names

if TYPE_CHECKING:
    from emix.training.captured import CapturedUpdate
    from emix.training.config import TrainingConfig
    from emix.training.loop import DivergenceError
    from emix.training.owner import LostRunError
    from emix.training.plot import plot_runs
    from emix.training.rows import read_rows
    from emix.training.run import Run
    from emix.training.running import Result, train
    from emix.training.settings import Settings, make_settings, read_settings, run_folder
    from emix.training.state import TrainingState
    from emix.training.trained import Trained, load

__all__ = [
    "CapturedUpdate",
    "DivergenceError",
    "LostRunError",
    "Result",
    "Run",
    "Settings",
    "Trained",
    "TrainingConfig",
    "TrainingState",
    "load",
    "make_settings",
    "plot_runs",
    "read_rows",
    "read_settings",
    "run_folder",
    "train",
]

# torch looks at it once, at a process's first product on a GPU or at the first deterministic one: before a training.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Imported when they are first used: a picture of a run, or the help of a command, need not wait for torch.
_LAZY = {
    "CapturedUpdate": "emix.training.captured",
    "DivergenceError": "emix.training.loop",
    "LostRunError": "emix.training.owner",
    "Result": "emix.training.running",
    "Run": "emix.training.run",
    "Settings": "emix.training.settings",
    "Trained": "emix.training.trained",
    "TrainingConfig": "emix.training.config",
    "TrainingState": "emix.training.state",
    "load": "emix.training.trained",
    "make_settings": "emix.training.settings",
    "plot_runs": "emix.training.plot",
    "read_rows": "emix.training.rows",
    "read_settings": "emix.training.settings",
    "run_folder": "emix.training.settings",
    "train": "emix.training.running",
}

__getattr__ = lazy_names(__name__, _LAZY)
