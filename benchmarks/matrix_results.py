"""The numbers of docs/results/ader.md from its runs: a table, the curves as JSON, and two pictures.

emix train ader@matrix matrix/continuous --steps 8000 --seed 1          # and so on, see the page
python benchmarks/matrix_results.py runs docs/results

Writes ``ader-matrix.json`` (of every run what the pictures show), ``ader-matrix.png`` (the test return) and
``ader-matrix-targets.png`` (ADER's target entropies, fig. 2b), and prints the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from emix.training import plot_runs, read_rows
from emix.training.settings import read_settings
from emix.training.spread import statistics

METHODS = {
    "ader@matrix": "ADER",
    "ader@matrix,allocation=fixed": "SER-MARL",
    "ader@matrix,allocation=fixed,shares=%5B0.35%2C0.65%5D": "SER-DCE",
    "ader@matrix,allocation=reversed": "Reversed ADER",
}
SHOWN = ("env_steps", "test_return_mean", "test_goal_reached_mean", "target_entropy_0", "target_entropy_1")


def collect(root: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Of each method and seed the finished run's folder and what is shown of its rows."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for summary in sorted(root.glob("*/matrix/continuous/*/summary.json")):
        settings = read_settings(summary.parent)
        if settings.name in METHODS:
            rows = [{key: row[key] for key in SHOWN if key in row} for row in read_rows(summary.parent)]
            run = {"folder": summary.parent, "rows": rows}
            found.setdefault(METHODS[settings.name], {})[settings.training.seed] = run
    return found


def table(runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    """The mean over seeds with its 95 % interval, and how many runs were in the goal."""
    lines = [
        "| method | seeds | test return, mean of the last 5 | in the goal at the end | ever in the goal |",
        "|---|---|---|---|---|",
    ]
    for method, seeds in runs.items():
        tests = [[row for row in run["rows"] if "test_return_mean" in row] for run in seeds.values()]
        spread = statistics([sum(row["test_return_mean"] for row in rows[-5:]) / 5 for rows in tests])
        reached = [[row["test_goal_reached_mean"] > 0 for row in rows] for rows in tests]
        width = "" if spread["ci95"] is None else f" ± {spread['ci95']:.2f}"
        numbers = ", ".join(map(str, sorted(seeds)))
        end, ever = sum(each[-1] for each in reached), sum(any(each) for each in reached)
        lines.append(f"| {method} | {numbers} | {spread['mean']:.2f}{width} | {end} | {ever} |")
    return "\n".join(lines)


def main(root: Path, out: Path) -> None:
    """Read the runs below ``root`` and write to ``out``."""
    runs = collect(root)
    compact = {method: {seed: run["rows"] for seed, run in seeds.items()} for method, seeds in runs.items()}
    (out / "ader-matrix.json").write_text(json.dumps(compact, separators=(",", ":")) + "\n")
    plot_runs([run["folder"] for seeds in runs.values() for run in seeds.values()], out / "ader-matrix.png")
    aders = [run["folder"] for run in runs.get("ADER", {}).values()]
    if aders:
        plot_runs(aders, out / "ader-matrix-targets.png", metric="target_entropy")
    print(table(runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
