"""What a run is asked for, what it is called, and how ``config.yaml`` holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from emix import learners
from emix._version import __version__
from emix.envs.core import Env
from emix.envs.registry import make, rules_of
from emix.errors import UsageError
from emix.learners.plan import Plan
from emix.plugins import import_again
from emix.reading import expect_keys, one_line, read_yaml, short
from emix.training.config import TrainingConfig, training_config
from emix.training.copies import copy_files, find_files, own_path
from emix.training.files import replace_file

CONFIG = "config.yaml"
LONGEST_NAME = 100  # characters; file systems take 255 bytes
# The settings of the training that change what is learned. The others say how long, where and how closely watched.
_NAMED = ("num_envs",)
# What emix.make is given by the training itself.
_NO_OPTIONS = ("name", "num_envs", "device", "seed", "first_env")
_DEEPEST = 8  # levels of settings that are told apart


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers, as ``config.yaml`` holds it."""

    algorithm: str  # as the user names it: smix, smix@foraging
    env: str
    recipe: dict[str, Any]  # name, version, source
    learner: Any  # the algorithm's own config dataclass
    training: TrainingConfig
    env_options: dict[str, Any] = field(default_factory=dict)  # of emix.make, such as {"reward": "sparse"}
    env_rules: int = 1  # version of the environment's rules, under which the run is trained
    imports: tuple[str, ...] = ()  # modules and files of the user's, as ``emix.plugins.import_named`` gave them
    changes: dict[str, Any] = field(default_factory=dict)  # from the recipe, of what is learned: {"td_lambda": 0.4}
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of those that environment and options name by paths
    folder: Path | None = field(default=None, compare=False)  # of the run, which has copies of these files

    @property
    def plan(self) -> Plan:
        """When updates are made and from what."""
        return self.learner.plan

    @property
    def configuration(self) -> str:
        """What differs from the recipe, ``env.reward=sparse,td_lambda=0.4``, sorted; empty where nothing does."""
        return ",".join(f"{quote(name)}={_text(value)}" for name, value in sorted(self.changes.items()))

    @property
    def name(self) -> str:
        """The algorithm and what differs from its recipe: ``smix``, ``smix,td_lambda=0.4``. A folder can be called so:
        other characters than letters, digits and ``_.-~+`` are percent-encoded, and a long name ends in its hash."""
        name = f"{self.algorithm},{self.configuration}".removesuffix(",")
        if len(name) <= LONGEST_NAME:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"{name[: LONGEST_NAME - 9]}-{digest}"

    @property
    def title(self) -> str:
        """What is trained, by the recipe's name and version."""
        options = ", ".join(f"{name} {value}" for name, value in self.env_options.items())
        recipe = f"recipe {self.recipe['name']}, version {self.recipe['version']}"
        env = f"{self.env} ({options})" if options else self.env
        return f"{self.algorithm} ({recipe}) on {env}, seed {self.training.seed}"

    def updates_per_step(self, episode_limit: int) -> float:
        """Updates for each environment step where episodes have full length, once there is data for them."""
        if self.plan.source == "fresh":
            return 1 / (self.plan.batch_size * episode_limit)
        steps = self.training.num_envs * episode_limit  # of a rollout
        return self.plan.updates(steps) / steps

    def make_env(self, *, num_envs: int, device: str, seed: int) -> Env:
        """The run's environment; training, evaluation and replays all build theirs here. What a map or an option names
        by its path is the run's own copy, once there is a run."""
        name, options = self.env, self.env_options
        if self.folder is not None:
            for path, digest in self.files.items():
                copy = own_path(self.folder, path, digest)
                name = name.removesuffix(path) + copy if name.endswith(f"/{path}") else name
                options = {key: copy if value == path else value for key, value in options.items()}
        return make(name, num_envs=num_envs, device=device, seed=seed, **options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and for the checkpoint's manifest."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(replace(self, folder=None))))
        return {name: value for name, value in values.items() if name != "folder" and (name != "files" or value)}

    def other_rules(self) -> str:
        """What is to be said of a run that was trained under other rules than this emix has; else empty."""
        present = rules_of(self.env)
        if present == self.env_rules:
            return ""
        return f"was trained under version {self.env_rules} of the rules of {self.env}, this emix has version {present}"


def make_settings(
    algorithm: str,
    env: str,
    *,
    learner: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    env_options: Mapping[str, Any] | None = None,
    imports: Sequence[str] = (),
) -> Settings:
    """The recipe of ``algorithm`` (``smix`` or ``smix@foraging``) with some of its values replaced.

    Args:
        algorithm: a name of ``emix.learners.list_algorithms()``.
        env: a name of ``emix.list_envs()``.
        learner: fields of the algorithm's configuration, such as ``{"lr": 1e-3}``.
        plan: fields of its ``Plan``, such as ``{"batch_size": 64}``.
        training: fields of ``TrainingConfig``, such as ``{"steps": 100_000}``.
        env_options: options of the environment, such as ``{"reward": "sparse"}`` of ``battle/<map>``.
        imports: what ``emix.plugins.import_named`` gave for the modules that register algorithm or environment.

    Raises:
        UsageError: an unknown algorithm, recipe or field, or a value out of range.
    """
    recipe = learners.load_recipe(algorithm)
    asked = {**(learner or {}), **({"plan": dict(plan)} if plan else {})}
    config = learners.make_config(algorithm, learners.merged(recipe.learner, asked))
    if not isinstance(getattr(config, "plan", None), Plan):
        raise UsageError(f"{algorithm}: {type(config).__name__} expects a field plan with a Plan as its default")
    trained, options = training_config({**recipe.training, **(training or {})}), recipe.env_options(env)
    before = _decisive(learners.make_config(algorithm, recipe.learner), training_config(recipe.training), options)
    after = _decisive(config, trained, options | dict(env_options or {}))
    return Settings(
        algorithm=recipe.name.removesuffix("@paper"),
        env=env,
        recipe={"name": recipe.name, "version": recipe.version, "source": recipe.source},
        learner=config,
        training=trained,
        env_options=options | dict(env_options or {}),
        env_rules=rules_of(env),
        imports=tuple(imports),
        changes={name: value for name, value in after.items() if name not in before or before[name] != value},
        files=find_files(env, options | dict(env_options or {})),
    )


def run_folder(settings: Settings, root: Path) -> Path:
    """``<root>/<name>/<env>/<seed>``; a map's path cannot lead out of it."""
    env = "/".join("%2E%2E" if part == ".." else part for part in settings.env.split("/"))
    return root / settings.name / env / str(settings.training.seed)


def find_runs(folder: Path) -> list[Path]:
    """The folder itself, where it holds a run, else those below it that do."""
    if (folder / CONFIG).is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob(CONFIG) if path.is_file())


def read_settings(folder: Path) -> Settings:
    """The settings in ``folder``'s ``config.yaml``, after what they import has been imported.

    Raises:
        UsageError: there is no run, the file is damaged, or it imports what this account never has.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UsageError(f"{folder} holds no run: expected a folder with {CONFIG}, as `emix train` makes it")
    with _explained(path, {}):
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise UsageError(f"expected names with values, got {short(content)}")
        imports = content.get("imports", [])
        if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
            raise UsageError(f"imports expects a list of names, got {short(imports)}")
    import_again(imports, folder)
    with _explained(path, content):
        return _settings(content, tuple(imports), folder)


def _settings(content: dict[str, Any], imports: tuple[str, ...], folder: Path) -> Settings:
    """The settings that ``config.yaml`` holds, each of its kind."""
    kinds: dict[str, type] = {"algorithm": str, "env": str, "recipe": dict, "learner": dict, "training": dict}
    optional: dict[str, type] = {"env_options": dict, "env_rules": int, "changes": dict, "files": dict}
    expect_keys(content, kinds | {name: kind for name, kind in optional.items() if name in content}, "of a run")
    expect_keys(content["recipe"], {"name": str, "version": int, "source": str}, "recipe")
    options = content.get("env_options", {})
    for name in options:
        if not isinstance(name, str) or name in _NO_OPTIONS:
            raise UsageError(f"env_options: {short(name)} is no option of an environment")
    settings = Settings(
        algorithm=content["algorithm"],
        env=content["env"],
        recipe=content["recipe"],
        learner=learners.make_config(content["algorithm"], content["learner"]),
        training=training_config(content["training"]),
        env_options=options,
        env_rules=content.get("env_rules", 1),
        imports=imports,
        changes=content.get("changes", {}),
        files=content.get("files", {}),
        folder=folder.absolute(),
    )
    if not isinstance(getattr(settings.learner, "plan", None), Plan):
        raise UsageError("learner has no plan")
    if settings.env_rules < 1:
        raise UsageError(f"env_rules expects 1 or more, got {settings.env_rules}")
    if not all(isinstance(name, str) for name in settings.changes):
        raise UsageError(f"changes expects names with values, got {short(settings.changes)}")
    settings.as_dict()  # raises where a value is none that JSON has
    return settings


def write_config(folder: Path, settings: Settings, *, episode_limit: int) -> None:
    """Write ``config.yaml``: the settings, the updates that they amount to at full length, and the versions; and copies
    of the files that they name by paths.

    Raises:
        UsageError: such a file has changed since the settings were made.
        OSError: something cannot be written.
    """
    import torch

    copy_files(folder, settings.files)
    per_step = settings.updates_per_step(episode_limit)
    content = settings.as_dict() | {
        "updates_per_episode": per_step * episode_limit,
        "updates_per_env_step_at_full_length": per_step,
        "versions": {"emix": __version__, "torch": str(torch.__version__)},
    }
    _write(folder / CONFIG, content)


def rewrite_config(folder: Path, settings: Settings) -> None:
    """Put the settings of the training, such as the number of steps, into ``config.yaml``; the rest stays."""
    content = read_yaml(folder / CONFIG)
    content["training"] = settings.as_dict()["training"]
    _write(folder / CONFIG, content)


def flatten(values: Mapping[str, Any], prefix: str = "", levels: int = _DEEPEST) -> dict[str, Any]:
    """``{"learner": {"lr": 1}}`` as ``{"learner.lr": 1}``; what is nested deeper than ``levels`` stays one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and levels > 1
        flat |= flatten(value, f"{prefix}{key}.", levels - 1) if nested else {f"{prefix}{key}": value}
    return flat


def difference(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], apart: Sequence[str] = ("training.steps",)
) -> tuple[str, Any, Any] | None:
    """The first setting in which two runs differ, as ``Settings.as_dict`` gives them: its name, their value and ours.
    Those ``apart`` may differ: by default the number of steps, as a run can be extended."""
    theirs, ours = flatten(theirs), flatten(ours)
    for name in sorted((theirs.keys() | ours.keys()) - set(apart)):
        if theirs.get(name) != ours.get(name):
            return name, theirs.get(name), ours.get(name)
    return None


def _decisive(config: Any, training: TrainingConfig, env_options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what is learned, by the names that it has in a run's name."""
    options = {f"env.{name}": value for name, value in env_options.items()}
    return flatten(asdict(config)) | {name: getattr(training, name) for name in _NAMED} | options


def _text(value: Any) -> str:
    """A value in a run's name."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return quote(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")), safe="+")


@contextmanager
def _explained(path: Path, content: Mapping[str, Any]) -> Iterator[None]:
    """Whatever a damaged or old file leads to, said of the file, with what to do about it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        versions = content.get("versions")
        wrote = versions.get("emix") if isinstance(versions, Mapping) else None
        advice = "restore it, or train again in another folder"
        if isinstance(wrote, str) and wrote != __version__:
            wrote = f"emix {one_line(wrote, 20)} wrote it, this is {__version__}"
            advice = f"{wrote}: use that one, or train again in another folder"
        what = one_line(error).removeprefix(f"{path} ")
        raise UsageError(f"{path} is not the configuration of an emix run: {what}; {advice}") from error


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file, whole at every moment."""
    replace_file(path, yaml.safe_dump(content, sort_keys=False, width=120).encode())
