"""``emix report``: from runs and from records to tables, pictures, HTML and JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import emix
from emix.cli import main
from emix.reports.published import Published, published
from emix.reports.records import Record, read, write
from emix.training import make_settings
from emix.training.settings import write_config

ENV = "matrix/msteps-5"


def record(name: str, env: str, seed: int, values: list[float], metric: str = "test_return_mean") -> Record:
    return Record(
        name, env, seed, 100 * (len(values) - 1), 1.0, {metric: ([100 * k for k in range(len(values))], values)}
    )


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two methods on two tasks, of which the first is always better."""
    runs = [
        record(name, env, seed, [0.0] + [better + 0.01 * seed] * 5)
        for name, better in (("smix", 0.5), ("iql", 0.2))
        for env in ("matrix/msteps-4", ENV)
        for seed in (1, 2, 3, 4)
    ]
    write(runs, tmp_path / "runs.jsonl")
    return tmp_path / "runs.jsonl"


def run(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def test_from_runs_of_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for algorithm in ("iql", "vdn"):
        for seed in (1, 2):
            emix.train(
                algorithm, ENV, steps=300, seed=seed, runs=tmp_path / "runs", test_interval=50, test_episodes=4,
                quiet=True,
            )  # fmt: skip
    unfinished = tmp_path / "runs/unfinished"
    unfinished.mkdir()
    write_config(unfinished, make_settings("iql", ENV, training={"steps": 900, "seed": 7}), episode_limit=5)
    (unfinished / "metrics.jsonl").write_text('{"env_steps": 200, "test_return_mean": 1.0}\n')
    assert run(tmp_path / "runs", "--out", tmp_path / "out", "--collect", tmp_path / "all.jsonl") == 0
    why = f"not finished: 200 of 900 environment steps; `emix resume {unfinished}` goes on"
    assert f"left out: {unfinished}: {why}" in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    assert f"{unfinished}: {why}" in text
    assert "4 finished runs of 2 methods on 1 tasks" in text
    assert "| iql | vdn | 1 | 0." in text
    for name in ("curves.png", "improvement.png"):
        assert f"]({name})" in text
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert read(tmp_path / "all.jsonl") == read(tmp_path / "out/records.jsonl")

    assert run(tmp_path / "all.jsonl", "--out", tmp_path / "again") == 0
    again = (tmp_path / "again/report.md").read_text()
    assert again == text[: text.index("## Left out")] + text[text.index("## How to read it") :]


def test_what_is_said_of_runs(tables: Path, tmp_path: Path) -> None:
    assert run(tables, "--out", tmp_path / "out", "--bounds", "matrix/*=0,1", "--threshold", "0.4", "--tests", 2) == 0
    text = (tmp_path / "out/report.md").read_text()
    assert f"| {ENV} | smix | 1, 2, 3, 4 | 500 | 0.53 ± 0.02 | 0.01 | 0.53 | 0.53 [0.51, 0.54] |" in text
    assert f"| {ENV} | smix | 0.47 ± 0.02 | 4 of 4: 200 |" in text  # areas 0.9 x 0.51 to 0.54
    assert f"| {ENV} | iql | 0.20 ± 0.02 | 0 of 4 |" in text
    assert re.search(r"\| smix \| 8 \| 0\.5[23] \[0\.5., 0\.5.\] \| 0\.5[23] \[0\.5., 0\.5.\] \|", text)
    assert "| iql | smix | 2 | 0.00 [0.00, 0.00] | 0.001 | 0.001 | smix is better |" in text
    assert "profiles.png" in text


def test_three_seeds_have_no_direction(tables: Path, tmp_path: Path) -> None:
    write([each for each in read(tables) if each.env == ENV and each.seed < 4], tmp_path / "three.jsonl")
    assert run(tmp_path / "three.jsonl", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out/report.md").read_text()
    assert re.search(
        r"\| iql \| smix \| 1 \| 0\.00 \[0\.00, 0\.00\] \| 0\.\d* \| 0\.\d* \| cannot be told apart \|", text
    )


def test_a_single_run_has_no_interval(tmp_path: Path) -> None:
    write([record("iql", ENV, 1, [0.0, 1.0])], tmp_path / "one.jsonl")
    assert run(tmp_path / "one.jsonl", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out/report.md").read_text()
    assert f"| {ENV} | iql | 1 | 100 | 0.50 | - | 0.50 | 0.50 |" in text
    assert "nothing is known of how far their seeds lie apart" in text
    assert "improvement" not in text.split("## How to read it")[0]


def test_no_average_of_returns_without_bounds(tables: Path, tmp_path: Path) -> None:
    assert run(tables, "--out", tmp_path / "out") == 0
    assert "--bounds 'matrix/msteps-4=LOW,HIGH'" in (tmp_path / "out/report.md").read_text()


def test_beside_published_figures(tmp_path: Path) -> None:
    won = [record("smix", "battle/3m", seed, [0.0] + [0.9] * 8, "test_battle_won_mean") for seed in (1, 2)]
    short = record("smix,td_lambda=0", "battle/3m", 1, [0.0, 0.5], "test_battle_won_mean")
    write([*won, short], tmp_path / "runs.jsonl")
    assert run(tmp_path / "runs.jsonl", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out/report.md").read_text()
    assert "| 0.90 [0.90, 0.90] | 0.99 ± 0.00 std, median 0.99 [1] |" in text
    assert "[1] Yao et al., SMIX(λ), Table III" in text
    assert "| 0.25 | -" in text
    assert "battle/3m: 100 to 800" in text
    assert run(tmp_path / "runs.jsonl", "--out", tmp_path / "out", "--steps", 100) == 0
    assert "Not of equal training" not in (tmp_path / "out/report.md").read_text()


def test_published_figures() -> None:
    figures = Published([published()["smix/table3"]])
    found = figures.find("battle/MMM", "vdn,lr=1", "VDN", "test_battle_won_mean")
    assert found is not None
    assert found.text() == "0.72 ± 0.17 std, median 0.78"
    for family in ("sc2", "smac"):
        assert figures.find(f"{family}/MMM", "vdn", "vdn", "test_battle_won_mean") == found
    assert figures.find("other/MMM", "vdn", "vdn", "test_battle_won_mean") is None
    assert figures.find("battle/MMM", "vdn,lr=1", "vdn,lr=1", "test_battle_won_mean") is None
    assert figures.find("battle/MMM", "vdn", "vdn", "test_return_mean") is None
    for table in published().values():
        for values in table["values"].values():
            assert all(len(each) == 3 and all(0 <= x * table["scale"] <= 1 for x in each) for each in values.values())


class Links(HTMLParser):
    """What an HTML file takes from elsewhere, and its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        for name, value in attrs:
            if name in ("src", "href"):
                inside = str(value).startswith("data:image/png;base64,iVBOR")
                self.pictures += inside
                self.outside += [] if inside else [str(value)]


def test_the_html_needs_no_other_file(tables: Path, tmp_path: Path) -> None:
    assert run(tables, "--out", tmp_path / "out", "--bounds", "matrix/*=0,1") == 0
    page, links = (tmp_path / "out/report.html").read_text(), Links()
    links.feed(page)
    assert (links.outside, links.pictures) == ([], 3)
    assert "url(" not in page
    assert "<td class=text>smix</td>" in page
    assert "P(first &gt; second)" in page


def test_marl_eval_json(tmp_path: Path) -> None:
    runs = [record("a,x=1", ENV, 1, [0.0, 1.0, 2.0]), record("b", ENV, 2, [3.0, 4.0])]
    for each in runs:  # logged less often than tests
        each.curves["loss"] = ([50], [7.0])
    write(runs, tmp_path / "runs.jsonl")
    assert run(tmp_path / "runs.jsonl", "--out", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out/marl-eval.json").read_text())
    first = {"step_count": 0, "mean_episode_return": [0.0]}
    assert content["matrix"]["msteps-5"]["a;x=1"]["seed_1"] == {
        "step_0": first, "step_1": {"step_count": 100, "mean_episode_return": [1.0]}
    }  # fmt: skip
    assert list(content["matrix"]["msteps-5"]["b"]["seed_2"]) == ["step_0", "step_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expects the folder of at least one run, or --page"),
        (["nowhere"], "nowhere holds no run: expected a folder with config.yaml"),
        (["nowhere.jsonl"], "nowhere.jsonl is not there: expected the folder of a run, or a file of records"),
        (
            ["TABLES", "--metric", "loss"],
            "no finished run with loss to report on: iql on matrix/msteps-4, seed 1: it has",
        ),
        (["TABLES", "--bounds", "x=1,0"], "--bounds expects ENV=LOW,HIGH"),
        (["TABLES", "--bounds", "0,1"], "--bounds expects ENV=LOW,HIGH"),
        (["TABLES", "--baseline", "vdn"], "no run is of the baseline 'vdn': expected iql, smix"),
        (["TABLES", "--tests", "0"], "--tests expects at least 1, got 0"),
        (["TABLES", "--out", "/dev/null/x"], "cannot write /dev/null/x"),
        (["--page", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_wrong_request(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*[tables if each == "TABLES" else each for each in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_in_two_places_counts_once(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write([record("smix", ENV, 1, [9.0, 9.0])], tmp_path / "new.jsonl")
    assert run(tables, tmp_path / "new.jsonl", "--out", tmp_path / "out") == 0
    assert f"smix on {ENV}, seed 1 is also in {tmp_path / 'new.jsonl'}, which counts" in capsys.readouterr().out
    assert sum(each.key == (ENV, "smix", 1, 1) for each in read(tmp_path / "out/records.jsonl")) == 1
