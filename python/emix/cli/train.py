"""``emix train ALGORITHM ENV``: the options are the fields of the algorithm's config and of ``TrainingConfig``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import tyro
import yaml
from tyro.conf import OmitArgPrefixes, Positional

from emix import learners
from emix.cli.running import built, run_training, title
from emix.errors import UsageError
from emix.training.config import TrainingConfig
from emix.training.run import Settings, locked, make_settings, refuse_existing_run, run_folder, write_config
from emix.training.state import TrainingState

L = TypeVar("L")


@dataclass(frozen=True)
class Train(Generic[L]):
    """Train ALGORITHM on ENV. The defaults shown are those of the algorithm's recipe."""

    algorithm: Annotated[Positional[str], tyro.conf.arg(metavar="ALGORITHM")]
    """Algorithm or algorithm@recipe, such as smix or smix@foraging."""
    env: Annotated[Positional[str], tyro.conf.arg(metavar="ENV")]
    """Environment; `emix envs` lists them."""
    training: OmitArgPrefixes[TrainingConfig]
    learner: L
    runs: Path = Path("runs")
    """The run's folder is <runs>/<algorithm>/<env>/<seed>."""
    run_dir: Path | None = None
    """The run's folder itself."""
    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Option of the environment as NAME=VALUE, such as reward=sparse for battle/<map>; may be repeated."""


class Request(NamedTuple):
    """What a command line asks for."""

    settings: Settings
    recipe: Settings
    """What the settings would be without options."""
    folder: Path


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    settings, recipe, folder = parse(arguments)
    refuse_existing_run(folder)
    # Built before the folder is made, so that an unknown environment leaves none behind.
    with built(settings) as state, locked(folder):
        refuse_existing_run(folder)  # once more, now that nobody else can make one
        write_config(folder, settings, episode_limit=state.env.spec.episode_limit)
        print(_introduction(settings, recipe, state, folder), flush=True)
        return run_training(settings, state, folder)


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line. Raises UsageError, or SystemExit where tyro has said what is wrong."""
    algorithm = arguments[0] if arguments else ""
    if algorithm in ("-h", "--help"):
        algorithm = "smix"
    elif not algorithm or algorithm.startswith("-"):
        raise UsageError(
            f"emix train expects ALGORITHM ENV first, such as `emix train smix matrix/msteps-5 --seed 1`, "
            f"got {algorithm or 'nothing'!r}; algorithms: {', '.join(learners.list_algorithms())}"
        )
    recipe = make_settings(algorithm, env="")
    default = Train(tyro.MISSING, tyro.MISSING, recipe.training, recipe.learner)
    parse: Any = tyro.cli  # its overloads do not know a type that is only known here
    chosen: Train[Any] = parse(Train[type(recipe.learner)], default=default, args=list(arguments), prog="emix train")  # type: ignore[misc]
    options = _options(chosen.env_option)
    settings = Settings(recipe.algorithm, chosen.env, recipe.recipe, chosen.learner, chosen.training, options)
    return Request(settings, recipe, chosen.run_dir or run_folder(settings, chosen.runs))


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """``["reward=sparse", "spawn_jitter=0"]`` as ``{"reward": "sparse", "spawn_jitter": 0}``."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--env-option expects NAME=VALUE, such as reward=sparse, got {pair!r}")
        if name in ("num_envs", "device", "seed"):
            raise UsageError(f"--env-option {pair}: {name} is an option of the training, --{name.replace('_', '-')}")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--env-option {pair}: the value is not YAML") from error
    return options


def _introduction(settings: Settings, recipe: Settings, state: TrainingState, folder: Path) -> str:
    """What decides a win rate, in four lines."""
    training, spec, replay = settings.training, state.env.spec, state.replay
    pairs = [
        ("", asdict(recipe.training), asdict(training)),
        ("learner.", asdict(recipe.learner), asdict(settings.learner)),
    ]
    changes = [
        f"{prefix}{name} {value} ({theirs[name]})"
        for prefix, theirs, ours in pairs
        for name, value in ours.items()
        if value != theirs[name]
    ]
    steps_per_update = training.num_envs * spec.episode_limit / training.updates_per_rollout
    return "\n".join(
        [
            f"{title(settings)}, in {folder}",
            f"changed from the recipe: {', '.join(changes) or 'nothing'}",
            f"updates: {training.updates_per_rollout} per {training.num_envs} episodes, that is 1 per "
            f"{steps_per_update:g} environment steps where episodes last the full {spec.episode_limit} steps",
            f"replay: {replay.capacity} episodes, {replay.bytes / 2**20:,.0f} MiB at full length",
        ]
    )
