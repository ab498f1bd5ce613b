"""``emix sweep ALGORITHMS ENVS``: every algorithm and value of an option on every environment with every seed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from emix.cli.options import read_command_line
from emix.cli.sweep_display import Display
from emix.cli.train import parse as parse_train
from emix.data import EnvSpec
from emix.errors import UsageError
from emix.reading import one_line, path_of
from emix.training.files import make_folder
from emix.training.listener import Listener, say
from emix.training.plot import plot_runs
from emix.training.settings import difference, run_folder
from emix.training.sweep import LOG, Job, default_jobs, pass_on_signals, results, run_jobs, write_results

# Between values, not within a YAML list or dict.
_COMMA = re.compile(r",(?![^\[{]*[\]}])")
_SEEDS = re.compile(r"(\d{1,30})(?:-(\d{1,30}))?", re.ASCII)
MOST_SEEDS = 10_000
EXAMPLE = "`emix sweep smix,qmix battle/3m,battle/2s3z --seeds 1-3 --steps 100000`"


@dataclass(frozen=True)
class Sweep:
    """Train every algorithm of ALGORITHMS on every environment of ENVS with every seed, several runs at once.

    Every other option is one of `emix train` and goes to each run. With several values, separated by commas, as in
    --learner.td-lambda 0,0.4,0.8 or --env-option reward=sparse,dense, there are runs for each of them. The same command
    again skips finished runs and resumes the others.
    """

    algorithms: Annotated[Positional[str], tyro.conf.arg(metavar="ALGORITHMS")]
    """Algorithms or recipes, separated by commas: smix,qmix,ensemble-mix@paper."""
    envs: Annotated[Positional[str], tyro.conf.arg(metavar="ENVS")]
    """Environments, separated by commas; `emix envs` lists them."""
    seeds: str = "1-3"
    """Seeds: numbers and ranges separated by commas, such as 1-3,7."""
    jobs: int | None = None
    """Runs at once; by default this machine's cores / --threads. Runs on a GPU share it."""
    runs: Path = Path("runs")
    """The runs' folders are <runs>/<algorithm[,changes]>/<env>/<seed>; results: <runs>/sweep.json, .csv and .png."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    names_first = len(arguments) >= 2 and not any(name.startswith("-") for name in arguments[:2])
    if not names_first and not {"-h", "--help"} & set(arguments):
        raise UsageError(f"emix sweep expects ALGORITHMS ENVS first, such as {EXAMPLE}")
    chosen, options = read_command_line(Sweep, arguments, "sweep", return_unknown_args=True)
    jobs = plan(chosen, options)
    stopped = carry_out(jobs, chosen.jobs, path_of(chosen.runs))
    return finish(path_of(chosen.runs), ["sweep", *arguments], jobs, stopped)


def carry_out(jobs: Sequence[Job], at_once: int | None, root: Path) -> int:
    """Train them, ``at_once`` at a time; return 0, or the exit code of a sweep that was stopped.

    Raises:
        UsageError: a folder holds another run, or cannot be written.
    """
    threads = max(job.settings.training.threads for job in jobs)
    at_once = default_jobs(threads) if at_once is None else at_once
    if at_once < 1:
        raise UsageError(f"--jobs expects at least 1, got {at_once}")
    for job in jobs:
        job.inspect()
    _refuse_unwritable(root)
    say(_introduction(jobs, at_once))
    with closing(Display(jobs)) as display, pass_on_signals(jobs) as stop:
        run_jobs(jobs, at_once, stop, display.show)
    return 128 + stop.signal if stop.signal else 0


def plan(chosen: Sweep, options: Sequence[str]) -> list[Job]:
    """The runs, environment by environment, every one of them checked."""
    for option in options:
        name = option.partition("=")[0].replace("_", "-")
        if name in ("--seed", "--run-dir"):
            instead = "--seeds" if name == "--seed" else "--runs"
            raise UsageError(f"emix sweep has no {name}, because it makes several runs: use {instead}")
    from emix.training.building import check_settings  # loads torch, which --help need not wait for

    jobs: dict[Path, Job] = {}
    specs: dict[tuple[str, str], EnvSpec] = {}
    for env, algorithm, each in product(
        _names("ENVS", chosen.envs), _names("ALGORITHMS", chosen.algorithms), _combinations(options)
    ):
        settings = parse_train([algorithm, env, *each]).settings
        if (made := (env, str(settings.env_options))) not in specs:
            # On the CPU: this process needs no place on the GPU that the runs share.
            with closing(settings.make_env(num_envs=1, device="cpu", seed=0)) as one:
                specs[made] = one.spec
        check_settings(settings, specs[made])
        for seed in seed_numbers(chosen.seeds):
            run = replace(settings, training=replace(settings.training, seed=seed))
            folder = run_folder(run, path_of(chosen.runs))
            if folder in jobs and jobs[folder].settings != run:  # smix and smix@paper are the same run
                found = difference(jobs[folder].settings.as_dict(), run.as_dict())
                raise UsageError(
                    f"runs that differ in {found[0] if found else 'training.steps'} alone would share {folder}, "
                    f"because a run is not called by it: make a sweep for each value, with another --runs"
                )
            jobs[folder] = Job(run, folder, each)
    return list(jobs.values())


def _combinations(options: Sequence[str]) -> list[list[str]]:
    """The options with one value of each list, in every combination: ``["--learner.lr", "1,2"]`` gives two."""
    choices = []
    for before, word in zip(["", *options], options, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if word.startswith("--") and not equals:  # its values come next
            choices.append([word])
            continue
        head = f"{option}{equals}" if equals else ""
        if option == "--env-option":
            name, equals, value = value.partition("=")
            head += f"{name}{equals}"
        values = [value] if option == "--import" else _COMMA.split(value)
        choices.append([head + each for each in values])
    return [list(each) for each in product(*choices)]


def _names(what: str, text: str) -> list[str]:
    names = text.split(",")
    if "" in names:
        raise UsageError(f"{what} expects names separated by commas, such as in {EXAMPLE}, got {text!r}")
    return list(dict.fromkeys(names))


def seed_numbers(text: str) -> list[int]:
    """``"1-3,7"`` as ``[1, 2, 3, 7]``."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = _SEEDS.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise UsageError(f"--seeds expects numbers and ranges such as 1-3 or 1,2,5, got {one_line(text, 80)!r}")
        if len(seeds) + last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds expects at most {MOST_SEEDS:,} seeds, got {one_line(text, 80)!r}")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def _refuse_unwritable(root: Path) -> None:
    """Raise UsageError unless files can be made in the sweep's folder."""
    try:
        make_folder(root)
        with TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UsageError(f"cannot write the folder {root}: {error.strerror}; choose another with --runs") from error


def _introduction(jobs: Sequence[Job], at_once: int) -> str:
    recipes = {job.settings.algorithm: job.settings.recipe for job in jobs}
    finished = sum(job.state == "done" for job in jobs)
    return "\n".join(
        [
            *(f"{name}: recipe {recipe['name']}, version {recipe['version']}" for name, recipe in recipes.items()),
            f"{len(jobs)} runs, {finished} of them finished before, {at_once} at once, "
            f"{_steps(jobs)} environment steps each",
        ]
    )


def _steps(jobs: Sequence[Job]) -> str:
    """Of a run, or of the shortest to the longest."""
    steps = sorted({job.settings.training.steps for job in jobs})
    return f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def finish(root: Path, command: Sequence[str], jobs: Sequence[Job], stopped: int) -> int:
    """Print and write what came out; return the exit code."""
    rows = results(jobs)
    write_results(root, command, jobs, rows)
    output: Any = Listener(sys.stdout)
    console = Console(file=output)
    Console(file=output, width=console.width if console.is_terminal else 160).print(_table(rows))
    say(
        "the last test of each run; 95 %: half the width of the mean's interval (Student's t); "
        "std: of the sample (n - 1); IQM: without the n / 4 lowest and n / 4 highest"
    )
    say(f"results: {root / 'sweep.json'} and {root / 'sweep.csv'}")
    _draw(root, jobs)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        say(f"emix: failed: {job}: {job.last_words()} ({job.folder / LOG})", sys.stderr)
    if stopped:
        say("emix: stopped; the same command goes on", sys.stderr)
    return stopped or (1 if failed else 0)


def _draw(root: Path, jobs: Sequence[Job]) -> None:
    """The curves of the finished runs; what goes wrong with a picture is only told."""
    folders = [job.folder for job in jobs if job.state == "done"]
    if not folders:
        return
    try:
        say(f"curves: {plot_runs(folders, root / 'sweep.png')}")
    except Exception as error:
        say(f"note: no {root / 'sweep.png'}: {one_line(error)}")


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table()
    texts, numbers = ("environment", "algorithm", "configuration", "metric"), ("mean", "95 %", "std", "median", "IQM")
    for column in (*texts, "runs", *numbers):
        table.add_column(column, justify="left" if column in texts else "right")
    for row in rows:
        done = f"{len(row['values'])} of {row['runs']}" if len(row["values"]) < row["runs"] else str(row["runs"])
        values = (row[name] for name in ("mean", "ci95", "std", "median", "iqm"))
        metric = row["metric"].removesuffix("_mean").replace("_", " ")
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(row["env"], row["algorithm"], row["configuration"], metric, done, *cells)
    return table
