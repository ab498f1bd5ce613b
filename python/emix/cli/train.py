"""``emix train ALGORITHM ENV``: the options are the fields of the algorithm's config and of ``TrainingConfig``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from emix import learners
from emix.cli.options import Imports, read_command_line
from emix.errors import UsageError
from emix.learners.plan import Plan
from emix.plugins import import_named
from emix.reading import parse_yaml, path_of
from emix.training.config import TrainingConfig
from emix.training.machine import hours
from emix.training.settings import Settings, flatten, make_settings, run_folder
from emix.training.wandb import require_wandb

if TYPE_CHECKING:
    from emix.training.run import Run

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
    plan: Plan
    """When the learner is updated, and what data it learns from."""
    runs: Path = Path("runs")
    """The run's folder is <runs>/<algorithm[,changes]>/<env>/<seed>: changes are what differs from the recipe."""
    run_dir: Path | None = None
    """The run's folder itself."""
    wandb: str | None = None
    """Project at Weights & Biases that gets the numbers, too (pip install "emix[wandb]")."""
    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Option of the environment as NAME=VALUE, such as reward=sparse for battle/<map>; may be repeated."""
    imports: Imports = ()
    """Module or .py file that registers algorithms or environments of your own; may be repeated."""


class Request(NamedTuple):
    """What a command line asks for."""

    settings: Settings
    recipe: Settings
    """What the settings would be without options."""
    folder: Path
    wandb: str | None = None
    """Project at W&B."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    request = parse(arguments)
    from emix.cli.running import carry_out  # loads torch, which --help need not wait for
    from emix.training.run import Run

    folder, settings = request.folder, request.settings
    opened = Run.create(folder, settings, wandb=request.wandb)
    return carry_out(opened, folder, lambda run: introduction(run, request), settings.training.steps)


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line. Raises UsageError, or SystemExit where tyro has said what is wrong."""
    imports = import_named(values_of("--import", arguments))  # before the algorithm is looked up
    algorithm = arguments[0] if arguments else ""
    if algorithm in ("-h", "--help"):
        algorithm = "smix"
    elif not algorithm or algorithm.startswith("-"):
        raise UsageError(
            f"emix train expects ALGORITHM ENV first, such as `emix train smix matrix/msteps-5 --seed 1`, "
            f"got {algorithm or 'nothing'!r}; algorithms: {', '.join(learners.list_algorithms())}"
        )
    recipe = make_settings(algorithm, env="")
    shown = _without_plan(recipe.learner)
    default = Train(tyro.MISSING, tyro.MISSING, recipe.training, shown, recipe.plan)
    chosen: Train[Any] = read_command_line(
        Train[type(shown)],  # type: ignore[misc]
        arguments,
        "train",
        default=default,
        config=(tyro.conf.SuppressFixed,),
    )
    settings = make_settings(
        algorithm,
        chosen.env,
        learner=asdict(chosen.learner) | {"plan": asdict(chosen.plan)},
        training=asdict(chosen.training),
        env_options=_options(chosen.env_option),
        imports=imports,
    )
    folder = path_of(chosen.run_dir) if chosen.run_dir else run_folder(settings, path_of(chosen.runs))
    if chosen.wandb is not None:
        require_wandb()
    return Request(settings, make_settings(algorithm, chosen.env), folder, chosen.wandb)


def values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """What an option that may be repeated is given, as ``--name VALUE`` or ``--name=VALUE``."""
    found = [after for name, after in pairwise(arguments) if name == option]
    return found + [word.partition("=")[2] for word in arguments if word.startswith(f"{option}=")]


def introduction(run: Run, request: Request) -> str:
    """What decides a win rate, in a few lines, and how long it will take."""
    settings, theirs = run.settings, flatten(request.recipe.as_dict())
    changes = [
        f"{name.removeprefix('training.').replace('learner.plan.', 'plan.')} {_shown(value)} "
        f"({_shown(theirs.get(name))})"
        for part in ("training", "learner", "env_options")
        for name, value in flatten({part: settings.as_dict()[part]}).items()
        if name not in theirs or value != theirs[name]
    ]
    limit, data = run.state.source.spec.episode_limit, run.state.data
    steps = f"{1 / settings.updates_per_step(limit):g} environment steps"
    duration = hours(settings)
    return "\n".join(
        [
            f"{settings.title}, in {run.folder}",
            f"changed from the recipe: {', '.join(changes) or 'nothing'}",
            f"updates: {_updates(settings)}, that is 1 per {steps} where episodes last the full {limit} steps",
            f"steps: {settings.training.steps:,}{f', {duration}' if duration else ''}",
            f"replay: {data.capacity:,} {data.unit}s, {data.bytes / 2**20:,.0f} MiB at full length",
        ]
    )


def _shown(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def _without_plan(config: Any) -> Any:
    """The config with ``plan`` fixed, so that it is no option below ``--learner``: it has options of its own."""
    kept = (("plan", Annotated[Plan, tyro.conf.Fixed], field(default=config.plan)),)
    shown = make_dataclass(type(config).__name__, kept, bases=(type(config),), frozen=True)
    return shown(**{each.name: getattr(config, each.name) for each in fields(config)})


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
            options[name] = parse_yaml(value, "the value")
        except UsageError as error:
            raise UsageError(f"--env-option {pair}: {error}") from error
    return options


def _updates(settings: Settings) -> str:
    """When updates are made, in words."""
    plan, num_envs = settings.plan, settings.training.num_envs
    if plan.source == "fresh":
        return f"1 per {plan.batch_size} new episodes"
    parts = {f"per {num_envs} episodes": plan.updates_per_rollout, "per environment step": plan.updates_per_step}
    return " and ".join(f"{count} {unit}" for unit, count in parts.items() if count)
