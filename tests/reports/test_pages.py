"""Pages of results are made from the runs that are committed beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import emix
from emix.cli import main
from emix.errors import UsageError
from emix.reports.columns import Column, steps_to, table, with_interval
from emix.reports.page import read_page, with_tables
from emix.reports.records import Record, gather, merge, read, write

RESULTS = Path(__file__).parents[2] / "docs/results"
PAGES = sorted(RESULTS.glob("*.yaml"))


def record(seed: int, values: list[float], name: str = "iql") -> Record:
    steps = [100 * k for k in range(len(values))]
    return Record(name, "matrix/msteps-5", seed, steps[-1], 1.0, {"test_return_mean": (steps, values)})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_tables_are_those_of_the_runs(path: Path) -> None:
    page, text = read_page(path), path.with_suffix(".md").read_text()
    assert page.records
    assert text == with_tables(text, page.texts(page.records), "the page")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_committed_run_is_left_out(path: Path) -> None:
    page = read_page(path)
    shown = page.texts(page.records)
    for run in page.records:
        without = [other for other in page.records if other != run]
        assert page.texts(without) != shown, f"{run} is in no table"


def test_a_page_takes_runs_in_and_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    done = emix.train(
        "iql", "matrix/msteps-5", steps=200, seed=3, run_dir=runs / "a", test_interval=100, test_episodes=4, quiet=True
    )
    emix.train("vdn", "matrix/msteps-5", steps=100, run_dir=runs / "b", test_episodes=4, quiet=True)
    (tmp_path / "page.md").write_text("# Page\n\n<!-- table x -->\n<!-- end -->\n")
    (tmp_path / "page.yaml").write_text(
        "metrics: [test_return_mean]\n"
        "methods: {all: {iql: IQL}}\n"
        "tables:\n"
        "  x:\n"
        "    methods: all\n"
        "    envs: matrix/*\n"
        "    by: [task, method]\n"
        "    columns: [{kind: seeds, title: seeds}, {kind: end, title: end, metric: test_return_mean, digits: 3}]\n"
        "pictures: {x.png: {methods: all, envs: 'matrix/*', label: return, lines: {'': test_return_mean}}}\n"
    )
    assert main(["report", "--page", str(tmp_path / "page.yaml"), str(runs)]) == 0
    printed = capsys.readouterr().out
    assert "left out: vdn on matrix/msteps-5, seed 0: the page has no such method" in printed
    assert "1 finished runs taken in; the page has 1" in printed
    (run,) = read(tmp_path / "page.jsonl")
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "test_return_mean" in row]
    assert (run.name, run.env, run.seed, run.env_steps) == ("iql", "matrix/msteps-5", 3, rows[-1]["env_steps"])
    assert list(run.curves) == ["test_return_mean"]
    assert run.curve("test_return_mean")[0].tolist() == [row["env_steps"] for row in rows]
    values = [row["test_return_mean"] for row in rows]
    assert run.curve("test_return_mean")[1] == pytest.approx(values, rel=1e-3)
    assert f"| matrix/msteps-5 | IQL | 3 | {sum(values) / len(values):.3f} |" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: seeds", "kind: seedz"), "unknown kind of column 'seedz': expected seeds, runs"),
        (("methods: all\n", "methods: none\n"), "table 'x': methods expects one of all, got 'none'"),
        (("by: [task, method]", "by: [seed]"), r"by expects \[task, method\] or \[method\]"),
        (("metrics: [a]", "metric: [a]"), "'metrics' is missing"),
        (("title: s", "titel: s"), "a column expects kind, title"),
    ],
)
def test_a_page_that_describes_none(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (
        "metrics: [a]\nmethods: {all: {iql: IQL}}\npictures: {}\ntables:\n  x:\n    methods: all\n    envs: x\n"
        "    by: [task, method]\n    columns: [{kind: seeds, title: s}]\n"
    )
    (tmp_path / "page.yaml").write_text(text)
    read_page(tmp_path / "page.yaml")
    (tmp_path / "page.yaml").write_text(text.replace(*change))
    with pytest.raises(UsageError, match=message):
        read_page(tmp_path / "page.yaml")


def test_a_run_made_again_replaces_the_old_one() -> None:
    old, other, new = record(1, [0.0, 1.0]), record(2, [0.0, 1.0]), record(1, [0.0, 2.0])
    assert merge([old, other], [new]) == [new, other]


def test_records_come_back_from_their_file(tmp_path: Path) -> None:
    write([record(1, [0.5, 0.25])], tmp_path / "new/runs.jsonl")
    (found,) = gather([tmp_path / "new/runs.jsonl"], lambda name: True).records
    assert found.curve("test_return_mean").tolist() == [[0, 100], [0.5, 0.25]]
    assert (found.key, found.seconds) == (("matrix/msteps-5", "iql", 1, 1), 1.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not a file of records, line 1"),
        ('{"name":"a"}', "line 1: 'env' is missing"),
        ('{"name":"a","env":"b","seed":1,"env_steps":1,"seconds":1,"curves":{"x":[[0,1],[0]]}}', "as many steps as"),
        ('{"name":"a","env":"b","seed":1,"env_steps":1,"seconds":1,"curves":{"x":[[1,0],[0,0]]}}', "rising steps"),
        ('{"name":"a","env":"b","seed":1,"env_steps":1,"seconds":1,"curves":{},"z":1}', r"unknown fields \['z'\]"),
        (
            '{"name":"a","env":"b","seed":1,"env_steps":1,"seconds":1,"curves":{},"env_rules":0}',
            "env_rules expects 1 or more, got 0",
        ),
    ],
)
def test_a_damaged_file_of_records(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "runs.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "runs.jsonl")


def test_columns() -> None:
    runs = [record(1, [10.0, 0.0, 1.0, 2.0, 3.0, 4.0]), record(2, [0.0] * 6)]

    def cell(kind: str, **options: float) -> str:
        return Column(kind, "title", metric="test_return_mean", **options).text(runs)  # type: ignore[arg-type]

    assert (cell("seeds"), cell("runs"), cell("steps"), cell("minutes")) == ("1, 2", "2", "500", "0.0")
    assert cell("end") == "1.00 ± 12.71"  # 2 and 0: std sqrt 2, t 12.706
    assert cell("area", digits=1) == "1.3 ± 16.5"  # trapezoids: 13 over 5, and 0
    assert cell("sum", digits=0) == "500 ± 6353"  # what came before the first step counts for nothing: 1000 and 0
    assert (cell("ends_below", limit=1), cell("last_above", limit=3), cell("ever_above", limit=9)) == ("1", "1", "1")
    assert (cell("sustained", limit=0), cell("sustained", limit=2)) == ("2 of 2: 400", "1 of 2: 400")
    assert cell("published") == Column("runs", "runs", metric="other").text(runs) == "-"
    assert with_interval([2.0]) == "2.00"
    assert table(["a", "b"], [["1|", "2"]]) == "| a | b |\n| --- | --- |\n| 1\\| | 2 |"


def test_published_numbers_stand_beside_a_method_on_a_task() -> None:
    column, won = Column("published", "published", "test_battle_won_mean"), {"test_battle_won_mean": ([0], [1.0])}
    names, maps = ("qmix", "qmix,lr=1"), ("3m", "x")
    runs = {(name, env): Record(name, f"battle/{env}", 1, 0, 1.0, won) for name in names for env in maps}
    assert column.text([runs["qmix", "3m"]]) == "0.95 ± 0.03 std, median 0.95"
    assert column.text([replace(runs["qmix", "3m"], env="sc2/3m")]) == "0.95 ± 0.03 std, median 0.95"
    logged = replace(runs["qmix", "3m"], name="vdn@pymarl", env="battle/1c3s5z")  # in StarCraft II, by the same recipe
    assert column.text([logged]) == "0.87 ± 0.04 std, median 0.88"
    assert column.text([runs["qmix,lr=1", "3m"]]) == column.text([runs["qmix", "x"]]) == "-"
    assert column.text([runs["qmix", "3m"], runs["qmix", "x"]]) == "-"  # of several tasks


def test_steps_to_a_threshold() -> None:
    def run(first: int, points: int = 6):  # at 1 from its first-th test on
        return record(1, [float(k >= first) for k in range(points)]).curve("test_return_mean")

    assert steps_to([run(1), run(9)], 1.0, 2) == "1 of 2: 200"
    assert steps_to([run(9)], 1.0, 2) == "0 of 1"
    assert steps_to([run(0), run(2)], 1.0, 2) == "2 of 2: 100 to 300"
    assert steps_to([run(0), run(2), run(1)], 1.0, 2) == "3 of 3: 200 (100 to 300)"
    assert steps_to([run(0), run(2), run(1), *[run(9)] * 4], 1.0, 2) == "3 of 7: 100 to 300"  # the median never does


def test_a_table_takes_its_place() -> None:
    page = "a\n<!-- table x -->\nold\n<!-- end -->\n<!-- table y -->\n<!-- end -->\n"
    new = "a\n<!-- table x -->\n\n| 1 |\n\n<!-- end -->\n<!-- table y -->\n\n| \\\\1 |\n\n<!-- end -->\n"
    assert with_tables(page, {"x": "| 1 |", "y": "| \\\\1 |"}, "p.md") == new
    assert with_tables(new, {"x": "| 1 |"}, "p.md") == new
    with pytest.raises(UsageError, match=r"p\.md has no place for table z"):
        with_tables(page, {"z": ""}, "p.md")
