"""A trained run's policy, as its last checkpoint has it, or as it was at the best test."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emix.data import EnvSpec, Field, Step
from emix.envs.core import Env, advance
from emix.errors import UsageError
from emix.learners.learner import Acted, Actor
from emix.playing.evaluate import evaluate
from emix.plugins import import_named
from emix.reading import path_of
from emix.training.best import load_best
from emix.training.building import make_learner, resolve_device
from emix.training.config import spawn_seeds
from emix.training.deterministic import deterministic
from emix.training.folder import CHECKPOINT
from emix.training.settings import Settings, read_settings
from emix.training.state import load_learner, most_of, read_checkpoint, refuse_other_settings


@dataclass(frozen=True)
class Trained:
    """A policy and where it was trained; ``emix.playing.collect`` and ``evaluate`` take it as it is.

    >>> policy = emix.load("runs/smix/battle/3m/1")
    >>> env = policy.make_env(num_envs=4)
    >>> step, memory = env.reset(), policy.initial_memory(4)
    >>> actions, memory, _ = policy.act(step, memory)
    """

    actor: Actor
    settings: Settings
    spec: EnvSpec
    env_steps: int  # that it was trained for
    device: str

    @property
    def record(self) -> tuple[Field, ...]:
        """What ``act`` records."""
        return self.actor.record

    def initial_memory(self, num_envs: int) -> Any:
        """What to hand to ``act`` at the start of an episode in each of E environments."""
        return self.actor.initial_memory(num_envs)

    def act(self, step: Step, memory: Any, *, explore: bool = False) -> Acted:
        """The actions ``[E, n]``, the next memory, and what is recorded; greedy unless ``explore``."""
        return self.actor.act(step, memory, explore=explore)

    def make_env(self, num_envs: int = 1, *, seed: int | None = None) -> Env:
        """The run's environment as the training left it; by default its episodes are none that training has seen."""
        if seed is None:
            seed = spawn_seeds(self.settings.training.seed).eval_command
        env = self.settings.make_env(num_envs=num_envs, device=self.device, seed=seed)
        advance(env, self.env_steps)
        return env

    def evaluate(self, episodes: int, *, seed: int | None = None) -> dict[str, float]:
        """Statistics of greedy episodes, named as in ``metrics.jsonl``; those of a policy that was just loaded are the
        same at every call, on as many threads of torch as the run had.

        Args:
            episodes: to play, in up to as many environments as the run's tests had.
            seed: of the episodes, see ``make_env``.
        """
        training = self.settings.training
        num_envs = max(n for n in range(1, training.test_envs + 1) if episodes % n == 0)
        with (
            closing(self.make_env(num_envs, seed=seed)) as env,
            deterministic(training.threads, resolve_device(self.device)),
        ):
            return evaluate(env, self, episodes)


def load(run: Path | str, *, best: bool = False, device: str = "cpu", imports: Sequence[str] = ()) -> Trained:
    """The policy of the run in the folder ``run``.

    Args:
        run: a run's folder.
        best: as it was at the best test so far (``emix.training.best``), in place of the last checkpoint's.
        device: where it acts, and where its environments live.
        imports: modules or ``.py`` files that the run needs, where this account has not imported them yet.

    Raises:
        UsageError: there is no run, no checkpoint or no best test, or one is damaged or of other settings.
    """
    folder = path_of(run)
    checkpoints = folder / CHECKPOINT
    import_named(imports)
    settings = read_settings(folder)
    if other := settings.other_rules():
        warnings.warn(f"{folder} {other}: it now plays another game than the one it has learned", stacklevel=2)
    manifest = read_checkpoint(checkpoints)
    if manifest is None:
        raise UsageError(f"{folder} has no checkpoint yet: wait for one, or run `emix resume {folder}`")
    refuse_other_settings(checkpoints, settings, manifest)
    where = resolve_device(device)
    env = settings.make_env(num_envs=1, device=device, seed=0)  # for its sizes
    env.close()
    learner = make_learner(settings, env.spec, where, seed=0)
    what, env_steps = f"{settings.name} on {settings.env}", manifest["counters"]["env_steps"]
    load_learner(learner, checkpoints, manifest, what)
    if best:
        env_steps = load_best(learner, checkpoints, manifest, what, most_of(learner))
    return Trained(learner.actor, settings, env.spec, env_steps, device)
