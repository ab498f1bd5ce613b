"""docs/results/perla.md: what is kept of its runs, its tables and its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.results.numbers import at_the_end, over_all, seeds, table, with_interval
from benchmarks.results.pictures import curves
from benchmarks.results.records import Record

RETURN, ERROR = "test_return_mean", "td_error_abs"
METRICS = (RETURN, ERROR)
FAILED = 0.1  # a run whose test return ends below it has failed, as in the paper's fig. 4

# Of each name of a run the method that it is. The foraging runs have 64 units where the paper has 256.
FORAGING = {
    "perla-mappo,hidden_dim=64": "PERLA_MAPPO",
    "perla-mappo,hidden_dim=64,samples=0": "MAPPO",
    "perla-ippo,hidden_dim=64": "PERLA_IPPO",
    "perla-ippo,hidden_dim=64,samples=0": "IPPO",
}
MUJOCO = {
    "perla-mappo@mujoco,samples=10": "PERLA_MAPPO, K = 10",
    "perla-mappo@mujoco,samples=0": "MAPPO",
}
NAMES = {*FORAGING, *MUJOCO}


def tables(records: list[Record]) -> dict[str, str]:
    """Foraging, failures, temporal-difference errors and multi-agent MuJoCo."""
    foraging = _of(records, "foraging/", FORAGING)
    return {
        "foraging": _by_env(foraging, FORAGING),
        "failures": _failures(foraging),
        "errors": _errors(foraging),
        "mujoco": _by_env(_of(records, "mamujoco/", MUJOCO), MUJOCO, digits=0),
    }


def draw(records: list[Record], out: Path) -> None:
    """Learning curves of foraging and of multi-agent MuJoCo."""
    for name, env, methods in (("foraging", "foraging/", FORAGING), ("mujoco", "mamujoco/", MUJOCO)):
        lines = {run: [(method, RETURN)] for run, method in methods.items()}
        curves(_of(records, env, methods), lines, "test return", out / f"perla-{name}.png")


def _of(records: list[Record], env: str, methods: dict[str, str]) -> list[Record]:
    return [run for run in records if run.env.startswith(env) and run.name in methods]


def _groups(records: list[Record], methods: dict[str, str]) -> list[tuple[str, str, list[Record]]]:
    """Of each environment and method its runs."""
    groups = []
    for env in sorted({run.env for run in records}):
        for name, method in methods.items():
            runs = [run for run in records if (run.env, run.name) == (env, name)]
            if runs:
                groups.append((env, method, runs))
    return groups


def _by_env(records: list[Record], methods: dict[str, str], digits: int = 2) -> str:
    rows = [
        [
            env.removeprefix("foraging/Foraging-"), method, seeds(runs), f"{max(run.env_steps for run in runs):,}",
            with_interval(runs, lambda run: over_all(run, RETURN), digits),
            with_interval(runs, lambda run: at_the_end(run, RETURN), digits),
            f"{sum(run.seconds for run in runs) / len(runs) / 60:.1f}",
        ]
        for env, method, runs in _groups(records, methods)
    ]  # fmt: skip
    return table(["task", "method", "seeds", "steps", "mean of all tests", "last 5 tests", "minutes"], rows)


def _failures(records: list[Record]) -> str:
    rows = []
    for name, method in FORAGING.items():
        runs = [run for run in records if run.name == name]
        if runs:
            rows.append([method, str(len(runs)), str(sum(at_the_end(run, RETURN) < FAILED for run in runs))])
    return table(["method", "runs", f"of which end below {FAILED}"], rows)


def _errors(records: list[Record]) -> str:
    """Fig. 7 sums the errors over training. Mean absolute errors of a step, as they are logged, are summed here by the
    number of steps that they were logged for."""
    rows = [
        [env.removeprefix("foraging/Foraging-"), method, seeds(runs), with_interval(runs, _cumulative, 0)]
        for env, method, runs in _groups(records, FORAGING)
    ]
    return table(["task", "method", "seeds", "sum over training"], rows)


def _cumulative(run: Record) -> float:
    steps, errors = run.curve(ERROR)
    return float((np.diff(steps, prepend=0) * errors).sum())
