"""The training loop: collect, store, update, evaluate, log, checkpoint."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from emix._host import keep_freed_memory
from emix.envs.core import Env, capturable
from emix.errors import UsageError
from emix.training import checkpoint
from emix.training.captured import CapturedRollout, CapturedUpdate, Metrics
from emix.training.config import TrainingConfig
from emix.training.evaluate import evaluate
from emix.training.journal import Journal
from emix.training.progress import Progress
from emix.training.rollout import Rollout, collect
from emix.training.run import CHECKPOINT, Settings
from emix.training.state import TrainingState

# torch looks at it once, at the process's first product on a GPU, which may come before ``train``.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class DivergenceError(RuntimeError):
    """The loss is no longer a number, and the networks will not recover."""


class StopRequest:
    """Set by a signal: the loop saves a checkpoint at the end of the rollout and returns."""

    signal: signal.Signals | None = None


def train(settings: Settings, state: TrainingState, folder: Path, progress: Progress, stop: StopRequest) -> None:
    """Train until ``settings.training.steps`` or until ``stop``, from the checkpoint in ``folder`` where there is one.

    ``metrics.jsonl`` depends on the settings alone: a run that was killed and resumed writes the same bytes as one that
    was not. So that this holds, torch is set to deterministic algorithms for the whole process.

    Args:
        settings: of the run.
        state: as ``TrainingState.create(settings)`` made it.
        folder: the run's, which holds ``config.yaml``; the caller has it ``locked``.
        progress: gets every number.
        stop: may be set from a signal handler.

    Raises:
        UsageError: the checkpoint is damaged or of other settings, or the GPU cannot repeat its numbers any more.
        DivergenceError: the loss became infinite or NaN.
        EnvWorkerError: an environment's process died.
        OSError: the folder cannot be written.
    """
    config = settings.training
    make_deterministic(config.threads, state.replay.device)
    if config.keep_memory:
        keep_freed_memory()
    manifest = checkpoint.read_manifest(folder / CHECKPOINT)
    if manifest is not None:
        _restore(state, settings, folder, manifest, progress)
    counters, learner = state.counters, state.learner
    captured = config.graphs and learner.capturable and state.replay.device.type == "cuda"
    update = CapturedUpdate(learner, longest=state.env.spec.episode_limit) if captured else learner.update
    play = _player(state.env, learner, explore=True, captured=captured)
    test = _player(state.test_env, learner, explore=False, captured=captured)
    state.advance_envs()

    with closing(Journal(folder, counters, progress, offsets=manifest and manifest["offsets"])) as journal:
        if counters.env_steps == 0:
            with journal.watch("test"):
                row = evaluate(state.test_env, learner, config.test_episodes, test)
            journal.write(row)

        while counters.env_steps < config.steps:
            before = counters.env_steps

            # Collect one episode in every environment, and store them.
            rollout = play(stopwatch=journal.watch)
            played = int(rollout.lengths.sum())
            state.replay.add(rollout.episodes, rollout.lengths)
            state.statistics.episodes.add(rollout)
            counters.env_steps += played
            counters.episodes += state.env.num_envs
            state.advance_envs()

            # Update.
            with journal.watch("update"):
                _update(state, config, update)
                learner.advance(env_steps=played, episodes=state.env.num_envs)

            # Evaluate and log whenever a multiple of the interval was passed, and at the end.
            row = {}
            if _due(config.log_interval, before, counters.env_steps, config.steps):
                row |= _statistics(state)
            if _due(config.test_interval, before, counters.env_steps, config.steps):
                with journal.watch("test"):
                    row |= evaluate(state.test_env, learner, config.test_episodes, test)
            if row:
                journal.write(row)
            progress.advance(counters.env_steps)

            # Save everything: from here on the run can be killed and lose nothing of what was done so far.
            stopping = stop.signal is not None
            if stopping or _due(config.checkpoint_interval, before, counters.env_steps, config.steps):
                with journal.watch("checkpoint"):
                    state.save(folder / CHECKPOINT, settings, journal.sync())
            if stopping:
                break


def make_deterministic(threads: int, device: torch.device) -> None:
    """Let torch repeat its numbers from run to run, for the whole process.

    Raises:
        UsageError: it is too late for that on the device.
    """
    torch.use_deterministic_algorithms(True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # it would write every new tensor twice
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    if device.type == "cuda":
        one = torch.ones(1, 1, device=device)
        try:
            torch.mm(one, one)
        except RuntimeError as error:
            raise UsageError(
                f"cuBLAS would not repeat its numbers: expected CUBLAS_WORKSPACE_CONFIG :4096:8 or :16:8 at the "
                f"process's first product on a GPU, got {os.environ.get('CUBLAS_WORKSPACE_CONFIG')!r} now; set it in "
                f"the environment, or import emix.training, which sets it, before you compute on a GPU"
            ) from error


@contextmanager
def stop_on_signals(progress: Progress) -> Iterator[StopRequest]:
    """Ctrl-C and SIGTERM set the request. A second Ctrl-C raises ``KeyboardInterrupt``: the last checkpoint counts."""
    stop = StopRequest()

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


def _restore(
    state: TrainingState, settings: Settings, folder: Path, manifest: dict[str, Any], progress: Progress
) -> None:
    state.restore(folder / CHECKPOINT, settings, manifest)
    if manifest["torch"] != (version := str(torch.__version__)):
        progress.say(
            f"note: the checkpoint was made under torch {manifest['torch']}, this is {version}: "
            f"the numbers may differ from those of a run under one torch"
        )


def _player(env: Env, learner: Any, *, explore: bool, captured: bool) -> Callable[..., Rollout]:
    """What plays an episode in every environment: where ``captured``, by CUDA graphs if the environment allows it."""
    if captured and capturable(env):
        return CapturedRollout(env, learner, explore=explore)
    return partial(collect, env, learner, explore=explore)


def _update(state: TrainingState, config: TrainingConfig, update: Callable[[Any], Metrics]) -> None:
    """The learner's updates after a rollout, once the replay holds a batch."""
    if len(state.replay) < config.batch_episodes:
        return
    for _ in range(config.updates_per_rollout):
        batch = state.learner.draw(state.replay, config.batch_episodes)
        state.statistics.updates.add(update(batch))
        state.counters.updates += 1


def _due(interval: int, before: int, now: int, end: int) -> bool:
    """Whether a multiple of ``interval``, or the end of the run, was passed between two numbers of steps."""
    return now // interval > before // interval or now >= end


def _statistics(state: TrainingState) -> dict[str, float]:
    """The training's numbers since the last row."""
    counters = state.counters
    row = state.statistics.means()
    row |= {"epsilon": state.learner.epsilon, "updates_per_env_step": counters.updates / counters.env_steps}
    state.statistics.clear()
    if not math.isfinite(row.get("loss", 0.0)):
        raise DivergenceError(
            f"the loss became {row['loss']} before {counters.env_steps:,} environment steps: "
            f"train again with a smaller --learner.lr or --learner.grad-norm-clip"
        )
    return row
