"""Training: ``train`` makes a run in one call, ``load`` gives its policy back; below them the loop and a run's files.

``docs/training.md`` shows how the pieces work alone.
"""

from emix.training.captured import CapturedUpdate
from emix.training.config import TrainingConfig
from emix.training.loop import DivergenceError
from emix.training.metrics import read_rows
from emix.training.owner import LostRunError
from emix.training.plot import plot_runs
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
