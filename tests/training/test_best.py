"""The policy of a run's best test: which one it is, and that it survives whatever the run does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import emix
from emix.cli import main
from emix.errors import UsageError
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Target
from emix.training import Settings, checkpoint, make_settings, read_rows
from emix.training.best import Best, policy_of


def settings(steps: int = 900) -> Settings:
    """Of a run whose best test, of some 250 steps, is neither the last one nor that of a checkpoint."""
    training = {
        "steps": steps, "seed": 5, "test_interval": 50, "test_episodes": 4, "log_interval": 300,
        "checkpoint_interval": 200,
    }  # fmt: skip
    plan = {"batch_size": 8, "buffer_size": 300}
    return make_settings("iql", "matrix/msteps-5", learner={"lr": 0.01}, plan=plan, training=training)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "checkpoint/manifest.json").read_text())


def change_manifest(folder: Path, **changes: Any) -> None:
    """None: without the entry."""
    content = {name: value for name, value in (manifest(folder) | changes).items() if value is not None}
    (folder / "checkpoint/manifest.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def whole(reference, run) -> Path:
    """A run that nobody disturbed; made once."""
    if not (reference / "metrics.jsonl").exists():
        run(reference, settings())
    return reference


def found(*rows: dict[str, float]) -> tuple[str | None, float, int, float]:
    """Metric, score, steps and policy of the best of these tests, made after 0, 10, 20, ... steps."""
    best, weight = Best(), torch.zeros(())
    for i, row in enumerate(rows):
        weight.fill_(i)
        best.consider(row, 10 * i, Parts(weight=weight))
    weight.fill_(-1)  # what is kept is a copy
    return best.metric, best.score, best.env_steps, float(best.policy.get("weight", math.nan))


def returns(*values: float) -> list[dict[str, float]]:
    return [{"test_return_mean": value} for value in values]


def test_of_equal_tests_the_later_counts():
    assert found(*returns(1, 3, 2)) == ("test_return_mean", 3, 10, 1)
    assert found(*returns(3, 1, 3, 2)) == ("test_return_mean", 3, 20, 2)
    assert found(*returns(-5.0)) == ("test_return_mean", -5, 0, 0)


def test_the_win_rate_counts_where_there_is_one():
    rows = [{"test_return_mean": r, "test_battle_won_mean": w} for r, w in ((9, 0.25), (1, 0.75), (5, 0.5))]
    assert found(*rows) == ("test_battle_won_mean", 0.75, 10, 1)
    assert found(*rows, {"test_return_mean": 99}) == ("test_battle_won_mean", 0.75, 10, 1)


def test_a_test_without_a_number_is_passed_over():
    assert found(*returns(math.nan, 1, math.inf)) == ("test_return_mean", 1, 10, 1)
    assert found(*returns(math.nan))[1] == -math.inf
    best = Best()
    best.consider({"test_return_mean": math.nan}, 0, Parts())
    assert (best.part, best.header()) == (None, None)


def test_optimisers_and_targets_are_left_out():
    network, count = torch.nn.Linear(2, 1), torch.tensor(3)
    parts = Parts(
        network=network, optimiser=Optimiser(network, "adam", lr=0.1), target=Target(network, tau=0.5), count=count,
        generator=torch.Generator(),
    )  # fmt: skip
    parts.parts["optimiser"].descend(network(torch.ones(2)).sum())
    assert policy_of(parts).keys() == {"network.weight", "network.bias", "count", "generator"}


def test_it_is_the_policy_that_was_tested(whole, run, tmp_path):
    """Of the run that ends there it is the last one: the training up to there is the same."""
    tests = [(row["test_return_mean"], row["env_steps"]) for row in read_rows(whole) if "test_return_mean" in row]
    score, steps = max(tests)  # of equal ones the later
    assert manifest(whole)["best"] == {"metric": "test_return_mean", "score": score, "env_steps": steps}
    assert 0 < steps < tests[-1][1]
    run(tmp_path, settings(steps))
    best, last, there = emix.load(whole, best=True), emix.load(whole), emix.load(tmp_path)
    assert best.env_steps == there.env_steps == steps
    assert torch.equal(best.actor.weights(), there.actor.weights())
    assert not torch.equal(best.actor.weights(), last.actor.weights())


def same_best(folder: Path, other: Path) -> bool:
    ours, theirs = manifest(folder), manifest(other)
    name = f"best-{ours['best']['env_steps']}"
    return ours["best"] == theirs["best"] and ours["parts"][name]["sha256"] == theirs["parts"][name]["sha256"]


@pytest.mark.parametrize("offset", [0, 50, 350])
def test_killed_between_test_and_checkpoint(whole, run, tmp_path, killed, offset):
    """Checkpoints come every 200 steps. The best test is lost with the process, and found again; or it was saved."""
    moment = manifest(whole)["best"]["env_steps"] + offset

    def die(env_steps: int) -> None:
        if env_steps >= moment:
            raise killed

    with pytest.raises(killed):
        run(tmp_path, settings(), hook=die)
    saved = manifest(tmp_path)["best"]["env_steps"]
    assert saved < moment if offset == 0 else saved <= moment
    run(tmp_path, settings())
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_best(tmp_path, whole)


def test_it_is_written_once_and_replaced(run, tmp_path, monkeypatch):
    written: list[str] = []
    original = checkpoint._write_part
    monkeypatch.setattr(
        checkpoint, "_write_part", lambda path, tensors: (written.append(path.name), original(path, tensors))
    )
    run(tmp_path, settings())
    bests = [name.partition(".")[0] for name in written if name.startswith("best")]
    assert 1 < len(bests) == len(set(bests))
    files = [path.name for path in (tmp_path / "checkpoint").glob("best-*")]
    assert (
        [name.partition(".")[0] for name in files] == [bests[-1]] == [f"best-{manifest(tmp_path)['best']['env_steps']}"]
    )
    learner = next((tmp_path / "checkpoint").glob("learner.*"))
    assert (tmp_path / "checkpoint" / files[0]).stat().st_size < learner.stat().st_size / 2


def test_a_run_that_an_older_emix_has_begun(run, tmp_path, capsys):
    run(tmp_path, settings())
    change_manifest(tmp_path, best=None, emix="0.0.9")
    message = (
        "has no best test: emix 0.0.9 has begun the run, which kept none; evaluate its last networks, or train again"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        emix.load(tmp_path, best=True)
    assert emix.load(tmp_path).env_steps >= 900
    run(tmp_path, settings(1100))  # which of all tests was the best is not known any more
    assert "best" not in manifest(tmp_path)
    assert main(["eval", str(tmp_path), "--best"]) == 2
    assert "has no best test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("best", "message"),
    [
        ([1], "best expects dict"),
        ({"metric": "x", "score": 1}, "best: .*env_steps"),
        ({"metric": "x", "score": "1", "env_steps": 1}, "best: .*score"),
        ({"metric": "x", "score": math.inf, "env_steps": 1}, "best: score expects a finite number"),
        ({"metric": "x", "score": 1, "env_steps": -1}, "best: env_steps expects a whole number from 0"),
        ({"metric": "x", "score": 1, "env_steps": 3}, "names no part 'best-3'"),
    ],
)
def test_a_damaged_one_is_refused(whole, run, tmp_path, best, message):
    run(tmp_path, settings(100))
    change_manifest(tmp_path, best=best)
    with pytest.raises(UsageError, match=message):
        emix.load(tmp_path, best=True)
    with pytest.raises(UsageError, match=message):
        run(tmp_path, settings())


def test_eval_of_the_best_repeats(whole, capsys):
    printed = []
    for options in (["--best"], ["--best"], []):
        assert main(["eval", str(whole), "--episodes", "8", *options]) == 0
        printed.append(capsys.readouterr().out)
    steps = manifest(whole)["best"]["env_steps"]
    assert printed[0] == printed[1]
    assert f" on matrix/msteps-5 after {steps:,} environment steps, the best test, 8 episodes\n" in printed[0]
    assert printed[0].partition("\n")[2] != printed[2].partition("\n")[2]
