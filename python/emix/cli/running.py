"""What ``emix train`` and ``emix resume`` share: what is told, and how a run that fails is told of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from emix.envs.host import EnvWorkerError
from emix.training.checkpoint import read_manifest
from emix.training.loop import DivergenceError
from emix.training.progress import Progress
from emix.training.run import CHECKPOINT, Run, read_summary
from emix.training.running import CURVE, result, run_to_end
from emix.training.settings import CONFIG, Settings


def carry_out(opened: AbstractContextManager[Run], folder: Path, introduce: Callable[[Run], str]) -> int:
    """Train the run that ``opened`` gives to its end, and return the exit code."""
    try:
        with opened as run:
            print(introduce(run), flush=True)
            progress = Progress(run.settings.training.steps, start=run.state.counters.env_steps)
            stopped = run_to_end(run, progress)
    except DivergenceError as error:
        print(f"emix: {error}", file=sys.stderr)
        return 1
    except EnvWorkerError as error:
        print("\n".join([f"emix: {error}", *(f"emix: {hint}" for hint in _how_to_resume(folder))]), file=sys.stderr)
        return 1
    except OSError as error:
        what = f"cannot write {error.filename or folder}: {error.strerror or error}"
        print(f"emix: {'; '.join([what, *_how_to_resume(folder)])}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"emix: {'; '.join(['stopped at once', *_how_to_resume(folder)])}", file=sys.stderr)
        return 130
    if stopped is not None:
        print(f"emix: {'; '.join([f'stopped by {stopped.name}', *_how_to_resume(folder)])}", file=sys.stderr)
        return 128 + stopped
    summary = read_summary(folder)
    assert summary is not None
    print(f"{result(summary)}\ncurve: {folder / CURVE}")
    return 0


def title(settings: Settings) -> str:
    """What is trained, by the recipe's name and version."""
    options = ", ".join(f"{name} {value}" for name, value in settings.env_options.items())
    recipe = f"recipe {settings.recipe['name']}, version {settings.recipe['version']}"
    env = f"{settings.env} ({options})" if options else settings.env
    return f"{settings.algorithm} ({recipe}) on {env}, seed {settings.training.seed}"


def _how_to_resume(folder: Path) -> list[str]:
    """A sentence, where there is a run."""
    if not (folder / CONFIG).exists():
        return []
    manifest = read_manifest(folder / CHECKPOINT)
    if manifest is None:
        return [f"there is no checkpoint yet: `emix resume {folder}` starts again"]
    return [f"`emix resume {folder}` continues from the checkpoint of {manifest['counters']['env_steps']:,} steps"]
