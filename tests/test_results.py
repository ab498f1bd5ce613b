"""Pages of results are made from the runs that are committed beside them (benchmarks/results)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.results.__main__ import PAGES, RESULTS, with_tables
from benchmarks.results.numbers import at_the_end, over_all, table, with_interval
from benchmarks.results.records import Record, collect, merge, read, write

import emix


def record(seed: int, values: list[float], name: str = "iql") -> Record:
    steps = [100 * k for k in range(len(values))]
    return Record(name, "matrix/msteps-5", seed, steps[-1], 1.0, {"test_return_mean": (steps, values)})


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_those_of_the_runs(name: str) -> None:
    page = (RESULTS / f"{name}.md").read_text()
    assert page == with_tables(page, PAGES[name].tables(read(RESULTS / f"{name}.jsonl")))


@pytest.mark.parametrize("name", PAGES)
def test_no_committed_run_is_left_out(name: str) -> None:
    module = PAGES[name]
    shown = "\n".join(module.tables(read(RESULTS / f"{name}.jsonl")).values())
    for run in read(RESULTS / f"{name}.jsonl"):
        without = [other for other in read(RESULTS / f"{name}.jsonl") if other != run]
        assert "\n".join(module.tables(without).values()) != shown, f"{run.name} {run.env} {run.seed} is in no table"


def test_a_run_is_collected_and_comes_back_from_the_file(tmp_path: Path) -> None:
    done = emix.train(
        "iql", "matrix/msteps-5", steps=200, seed=3, run_dir=tmp_path / "runs/any", test_interval=100, test_episodes=4
    )
    (run,) = collect(tmp_path / "runs", ["iql"], ["test_return_mean", "no_such_metric"])
    assert collect(tmp_path / "runs", ["vdn"], ["test_return_mean"]) == []
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "test_return_mean" in row]
    assert (run.name, run.env, run.seed, run.env_steps) == ("iql", "matrix/msteps-5", 3, rows[-1]["env_steps"])
    assert list(run.curves) == ["test_return_mean"]
    assert run.curve("test_return_mean")[0].tolist() == [row["env_steps"] for row in rows]
    assert run.curve("test_return_mean")[1] == pytest.approx([row["test_return_mean"] for row in rows], rel=1e-3)
    write([run], tmp_path / "runs.jsonl")
    assert json.dumps(read(tmp_path / "runs.jsonl")[0].curves) == json.dumps(run.curves)


def test_a_run_made_again_replaces_the_old_one() -> None:
    old, other, new = record(1, [0.0, 1.0]), record(2, [0.0, 1.0]), record(1, [0.0, 2.0])
    assert merge([old, other], [new]) == [new, other]


def test_numbers() -> None:
    run = record(1, [10.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    assert at_the_end(run, "test_return_mean") == 2.0
    assert over_all(run, "test_return_mean") == pytest.approx(20 / 6)
    assert with_interval([run], lambda run: at_the_end(run, "test_return_mean")) == "2.00"
    two = [record(1, [1.0]), record(2, [3.0])]  # mean 2, std sqrt 2, t 12.706
    assert with_interval(two, lambda run: at_the_end(run, "test_return_mean"), 1) == "2.0 ± 12.7"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_table_takes_its_place() -> None:
    page = "a\n<!-- table x -->\nold\n<!-- end -->\n<!-- table y -->\n<!-- end -->\n"
    new = "a\n<!-- table x -->\n\n| 1 |\n\n<!-- end -->\n<!-- table y -->\n\n| \\\\1 |\n\n<!-- end -->\n"
    assert with_tables(page, {"x": "| 1 |", "y": "| \\\\1 |"}) == new
    assert with_tables(new, {"x": "| 1 |"}) == new
    with pytest.raises(SystemExit, match="no place for table z"):
        with_tables(page, {"z": ""})
