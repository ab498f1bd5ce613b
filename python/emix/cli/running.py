"""What ``emix train`` and ``emix resume`` share: signals, failures, and what is told and written at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import emix
from emix.envs import EnvWorkerError
from emix.training.checkpoint import read_manifest
from emix.training.loop import DivergenceError, stop_on_signals, train
from emix.training.metrics import read_rows
from emix.training.plot import plot_runs
from emix.training.progress import Progress
from emix.training.run import CHECKPOINT, CURVE, SUMMARY, Settings
from emix.training.state import TrainingState


@contextmanager
def built(settings: Settings) -> Iterator[TrainingState]:
    """The parts of the run; their processes end with the ``with`` block. Exits with 1 where an environment fails."""
    try:
        state = TrainingState.create(settings)
    except EnvWorkerError as error:
        raise SystemExit(f"emix: {error}") from error
    try:
        yield state
    finally:
        state.close()


def run_training(settings: Settings, state: TrainingState, folder: Path) -> int:
    """Train to the end and return the exit code; ``folder`` must be ``locked``."""
    manifest = read_manifest(folder / CHECKPOINT)
    progress = Progress(settings.training.steps, start=manifest["counters"]["env_steps"] if manifest else 0)
    try:
        with closing(progress), stop_on_signals(progress) as stop:
            train(settings, state, folder, progress, stop)
        if state.counters.env_steps >= settings.training.steps:
            finish(settings, state, folder)
            return 0
    except DivergenceError as error:
        print(f"emix: {error}", file=sys.stderr)
        return 1
    except EnvWorkerError as error:
        print(f"emix: {error}\nemix: {_how_to_resume(folder)}", file=sys.stderr)
        return 1
    except OSError as error:
        file = error.filename or folder
        print(f"emix: cannot write {file}: {error.strerror or error}; {_how_to_resume(folder)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"emix: stopped at once; {_how_to_resume(folder)}", file=sys.stderr)
        return 130
    assert stop.signal is not None
    print(f"emix: stopped by {stop.signal.name}; {_how_to_resume(folder)}", file=sys.stderr)
    return 128 + stop.signal


def title(settings: Settings) -> str:
    """What is trained, by the recipe's name and version."""
    options = ", ".join(f"{name} {value}" for name, value in settings.env_options.items())
    recipe = f"recipe {settings.recipe['name']}, version {settings.recipe['version']}"
    env = f"{settings.env} ({options})" if options else settings.env
    return f"{settings.algorithm} ({recipe}) on {env}, seed {settings.training.seed}"


def finish(settings: Settings, state: TrainingState, folder: Path) -> None:
    """Write ``summary.json`` and the curve, and say what came out."""
    counters, last = state.counters, read_rows(folder)[-1]
    summary = {
        "algorithm": settings.algorithm,
        "env": settings.env,
        "env_options": settings.env_options,
        "seed": settings.training.seed,
        "recipe": settings.recipe,
        "env_steps": counters.env_steps,
        "episodes": counters.episodes,
        "updates": counters.updates,
        "updates_per_env_step": counters.updates / counters.env_steps,
        "seconds": round(counters.seconds, 1),
        **{name: value for name, value in last.items() if name.startswith("test_")},
        "emix": emix.__version__,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    curve = plot_runs([folder], folder / CURVE)
    won = f", win rate {last['test_battle_won_mean']:.3f}" if "test_battle_won_mean" in last else ""
    minutes, seconds = divmod(round(counters.seconds), 60)
    result = f"test return {last['test_return_mean']:.3f}{won}"
    print(f"{result} after {counters.env_steps:,} environment steps in {minutes}:{seconds:02}")
    print(f"curve: {curve}")


def _how_to_resume(folder: Path) -> str:
    manifest = read_manifest(folder / CHECKPOINT)
    if manifest is None:
        return f"there is no checkpoint yet: `emix resume {folder}` starts again"
    return f"`emix resume {folder}` continues from the checkpoint of {manifest['counters']['env_steps']:,} steps"
