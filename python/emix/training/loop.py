"""The training loop: collect, store, update, evaluate, log, checkpoint."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import fields

import torch

from emix._version import __version__
from emix.training.captured import CapturedUpdate
from emix.training.deterministic import deterministic
from emix.training.journal import Journal
from emix.training.memory import freed_memory_kept
from emix.training.progress import Progress
from emix.training.run import Run
from emix.training.signals import StopRequest
from emix.training.state import other_device


class DivergenceError(RuntimeError):
    """One of the learner's numbers is no longer one, and the networks will not recover."""


def train(run: Run, progress: Progress, stop: StopRequest) -> None:
    """Train until ``settings.training.steps`` or until ``stop``, from where ``run.state`` is.

    ``metrics.jsonl`` depends on the settings alone: a run that was killed and resumed writes the same bytes as one that
    was not. So that this holds, torch is set to deterministic algorithms meanwhile.

    Args:
        run: made by ``Run.create`` or ``Run.resume``.
        progress: gets every number.
        stop: may be set from a signal handler.

    Raises:
        DivergenceError: one of the learner's numbers became infinite or NaN.
        EnvWorkerError: an environment's process died, or does not answer.
        LostRunError: another process has taken the run over.
        OSError: the folder cannot be written.
    """
    config, state = run.settings.training, run.state
    source, learner, counters, group = state.source, state.learner, state.counters, state.group
    _note_what_differs(run, progress)
    update = CapturedUpdate(learner, longest=source.spec.episode_limit) if state.captured else learner.update
    source.advance(counters.env_steps)

    with (
        freed_memory_kept(config.keep_memory),
        deterministic(config.threads, state.data.device),
        closing(Journal(run, progress)) as journal,
    ):
        if group.agree(stop.signal is not None):  # while environments and learner were being made
            return

        if counters.env_steps == 0:
            with journal.watch("test"):
                row = state.test(config.test_episodes)
            journal.write(row)

        while counters.env_steps < config.steps:
            before = counters.env_steps

            # Collect one episode in every environment, and store them.
            steps, episodes = state.add(source.collect(stopwatch=journal.watch))

            # Update.
            with journal.watch("update"):
                for _ in range(state.updates_due(steps)):
                    state.statistics.updates.add(update(learner.draw(state.data)))
                    counters.updates += 1
                learner.advance(env_steps=steps, episodes=episodes)

            # Evaluate and log whenever a multiple of the interval was passed, and at the end.
            row = {}
            if _due(config.log_interval, before, counters.env_steps, config.steps):
                row |= _statistics(run)
            if _due(config.test_interval, before, counters.env_steps, config.steps):
                with journal.watch("test"):
                    row |= state.test(config.test_episodes)
            if row:
                journal.write(row)
            progress.advance(counters.env_steps, journal.watch.shares())

            # Save everything: from here on the run can be killed and lose nothing of what was done so far.
            stopping = group.agree(stop.signal is not None)
            if stopping or _due(config.checkpoint_interval, before, counters.env_steps, config.steps):
                with journal.watch("checkpoint"):
                    run.save(journal.sync())
            if stopping:
                return

        _evaluate_end(run, journal)


def _note_what_differs(run: Run, progress: Progress) -> None:
    """Say where the numbers to come may not be those of a run that was not interrupted."""
    if run.manifest is None:
        return
    for name, here in (("torch", str(torch.__version__)), ("emix", __version__)):
        if run.manifest[name] != here:
            progress.say(
                f"note: the checkpoint was made under {name} {run.manifest[name]}, this is {here}: "
                f"the numbers may differ from those of a run under one {name}"
            )
    if device := other_device(run.settings, run.manifest):
        progress.say(
            f"note: the checkpoint was made on {device}, this is {run.settings.training.device}: the numbers will "
            f"differ from those of a run on one device"
        )


def _evaluate_end(run: Run, journal: Journal) -> None:
    """Make up for the last evaluation, which a run lacks that was stopped at the steps it is now asked for."""
    state, group = run.state, run.state.group
    if group.agree(group.first and not journal.tested()):
        later = group.agree(group.first and state.counters.env_steps > journal.last_step())
        row = _statistics(run) if later else {}
        with journal.watch("test"):
            row |= state.test(run.settings.training.test_episodes)
        journal.write(row)
        run.save(journal.sync())


def _due(interval: int, before: int, now: int, end: int) -> bool:
    """Whether a multiple of ``interval``, or the end of the run, was passed between two numbers of steps."""
    return now // interval > before // interval or now >= end


def _statistics(run: Run) -> dict[str, float]:
    """The training's numbers since the last row."""
    state, counters = run.state, run.state.counters
    losses = state.statistics.updates.means()
    row = state.statistics.episodes.means() | losses | state.learner.parts.values()
    row["updates_per_env_step"] = counters.updates / counters.env_steps
    state.statistics.clear()
    lost = [name for name, value in losses.items() if not math.isfinite(value)]
    if state.group.agree(bool(lost)):
        options = [f.name.replace("_", "-") for f in fields(run.settings.learner) if f.name.endswith(("lr", "clip"))]
        name = lost[0] if lost else "loss of another process"
        raise DivergenceError(
            f"the {name} became {losses.get(name, 'no number')} before {counters.env_steps:,} environment steps: "
            f"train again with a smaller {' or '.join(f'--learner.{option}' for option in options)}"
        )
    return row
