"""A run from start to end, as the commands and ``emix.train`` make it: signals, and what is written last."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from emix._version import __version__
from emix.playing.stopwatch import clock
from emix.plugins import import_named
from emix.training.loop import StopRequest
from emix.training.loop import train as train_loop
from emix.training.metrics import read_rows
from emix.training.plot import plot_runs
from emix.training.progress import Progress
from emix.training.run import SUMMARY, Run, read_summary, refuse_other_run
from emix.training.settings import CONFIG, make_settings, run_folder

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
    **training: Any,
) -> Result:
    """Train as ``emix train`` does, and return when the run has ended; what it sets of torch is then as it was before.

    Ctrl-C and SIGTERM save a checkpoint at the end of the rollout and then raise what they would have raised.

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
        training: other fields of ``emix.training.TrainingConfig``, such as ``num_envs=8, device="cuda"``.

    Raises:
        UsageError: something that is asked for cannot be done, or the folder holds a run that is not to be resumed.
        DivergenceError: one of the learner's numbers became infinite or NaN.
    """
    imported = import_named(imports)
    training |= {"seed": seed} | ({} if steps is None else {"steps": steps})
    settings = make_settings(
        algorithm, env, learner=learner, plan=plan, training=training, env_options=env_options, imports=imported
    )
    folder = Path(run_dir) if run_dir is not None else run_folder(settings, Path(runs))
    going_on = resume and (folder / CONFIG).exists()
    if going_on:
        refuse_other_run(folder, settings, "choose another runs or run_dir")
        summary = read_summary(folder)
        if summary is not None and summary["env_steps"] >= settings.training.steps:
            return Result(folder, summary)
    with ExitStack() as stack:
        output = stack.enter_context(open(os.devnull, "w")) if quiet else None
        opened = Run.resume(folder, steps=settings.training.steps) if going_on else Run.create(folder, settings)
        run = stack.enter_context(opened)
        progress = Progress(settings.training.steps, start=run.state.counters.env_steps, output=output)
        stopped = run_to_end(run, progress)
    if stopped is not None:
        raise KeyboardInterrupt if stopped == signal.SIGINT else SystemExit(128 + stopped)
    summary = read_summary(folder)
    assert summary is not None
    if not quiet:
        print(result(summary))
    return Result(folder, summary)


def run_to_end(run: Run, progress: Progress) -> signal.Signals | None:
    """Train, and write ``summary.json`` and the curve; or the signal that has stopped it, with a checkpoint."""
    with closing(progress), stop_on_signals(progress) as stop:
        train_loop(run, progress, stop)
    if run.state.counters.env_steps < run.settings.training.steps:
        return stop.signal or signal.SIGTERM  # another process of the group's
    if run.state.group.first:
        _finish(run)
    return None


@contextmanager
def stop_on_signals(progress: Progress) -> Iterator[StopRequest]:
    """Ctrl-C and SIGTERM set the request. A second Ctrl-C raises ``KeyboardInterrupt``: the last checkpoint counts."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)
        progress.say("stopping after these episodes, with a checkpoint (Ctrl-C again: at once, without)")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def result(summary: Mapping[str, Any]) -> str:
    """What came out, in a line."""
    won = f", win rate {summary['test_battle_won_mean']:.3f}" if "test_battle_won_mean" in summary else ""
    score = f"test return {summary['test_return_mean']:.3f}{won}"
    return f"{score} after {summary['env_steps']:,} environment steps in {clock(summary['seconds'])}"


def _finish(run: Run) -> None:
    """Write ``summary.json`` and the curve."""
    settings, counters, last = run.settings, run.state.counters, read_rows(run.folder)[-1]
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
        **{name: value for name, value in last.items() if name.startswith("test_")},
        "emix": __version__,
    }
    plot_runs([run.folder], run.folder / CURVE)
    (run.folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
