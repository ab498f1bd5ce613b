"""``emix reproduce NAME``: the runs of a paper's table or figure, and a report beside what was published."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import read_command_line
from emix.cli.report import tell
from emix.cli.sweep import Sweep, carry_out, plan, seed_numbers
from emix.errors import UsageError
from emix.reading import path_of, short
from emix.reports.comparison import Choices
from emix.reports.experiments import Experiment, Planned, experiments
from emix.reports.published import Published, published
from emix.reports.records import gather, is_test_metric
from emix.reports.report import report
from emix.training.listener import say
from emix.training.settings import make_settings
from emix.training.sweep import LOG, Job


@dataclass(frozen=True)
class Reproduce:
    """Train what a table or figure of a paper shows, and compare it with what was
    published. Without a name: list them.

    Every other option is one of `emix train` and goes to each run, as --steps for
    shorter ones. The same command again skips finished runs and resumes the others.
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="[NAME]")] = ""
    """Such as smix/table3."""
    seeds: str | None = None
    """Seeds: numbers and ranges separated by commas; by default as many as the paper has."""
    maps: str | None = None
    """Only these environments, separated by commas: battle/3m or 3m; by default all."""
    methods: str | None = None
    """Only these methods, separated by commas, as the list has them; by default all."""
    jobs: int | None = None
    """Runs at once; by default this machine's cores / --threads."""
    runs: Path = Path("reproduced")
    """The runs' folders are <runs>/<NAME>/<algorithm[,changes]>/<env>/<seed>; the report: <runs>/<NAME>/report."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    first = bool(arguments) and not arguments[0].startswith("-")
    given = arguments[1:] if first else arguments
    chosen, options = read_command_line(Reproduce, given, "reproduce", return_unknown_args=True)
    known = experiments()
    if not first:
        if options:
            raise UsageError(f"emix reproduce expects NAME first, such as {next(iter(known))}, got {short(options[0])}")
        print("\n".join(_described(name, each) for name, each in known.items()))
        return 0
    name = arguments[0]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"unknown experiment {short(name)}: "
            + (f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}")
        )
    return _carry_out(name, known[name], chosen, options)


def _carry_out(name: str, experiment: Experiment, chosen: Reproduce, options: Sequence[str]) -> int:
    root = path_of(chosen.runs) / name
    steps = [] if experiment.steps is None else ["--steps", str(experiment.steps)]
    jobs: dict[Path, Job] = {}
    titles = {}
    for each in _selected(experiment, chosen):
        asked = Sweep(each.algorithm, each.env, chosen.seeds or experiment.seeds, runs=root)
        for job in plan(asked, [*steps, *each.options, *options]):
            jobs[job.folder], titles[job.settings.name] = job, each.title
    every = list(jobs.values())
    stopped = carry_out(every, chosen.jobs, root)
    failed = [job for job in every if job.state == "failed"]
    for job in failed:
        say(f"emix: failed: {job}: {job.last_words()} ({job.folder / LOG})", sys.stderr)
    if stopped:
        say("emix: stopped; the same command goes on", sys.stderr)
        return stopped
    choices = Choices(
        metric=experiment.metric,
        bounds={"*": (experiment.bounds[0], experiment.bounds[1])} if experiment.bounds else {},
        titles=titles,
        order=experiment.titles,
    )
    found = gather([job.folder for job in every], lambda metric: is_test_metric(metric) or metric == experiment.metric)
    figures = Published([published()[name]] if name in published() else [])
    notes = [f"Made by `emix reproduce {name}`."] + ([f"The paper says: {experiment.says}"] if experiment.says else [])
    report(found, root / "report", experiment.title, choices, figures, notes)
    tell(root / "report", found.left_out)
    return 1 if failed else 0


def _selected(experiment: Experiment, chosen: Reproduce) -> list[Planned]:
    """The methods and environments that are asked for."""
    planned = experiment.planned()
    for option, text, names in (
        ("maps", chosen.maps, lambda each: (each.env, each.env.rpartition("/")[2])),
        ("methods", chosen.methods, lambda each: (each.title,)),
    ):
        if text is not None:
            asked, there = text.split(","), list(dict.fromkeys(names(each)[-1] for each in planned))
            if unknown := [name for name in asked if not any(name in names(each) for each in planned)]:
                raise UsageError(f"--{option} expects some of {', '.join(there)}, got {short(unknown[0])}")
            planned = [each for each in planned if set(names(each)) & set(asked)]
    if not planned:
        raise UsageError("none of these methods runs on these maps")
    return planned


def _described(name: str, experiment: Experiment) -> str:
    """Its title, its size, and how long it takes, where that is known."""
    seeds, planned = len(seed_numbers(experiment.seeds)), experiment.planned()
    steps = sum(experiment.steps or make_settings(each.algorithm, each.env).training.steps for each in planned)
    hours = "not measured"
    if experiment.minutes is not None:
        hours = f"some {seeds * len(planned) * experiment.minutes / 60:,.1f} core-hours"
    size = f"{seeds * len(planned)} runs, {seeds * steps / 1e6:,.1f}M environment steps, {hours}"
    lines = [name, f"    {experiment.title}", f"    methods: {', '.join(experiment.titles)}", f"    {size}"]
    return "\n".join(lines)
