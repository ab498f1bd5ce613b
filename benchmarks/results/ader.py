"""docs/results/ader.md: what is kept of its runs, its tables and its pictures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results.numbers import at_the_end, seeds, table, with_interval
from benchmarks.results.pictures import curves
from benchmarks.results.records import Record

METHODS = {
    "ader@matrix": "ADER",
    "ader@matrix,allocation=fixed": "SER-MARL",
    "ader@matrix,allocation=fixed,shares=%5B0.35%2C0.65%5D": "SER-DCE",
    "ader@matrix,allocation=reversed": "Reversed ADER",
}
NAMES = set(METHODS)
RETURN, GOAL = "test_return_mean", "test_goal_reached_mean"
METRICS = (RETURN, GOAL, "target_entropy_0", "target_entropy_1")
GAME = "matrix/continuous"


def tables(records: list[Record]) -> dict[str, str]:
    """The table of the continuous matrix game."""
    rows = []
    for name, method in METHODS.items():
        runs = [run for run in records if (run.name, run.env) == (name, GAME)]
        if not runs:
            continue
        reached = [run.curve(GOAL)[1] > 0 for run in runs]
        mean = with_interval(runs, lambda run: at_the_end(run, RETURN))
        end, ever = sum(bool(each[-1]) for each in reached), sum(bool(each.any()) for each in reached)
        rows.append([method, seeds(runs), mean, str(end), str(ever)])
    head = ["method", "seeds", "test return, mean of the last 5", "in the goal at the end", "ever in the goal"]
    return {"matrix": table(head, rows)}


def draw(records: list[Record], out: Path) -> None:
    """The game's test return, and ADER's target entropies (fig. 2b)."""
    runs = [run for run in records if run.env == GAME]
    curves(runs, {name: [(method, RETURN)] for name, method in METHODS.items()}, "test return", out / "ader-matrix.png")
    targets = [(f"agent {k}", f"target_entropy_{k}") for k in range(2)]
    curves(runs, {"ader@matrix": targets}, "target entropy", out / "ader-matrix-targets.png")
