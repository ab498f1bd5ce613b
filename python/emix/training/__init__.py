"""Training: the loop, what it needs, and the files of a run.

The pieces also work alone: ``collect`` plays episodes, ``Replay`` stores them, ``evaluate`` tests a learner,
``plot_runs`` draws. ``docs/training.md`` shows how.
"""

from emix.training.captured import CapturedRollout, CapturedUpdate
from emix.training.config import TrainingConfig
from emix.training.evaluate import evaluate
from emix.training.loop import DivergenceError, StopRequest, train
from emix.training.metrics import read_rows
from emix.training.plot import plot_runs
from emix.training.progress import Progress
from emix.training.replay import Replay
from emix.training.rollout import Rollout, collect
from emix.training.run import Settings, locked, make_settings, read_settings, run_folder, write_config
from emix.training.state import TrainingState

__all__ = [
    "CapturedRollout",
    "CapturedUpdate",
    "DivergenceError",
    "Progress",
    "Replay",
    "Rollout",
    "Settings",
    "StopRequest",
    "TrainingConfig",
    "TrainingState",
    "collect",
    "evaluate",
    "locked",
    "make_settings",
    "plot_runs",
    "read_rows",
    "read_settings",
    "run_folder",
    "train",
    "write_config",
]
