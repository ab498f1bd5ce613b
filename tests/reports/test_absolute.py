"""The absolute metric: measured once, of the best policy, and what a report makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import emix
from emix.cli import main
from emix.reports.absolute import absolute
from emix.reports.records import read
from emix.training import make_settings, trained
from emix.training.checkpoint import read_manifest

ENV = "matrix/penalty-2x3"
OPTIONS = {"plan": {"batch_size": 4, "buffer_size": 50}, "test_interval": 10, "test_episodes": 8, "quiet": True}
NAME = make_settings("iql", ENV, plan=OPTIONS["plan"]).name


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (1, 2):
        emix.train("iql", ENV, steps=40, seed=seed, runs=tmp_path / "runs", **OPTIONS)
    return tmp_path / "runs" / NAME / ENV


def forget_best(folder: Path) -> None:
    """As an older emix has left a run."""
    content = json.loads((folder / "checkpoint/manifest.json").read_text())
    del content["best"]
    (folder / "checkpoint/manifest.json").write_text(json.dumps(content))


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def exported(out: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    content: dict[str, dict[str, dict[str, list[float]]]]
    content = json.loads((out / "marl-eval.json").read_text())["matrix"]["penalty-2x3"][NAME.replace(",", ";")]
    return content


def test_it_is_that_of_the_best_policy_on_new_episodes(runs: Path) -> None:
    found = absolute(runs / "1")
    manifest = read_manifest(runs / "1/checkpoint")
    assert manifest is not None
    assert (found.env_steps, found.episodes) == (manifest["best"]["env_steps"], 80)
    again = emix.load(runs / "1", best=True).evaluate(80)
    assert found.values == {name: value for name, value in again.items() if name != "test_return_std"}


def test_it_is_measured_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, bytes_ = absolute(runs / "1"), (runs / "1/absolute.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.delattr(trained, "load")
        assert absolute(runs / "1") == first
    (runs / "1/absolute.json").unlink()
    assert absolute(runs / "1") == first
    assert (runs / "1/absolute.json").read_bytes() == bytes_  # the number repeats


def test_another_policy_or_number_of_episodes_is_measured_anew(runs: Path) -> None:
    expected = absolute(runs / "1")
    for name, other in (("policy", "0" * 64), ("episodes", 3)):
        path = runs / "1/absolute.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: other, "values": {"test_return_mean": 99.0}}))
        assert absolute(runs / "1") == expected


def test_a_damaged_file_is_told_of(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "2/absolute.json").write_text('{"env_steps": 3}')
    assert report(runs, "--absolute", "--out", tmp_path / "out") == 0
    told = "absolute.json is not an absolute metric; delete it, and it is measured anew: 'episodes' is missing"
    assert told in capsys.readouterr().out


def test_a_report_with_it(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(runs, "--out", tmp_path / "without") == 0
    assert "absolute" not in (tmp_path / "without/report.md").read_text()
    assert all("absolute_metrics" not in run for run in exported(tmp_path / "without").values())
    assert not (runs / "1/absolute.json").exists()

    assert report(runs, "--absolute", "--out", tmp_path / "out") == 0
    assert "seed 2: the best policy, of " in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    values = [absolute(runs / str(seed)).values["test_return_mean"] for seed in (1, 2)]
    row = next(line for line in text.splitlines() if line.startswith(f"| {ENV} |"))
    assert f"| {sum(values) / 2:.2f} ± " in row
    assert "absolute, mean ± 95 %" in text
    for seed, value in zip((1, 2), values, strict=True):
        found = exported(tmp_path / "out")[f"seed_{seed}"]
        assert found["absolute_metrics"]["mean_episode_return"] == [value]
        assert found["absolute_metrics"].keys() == found["step_0"].keys() - {"step_count"}

    assert report(tmp_path / "out/records.jsonl", "--out", tmp_path / "again") == 0  # without the runs
    assert (tmp_path / "again/report.md").read_text() == text
    assert read(tmp_path / "again/records.jsonl") == read(tmp_path / "out/records.jsonl")
    assert report(tmp_path / "out/records.jsonl", "--steps", 20, "--out", tmp_path / "cut") == 0
    assert "absolute" not in (tmp_path / "cut/report.md").read_text()


def test_runs_that_have_none(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_best(runs / "2")
    assert report(runs, "--absolute", "--out", tmp_path / "out") == 0
    why = (
        f"{NAME} on {ENV}, seed 2: {runs / '2/checkpoint'} has no best test: emix {emix.__version__} has begun the run"
    )
    text = (tmp_path / "out/report.md").read_text()
    assert f"- without the absolute metric: {why}" in text
    assert "has no best test" in capsys.readouterr().out
    assert re.search(r"\| \d+\.\d\d \(1 of 2 runs\) \|", text)
    assert all("absolute_metrics" not in run for run in exported(tmp_path / "out").values())

    assert report(runs, "--out", tmp_path / "old") == 0
    assert report(tmp_path / "old/records.jsonl", "--absolute", "--out", tmp_path / "none") == 0
    assert "records.jsonl does not have it: report on the run's folder" in (tmp_path / "none/report.md").read_text()


def test_it_is_of_whole_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(runs, "--absolute", "--steps", 20) == 2
    assert "--absolute is of whole runs: leave out --steps" in capsys.readouterr().err
