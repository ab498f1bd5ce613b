"""A run from start to end, as the commands and ``emix.train`` make it: signals, and what is written last."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, cast

from emix._version import __version__
from emix.plugins import import_named
from emix.reading import one_line, path_of
from emix.training.files import replace_file
from emix.training.folder import SUMMARY, finished, refuse_other_run
from emix.training.listener import clock
from emix.training.loop import train as train_loop
from emix.training.plot import plot_runs
from emix.training.progress import Progress
from emix.training.rows import read_last_rows
from emix.training.run import Run
from emix.training.settings import CONFIG, make_settings, run_folder
from emix.training.signals import StopRequest, stop_on_signals
from emix.training.wandb import require_wandb

CURVE = "curve.png"


class Result(NamedTuple):
    """What ``emix.train`` gives back."""

    folder: Path
    summary: dict[str, Any]
    """``summary.json``: the last evaluation (``test_return_mean``, ...), counts, versions."""


def train(
    algorithm: str,
    env: str,
    *,
    steps: int | None = None,
    seed: int = 0,
    learner: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    env_options: Mapping[str, Any] | None = None,
    imports: Sequence[str] = (),
    run_dir: Path | str | None = None,
    runs: Path | str = "runs",
    resume: bool = False,
    quiet: bool = False,
    wandb: str | None = None,
    **training: Any,
) -> Result:
    """Train as ``emix train`` does, and return when the run has ended; what it sets of torch and of the C library is
    then as it was before.

    Ctrl-C, SIGTERM and SIGHUP save a checkpoint at the end of the rollout and then raise what they would have raised.

    Args:
        algorithm: a name of ``emix.learners.list_algorithms()``, such as ``smix`` or ``smix@foraging``.
        env: a name of ``emix.list_envs()``.
        steps: environment steps; by default the recipe's.
        seed: of every random stream.
        learner: hyperparameters that differ from the recipe, such as ``{"td_lambda": 0.4}``.
        plan: those of the ``Plan``, such as ``{"batch_size": 64}``.
        env_options: options of the environment, such as ``{"reward": "sparse"}``.
        imports: modules or ``.py`` files that register algorithm or environment, so that ``emix resume`` finds them.
        run_dir: the run's folder; by default ``<runs>/<algorithm[,changes]>/<env>/<seed>``.
        runs: see run_dir.
        resume: go on with the run that the folder holds, where it holds one.
        quiet: print nothing.
        wandb: a project at Weights & Biases that gets the numbers, too.
        training: other fields of ``emix.training.TrainingConfig``, such as ``num_envs=8, device="cuda"``.

    Raises:
        UsageError: something that is asked for cannot be done, or the folder holds a run that is not to be resumed.
        DivergenceError: one of the learner's numbers became infinite or NaN.
        EnvWorkerError: an environment's process died, or does not answer.
        LostRunError: another process has taken the run over.
    """
    if wandb is not None:
        require_wandb()
    imported = import_named(imports)
    training |= {"seed": seed} | ({} if steps is None else {"steps": steps})
    settings = make_settings(
        algorithm, env, learner=learner, plan=plan, training=training, env_options=env_options, imports=imported
    )
    folder = path_of(run_dir) if run_dir is not None else run_folder(settings, path_of(runs))
    going_on = resume and (folder / CONFIG).exists()
    if going_on:
        refuse_other_run(folder, settings, "choose another runs or run_dir")
        if summary := finished(folder, settings.training.steps):
            return Result(folder, summary)
    with ExitStack() as stack:
        output = stack.enter_context(open(os.devnull, "w")) if quiet else None
        progress = Progress(settings.training.steps, output=output)
        stop = stack.enter_context(stop_on_signals(progress))
        if going_on:
            run = stack.enter_context(Run.resume(folder, steps=settings.training.steps))
        else:
            run = stack.enter_context(Run.create(folder, settings, wandb=wandb))
        stopped = run_to_end(run, progress, stop)
    if stopped is not None:
        raise KeyboardInterrupt if stopped == signal.SIGINT else SystemExit(128 + stopped)
    summary = cast("dict[str, Any]", finished(folder))
    if not quiet:
        print(result(summary))
    return Result(folder, summary)


def run_to_end(run: Run, progress: Progress, stop: StopRequest) -> signal.Signals | None:
    """Train, and write ``summary.json`` and the curve; or the signal that has stopped it, with a checkpoint."""
    progress.start(run.state.counters.env_steps)
    with closing(progress):
        train_loop(run, progress, stop)
        if run.state.counters.env_steps < run.settings.training.steps:
            return stop.signal or signal.SIGTERM  # another process of the group's
        if run.state.group.first:
            _finish(run, progress)
    return None


def result(summary: Mapping[str, Any]) -> str:
    """What came out, in a line."""
    names = {"test_return_mean": "test return", "test_battle_won_mean": "test win rate"}
    values = [f"{text} {_number(summary[name])}" for name, text in names.items() if name in summary]
    return f"{', '.join(values)} after {summary['env_steps']:,} environment steps in {clock(summary['seconds'])}"


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.3f}"


def _finish(run: Run, progress: Progress) -> None:
    """Write ``summary.json``, which makes the run a finished one, and then the curve, which is for the eye."""
    settings, counters = run.settings, run.state.counters
    # An evaluation may have a row of its own, or one that came before the row of the training's statistics.
    rows = [row for row in read_last_rows(run.folder) if row["env_steps"] == counters.env_steps]
    last = {name: value for row in rows for name, value in row.items() if name.startswith("test_")}
    summary = {
        "algorithm": settings.algorithm,
        "configuration": settings.configuration,
        "env": settings.env,
        "env_options": settings.env_options,
        "seed": settings.training.seed,
        "recipe": settings.recipe,
        "env_steps": counters.env_steps,
        "episodes": counters.episodes,
        "updates": counters.updates,
        "updates_per_env_step": counters.updates / counters.env_steps,
        "seconds": round(counters.seconds, 1),
        **last,
        "emix": __version__,
    }
    run.check_owner()
    replace_file(run.folder / SUMMARY, json.dumps(summary, indent=1).encode() + b"\n")
    try:
        plot_runs([run.folder], run.folder / CURVE)
    except Exception as error:  # matplotlib's settings and its fonts, a folder in the picture's place
        progress.say(f"note: no {CURVE}: {one_line(error)}")
