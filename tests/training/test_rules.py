"""Runs that were trained under other rules of their environment than it has now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import emix
from emix.cli import main
from emix.envs import registry
from emix.envs.matrix import make_penalty_game
from emix.errors import UsageError
from emix.reports.absolute import absolute
from emix.reports.records import Record, gather, merge, read, without_old_rules, write
from emix.training import make_settings, plot, read_settings
from emix.training.plot import plot_runs

NAME = "mine/penalty"
OPTIONS = {"plan": {"batch_size": 4, "buffer_size": 50}, "test_episodes": 4, "quiet": True}


def make_mine(name, options, **batch):
    return make_penalty_game("matrix/penalty-2x3", options, **batch)


def announce(rules: int) -> None:
    emix.register_env(NAME, make_mine, description="a penalty game of version 1 or 2", rules=rules)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run under rules of version 1, of which there is version 2 now."""
    monkeypatch.setattr(registry, "_registered", {})
    announce(1)
    made = emix.train("vdn", NAME, steps=40, run_dir=tmp_path / "run", **OPTIONS).folder
    announce(2)
    return made


def test_a_run_keeps_the_version_of_its_rules(folder: Path, tmp_path: Path) -> None:
    assert yaml.safe_load((folder / "config.yaml").read_text())["env_rules"] == read_settings(folder).env_rules == 1
    new = emix.train("vdn", NAME, steps=20, run_dir=tmp_path / "new", **OPTIONS).folder
    assert yaml.safe_load((new / "config.yaml").read_text())["env_rules"] == read_settings(new).env_rules == 2
    assert emix.load(new).settings.other_rules() == ""  # without a warning, which the tests take for an error


def test_it_is_not_continued(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (folder / "config.yaml").read_bytes()
    assert main(["resume", str(folder), "--steps", "80"]) == 2
    error = capsys.readouterr().err
    assert f"was trained under version 1 of the rules of {NAME}, this emix has version 2: it cannot be" in error
    with pytest.raises(UsageError, match="holds a run with env_rules 1, not 2 as is asked for"):
        emix.train("vdn", NAME, steps=80, run_dir=folder, resume=True, **OPTIONS)
    assert (folder / "config.yaml").read_bytes() == config


def test_a_run_of_before_there_were_versions_has_the_first(folder: Path) -> None:
    announce(1)
    config, manifest = folder / "config.yaml", folder / "checkpoint/manifest.json"
    config.write_text(config.read_text().replace("env_rules: 1\n", ""))
    manifest.write_text(manifest.read_text().replace('  "env_rules": 1,\n', ""))
    assert "env_rules" not in config.read_text() + manifest.read_text()
    assert main(["resume", str(folder), "--steps", "80"]) == 0
    assert emix.load(folder).env_steps == 80


def test_it_is_played_with_a_warning(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"version 1 of the rules .* has version 2: it now plays another game"):
        assert emix.load(folder).env_steps == 40
    with pytest.raises(UsageError, match="version 2: it can be measured by the emix that made it alone"):
        absolute(folder)


def test_curves_have_a_line_for_each_version(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict[str, list[object]]] = {}
    monkeypatch.setattr(plot, "draw_curves", lambda panels, *arguments, **keywords: drawn.update(panels))
    new = emix.train("vdn", NAME, steps=20, seed=1, run_dir=tmp_path / "new", **OPTIONS).folder
    plot_runs([folder, new], tmp_path / "curve.png")
    name = read_settings(new).name
    assert {line: len(curves) for line, curves in drawn[NAME].items()} == {f"{name}, rules {k}": 1 for k in (1, 2)}
    plot_runs([folder], tmp_path / "curve.png")
    assert list(drawn[NAME]) == [name]


def test_battles_have_another_version_than_at_first() -> None:
    assert make_settings("smix", "battle/3m").env_rules == registry.rules_of("battle/mine.yaml") == 2
    assert make_settings("smix", "sc2/3m").env_rules == 1


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_version_that_is_none(folder: Path, value: str) -> None:
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("env_rules: 1", f"env_rules: {value}"))
    with pytest.raises(UsageError, match="env_rules"):
        read_settings(folder)


@pytest.mark.parametrize("value", [0, "two", 1.5, True])
def test_announcing_one_that_is_none(value: object) -> None:
    with pytest.raises(UsageError, match="register_env: rules must be an integer of at least 1"):
        announce(value)


def record(env: str, seed: int, env_rules: int) -> Record:
    return Record("vdn", env, seed, 100, 1.0, {"test_return_mean": [[0, 100], [0.0, 1.0]]}, env_rules=env_rules)


def test_a_report_compares_those_of_the_newest_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, again, new, elsewhere = record("a", 1, 1), record("a", 1, 2), record("a", 2, 2), record("b", 1, 1)
    write([old, elsewhere], tmp_path / "old.jsonl")
    write([again, new], tmp_path / "new.jsonl")
    assert '"env_rules"' not in (tmp_path / "old.jsonl").read_text()
    assert read(tmp_path / "new.jsonl") == [again, new]
    why = (str(old), "it was trained under version 1 of the rules of a, others here under version 2")
    for order in (["old.jsonl", "new.jsonl"], ["new.jsonl", "old.jsonl"]):
        found = gather([tmp_path / name for name in order], lambda name: True)
        assert (found.records, found.left_out) == ([again, new, elsewhere], [why])
    assert without_old_rules(merge([again], [old])).records == [again]  # an old run does not replace a new one

    paths = [str(tmp_path / name) for name in ("old.jsonl", "new.jsonl")]
    assert main(["report", *paths, "--out", str(tmp_path / "out"), "--collect", paths[0]]) == 0
    assert ": ".join(why) in (tmp_path / "out/report.md").read_text()
    assert ": ".join(why) in capsys.readouterr().out
    assert read(tmp_path / "old.jsonl") == [again, new, elsewhere]
