"""Weights & Biases, with a module in its place that remembers what it is told."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

import emix
from emix.cli import main
from emix.errors import UsageError
from emix.training import wandb as ours

SHORT = {"plan": {"batch_size": 4, "buffer_size": 50}, "num_envs": 2, "test_envs": 2, "test_episodes": 2}


class Fake(ModuleType):
    """The parts of the package that emix uses."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.asked: list[dict] = []
        self.rows: list[tuple[int, dict]] = []
        self.ended = 0
        self.broken = False

    def init(self, **options):
        self.asked.append(options)
        return SimpleNamespace(project=options["project"], id=options["id"] or "abc", log=self.log, finish=self.finish)

    def log(self, values, step):
        if self.broken:
            raise ConnectionError("no network")
        self.rows.append((step, values))

    def finish(self):
        self.ended += 1


@pytest.fixture
def fake(monkeypatch):
    module = Fake()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(ours, "find_spec", lambda name: True)
    return module


def test_a_run_and_its_continuation(fake, tmp_path):
    run = tmp_path / "run"
    options = {"run_dir": run, "quiet": True, "log_interval": 50, "test_interval": 100, **SHORT}
    emix.train("iql", "matrix/msteps-5", steps=100, wandb="mine", **options)
    (asked,) = fake.asked
    assert (asked["project"], asked["id"], asked["resume"], asked["dir"]) == ("mine", None, "allow", str(run))
    assert asked["config"]["algorithm"] == "iql"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in fake.rows] == [row["env_steps"] for row in rows]
    assert fake.rows[-1][1]["test/return_mean"] == rows[-1]["test_return_mean"]
    assert "time/steps_per_s" in fake.rows[-1][1]
    assert fake.ended == 1

    assert main(["resume", str(run), "--steps", "150"]) == 0  # the folder remembers
    assert (fake.asked[1]["project"], fake.asked[1]["id"]) == ("mine", "abc")
    assert fake.rows[-1][0] >= 150


def test_nobody_who_has_not_asked_has_one(fake, tmp_path):
    emix.train("iql", "matrix/msteps-5", steps=20, run_dir=tmp_path / "run", quiet=True, **SHORT)
    assert fake.asked == []


def test_without_a_network_the_run_goes_on(fake, tmp_path, capsys):
    fake.broken = True
    result = emix.train("iql", "matrix/msteps-5", steps=20, wandb="mine", run_dir=tmp_path / "run", **SHORT)
    assert result.summary["env_steps"] >= 20
    assert "note: nothing goes to W&B from here on: no network" in capsys.readouterr().out


def test_where_it_is_not_installed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    run = tmp_path / "run"
    assert main(["train", "iql", "matrix/msteps-5", "--wandb", "mine", "--run-dir", str(run)]) == 2
    assert 'pip install "emix[wandb]"' in capsys.readouterr().err
    with pytest.raises(UsageError, match="wandb"):
        emix.train("iql", "matrix/msteps-5", wandb="mine", run_dir=run)
    assert not run.exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_the_real_one_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    emix.train("iql", "matrix/msteps-5", steps=20, wandb="mine", run_dir=run, quiet=True, **SHORT)
    assert json.loads((run / "wandb.json").read_text())["project"] == "mine"
    assert list(run.rglob("*.wandb"))
