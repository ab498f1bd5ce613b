"""``emix reproduce``: what papers compare, as data, and the runs and the report made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import emix
from emix.cli import main, reproduce
from emix.cli.sweep import seed_numbers
from emix.cli.train import parse
from emix.reports.experiments import Experiment, experiments
from emix.reports.published import published

ENV = "matrix/penalty-2x3"
QUICK = ["--plan.batch-size", "4", "--plan.buffer-size", "100", "--test-episodes", "4", "--jobs", "2"]
TINY = Experiment(
    title="Tiny",
    seeds="1-2",
    steps=200,
    groups=[{"methods": {"The first": "iql", "The second": "vdn --learner.gamma 0.5"}, "envs": [ENV]}],
    says="Nothing.",
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(reproduce, "experiments", lambda: {"tiny/table1": TINY})
    return tmp_path / "all/tiny/table1"


@pytest.mark.parametrize("name", experiments())
def test_everything_that_an_experiment_names_is_there(name: str) -> None:
    experiment = experiments()[name]
    assert seed_numbers(experiment.seeds)
    titles: dict[str, str] = {}
    runs = set()
    for each in experiment.planned():
        settings = parse([each.algorithm, each.env, *each.options]).settings
        assert titles.setdefault(settings.name, each.title) == each.title
        assert (settings.name, each.env) not in runs
        runs.add((settings.name, each.env))
    for env in {each.env for each in experiment.planned()}:
        if env.startswith("mamujoco/"):
            pytest.importorskip("gymnasium_robotics")
        emix.make(env, num_envs=1, device="cpu", seed=0).close()


def test_published_figures_have_the_titles_of_their_experiment() -> None:
    for name, table in published().items():
        experiment = experiments()[name]
        assert {each.env for each in experiment.planned()} == set(table["values"])
        for values in table["values"].values():
            assert set(experiment.titles) <= set(values)
        words = {each.algorithm: each.title for each in experiment.planned()}
        assert table["methods"] == words


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}\n" in shown for name in experiments())
    assert re.search(
        r"ader/figure2\n.*\n.*SER-DCE.*\n    20 runs, 0\.4M environment steps, some 0\.2 core-hours", shown
    )


def test_runs_are_made_skipped_and_extended(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "tiny/table1", *QUICK, "--runs", str(tiny.parents[1])]
    assert main([*command, "--seeds", "1"]) == 0
    text = (tiny / "report/report.md").read_text()
    assert text.startswith("# Tiny\n")
    assert "The paper says: Nothing." in text
    assert f"| {ENV} | The first | 1 | 200 |" in text
    assert text.index("The first") < text.index("The second")
    first = {path: path.stat().st_mtime_ns for path in tiny.rglob("summary.json")}
    assert len(first) == 2

    capsys.readouterr()
    assert main(command) == 0
    assert "4 runs, 2 of them finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert f"| {ENV} | The second | 1, 2 | 200 |" in (tiny / "report/report.md").read_text()

    assert main([*command, "--steps", "300", "--methods", "The first"]) == 0
    done = [json.loads(path.read_text())["env_steps"] for path in tiny.rglob("summary.json")]
    assert sorted(steps >= 300 for steps in done) == [False, False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny/table2"], "unknown experiment 'tiny/table2': did you mean tiny/table1?"),
        (["tiny/table1", "--maps", "3m"], "--maps expects some of penalty-2x3, got '3m'"),
        (["tiny/table1", "--methods", "iql"], "--methods expects some of The first, The second, got 'iql'"),
        (["tiny/table1", "--seeds", "x"], "--seeds expects numbers and ranges"),
        (["tiny/table1", "--setps", "3"], "Unrecognized options: --setps"),
        (["--steps", "3"], "expects NAME first, such as tiny/table1, got '--steps'"),
    ],
)
def test_wrong_request(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["reproduce", *arguments])
    except SystemExit as exit:  # how tyro leaves
        code = int(str(exit.code))
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
