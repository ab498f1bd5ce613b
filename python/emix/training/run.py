"""A run and its folder: what was asked for (``config.yaml``), and who may write there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

import emix
from emix import learners
from emix.envs.core import Env
from emix.errors import UsageError
from emix.training.config import TrainingConfig, training_config
from emix.training.metrics import METRICS, read_rows

CONFIG, SUMMARY, CHECKPOINT, CURVE, LOCK = "config.yaml", "summary.json", "checkpoint", "curve.png", "lock"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers, as ``config.yaml`` holds it."""

    algorithm: str  # as the user names it: smix, smix@foraging
    env: str
    recipe: dict[str, Any]  # name, version, source
    learner: Any  # the algorithm's own config dataclass
    training: TrainingConfig
    env_options: dict[str, Any] = field(default_factory=dict)  # of emix.make, such as {"reward": "sparse"}

    def make_env(self, *, num_envs: int, device: str, seed: int) -> Env:
        """The run's environment; training, evaluation and replays all build theirs here."""
        return emix.make(self.env, num_envs=num_envs, device=device, seed=seed, **self.env_options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and for the checkpoint's manifest."""
        return json.loads(json.dumps(asdict(self)))


def make_settings(
    algorithm: str,
    env: str,
    *,
    learner: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    env_options: dict[str, Any] | None = None,
) -> Settings:
    """The recipe of ``algorithm`` (``smix`` or ``smix@foraging``) with some of its values replaced.

    Args:
        algorithm: a name of ``emix.learners.list_algorithms()``.
        env: a name of ``emix.list_envs()``.
        learner: fields of the algorithm's configuration, such as ``{"lr": 1e-3}``.
        training: fields of ``TrainingConfig``, such as ``{"steps": 100_000}``.
        env_options: options of the environment, such as ``{"reward": "sparse"}`` of ``battle/<map>``.

    Raises:
        UsageError: an unknown algorithm, recipe or field, or a value out of range.
    """
    recipe = learners.load_recipe(algorithm)
    return Settings(
        algorithm=recipe.name.removesuffix("@paper"),
        env=env,
        recipe={"name": recipe.name, "version": recipe.version, "source": recipe.source},
        learner=learners.make_config(algorithm, recipe.learner | (learner or {})),
        training=training_config(recipe.training | (training or {})),
        env_options=env_options or {},
    )


def run_folder(settings: Settings, root: Path) -> Path:
    """``<root>/<algorithm>/<env>/<seed>``."""
    return root / settings.algorithm / settings.env / str(settings.training.seed)


def refuse_existing_run(folder: Path) -> None:
    """Raise ``UsageError`` where ``folder`` already holds a run."""
    if any((folder / name).exists() for name in (CONFIG, CHECKPOINT, SUMMARY, METRICS)):
        raise UsageError(
            f"{folder} already holds a run: continue it with `emix resume {folder}`, "
            f"or choose another --seed, --runs or --run-dir"
        )


def write_config(folder: Path, settings: Settings, *, episode_limit: int) -> None:
    """Write ``config.yaml``: the settings, the updates per environment step they amount to, and the versions."""
    training = settings.training
    per_episode = training.updates_per_rollout / training.num_envs
    content = settings.as_dict() | {
        "updates_per_episode": per_episode,
        "updates_per_env_step_at_full_length": per_episode / episode_limit,
        "versions": {"emix": emix.__version__, "torch": str(torch.__version__)},
    }
    _write_atomically(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, width=120))


def read_settings(folder: Path) -> Settings:
    """The settings in ``folder``'s ``config.yaml``.

    Raises:
        UsageError: there is no run, or the file is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UsageError(f"{folder} holds no run: expected a folder with {CONFIG}, as `emix train` makes it")
    try:
        content = yaml.safe_load(path.read_text())
        return Settings(
            algorithm=content["algorithm"],
            env=content["env"],
            recipe=content["recipe"],
            learner=learners.make_config(content["algorithm"], content["learner"]),
            training=training_config(content["training"]),
            env_options=dict(content.get("env_options", {})),
        )
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not the configuration of an emix run: {' '.join(str(error).split())}") from error


def refuse_lost_checkpoint(folder: Path, settings: Settings) -> None:
    """Raise ``UsageError`` where a run without checkpoint must have had one: starting again would wipe its metrics."""
    rows = read_rows(folder) if (folder / METRICS).is_file() else []
    if (folder / SUMMARY).exists() or (rows and rows[-1]["env_steps"] >= 2 * settings.training.checkpoint_interval):
        raise UsageError(
            f"{folder} has no checkpoint any more, so that it cannot be continued: "
            f"restore {folder / CHECKPOINT}, or train again in another folder"
        )


def extend(folder: Path, settings: Settings, steps: int) -> Settings:
    """Set ``steps`` in ``folder``'s ``config.yaml`` and return the new settings."""
    settings = replace(settings, training=replace(settings.training, steps=steps))
    content = yaml.safe_load((folder / CONFIG).read_text())
    content["training"]["steps"] = steps
    _write_atomically(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, width=120))
    return settings


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` where missing and be the only process that writes there.

    Raises:
        UsageError: it cannot be written, or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UsageError(
            f"cannot write the run folder {folder}: {error.strerror}; choose another with --runs or --run-dir"
        ) from error
    with file:
        try:
            # A record lock, not flock: processes forked from here do not inherit it, so it ends with this one.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UsageError(
                f"{folder} is in use by {owner}: wait for it, stop it, or choose another --seed"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def _write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    os.replace(draft, path)
