"""What ``emix train`` and ``emix resume`` share: what is told, and how a run that fails is told of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from emix.envs.host import EnvWorkerError
from emix.errors import UsageError, is_out_of_memory
from emix.reading import one_line
from emix.training.folder import CHECKPOINT, finished
from emix.training.listener import say
from emix.training.loop import DivergenceError
from emix.training.machine import crowded
from emix.training.owner import LostRunError
from emix.training.progress import Progress
from emix.training.run import Run
from emix.training.running import CURVE, result, run_to_end
from emix.training.settings import CONFIG
from emix.training.signals import stop_on_signals
from emix.training.state import read_checkpoint


def carry_out(opened: AbstractContextManager[Run], folder: Path, introduce: Callable[[Run], str], steps: int) -> int:
    """Train the run that ``opened`` gives to its end, of so many steps, and return the exit code."""
    progress = Progress(steps)
    with stop_on_signals(progress) as stop:
        try:
            with opened as run:
                progress.say(introduce(run))
                if warning := crowded(run.settings.training.threads):
                    progress.say(warning)
                stopped = run_to_end(run, progress, stop)
        except (DivergenceError, LostRunError) as error:
            return _failed(1, str(error))
        except EnvWorkerError as error:
            return _failed(1, str(error), *_how_to_resume(folder))
        except OSError as error:
            what = f"cannot write {error.filename or folder}: {error.strerror or error}"
            return _failed(1, "; ".join([what, *_how_to_resume(folder)]))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return _failed(1, f"not enough memory: {one_line(error)}", *_how_to_resume(folder))
        except KeyboardInterrupt:
            return _failed(130, "; ".join(["stopped at once", *_how_to_resume(folder)]))
        if stopped is not None:
            return _failed(128 + stopped, "; ".join([f"stopped by {stopped.name}", *_how_to_resume(folder)]))
    summary = cast("dict[str, Any]", finished(folder))
    progress.say(result(summary))
    if (folder / CURVE).exists():
        progress.say(f"curve: {folder / CURVE}")
    return 0


def _failed(code: int, *lines: str) -> int:
    """Say what has happened, and return the exit code."""
    say("\n".join(f"emix: {line}" for line in lines), sys.stderr)
    return code


def _how_to_resume(folder: Path) -> list[str]:
    """A sentence, where there is a run."""
    if not (folder / CONFIG).exists():
        return []
    try:
        manifest = read_checkpoint(folder / CHECKPOINT)
    except UsageError as error:
        return [str(error)]
    if manifest is None:
        return [f"there is no checkpoint yet: `emix resume {folder}` starts again"]
    return [f"`emix resume {folder}` continues from the checkpoint of {manifest['counters']['env_steps']:,} steps"]
