"""The loop as a whole: what it repeats, what it survives, what it refuses."""

import io
import json
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from emix.errors import UsageError
from emix.learners.value import ValueLearner
from emix.training import DivergenceError, memory, read_rows
from emix.training.checkpoint import read_manifest
from emix.training.loop import StopRequest
from emix.training.progress import Progress
from emix.training.running import stop_on_signals
from emix.training.settings import write_config
from emix.training.state import refuse_other_settings


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed. (Made once; the fixture ``run`` lives for one test.)"""
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def expected(reference, run) -> bytes:
    """The metrics of that run."""
    path = reference / "metrics.jsonl"
    if not path.exists():
        run(reference)
    return path.read_bytes()


def test_rows(expected, reference):
    rows = read_rows(reference)
    assert rows[0] == {
        "env_steps": 0, "episodes": 0, "updates": 0,
        **{name: rows[0][name] for name in ("test_return_mean", "test_return_std", "test_ep_length_mean")},
    }  # fmt: skip
    logged = [row["env_steps"] for row in rows if "return_mean" in row]
    tested = [row["env_steps"] for row in rows if "test_return_mean" in row]
    assert [step // 300 for step in logged] == [1, 2, 3, 4, 5]  # one row for each multiple that is passed
    assert [step // 500 for step in tested] == [0, 1, 2, 3]
    assert rows[-1]["env_steps"] >= 1500
    assert rows[-1].keys() >= {
        "return_mean", "return_std", "ep_length_mean", "epsilon", "updates_per_env_step",
        "loss", "grad_norm", "td_error_abs", "q_taken_mean", "target_mean", "test_return_mean",
    }  # fmt: skip
    timing = [json.loads(line) for line in (reference / "timing.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in timing] == [row["env_steps"] for row in rows]
    assert all(0 <= sum(value for name, value in row.items() if name.startswith("frac_")) <= 1 for row in timing)


def test_the_same_settings_give_the_same_bytes(expected, run, tmp_path):
    torch.manual_seed(1234)  # nothing depends on torch's global state
    run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected


def test_another_seed_gives_other_numbers(expected, run, tmp_path):
    run(tmp_path, run.settings(seed=4))
    assert (tmp_path / "metrics.jsonl").read_bytes() != expected


@pytest.mark.parametrize("moments", [[30], [100], [299, 700], [5, 410, 430, 900, 1480]])
def test_killed_and_resumed_gives_the_same_bytes(expected, run, tmp_path, killed, moments):
    def die(env_steps: int) -> None:
        if moments and env_steps >= moments[0]:
            moments.pop(0)
            raise killed

    while moments:
        with pytest.raises(killed):
            run(tmp_path, hook=die)
    run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected


def test_killed_and_resumed_with_environments_in_worker_processes(run, tmp_path, killed):
    pytest.importorskip("lbforaging")
    settings = run.settings("qmix", "lbf/Foraging-5x5-2p-1f-v3", steps=1200, num_envs=3)
    run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > 700:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    run(tmp_path / "killed", settings)
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("algorithm", ["coma", "dop", "ensemble-mix", "qtran"])
def test_killed_and_resumed_with_other_learners(run, tmp_path, killed, algorithm):
    settings = run.settings(algorithm, steps=500)
    run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > 330:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    run(tmp_path / "killed", settings)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert b"grad_norm" in rows
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize(("what", "call"), [("fsync", 2), ("replace", 4), ("replace", 6)])
def test_killed_while_saving_gives_the_same_bytes(expected, run, tmp_path, killed, what, call):
    original, calls = getattr(os, what), 0

    def die(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            raise killed
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, what, die)
        with pytest.raises(killed):
            run(tmp_path)
    run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected


def test_stopped_by_a_signal_and_resumed_gives_the_same_bytes(expected, run, tmp_path):
    stop = StopRequest()

    def ask(env_steps: int) -> None:
        if env_steps > 620:
            stop.signal = signal.SIGTERM

    state = run(tmp_path, hook=ask, stop=stop)
    assert 620 < state.counters.env_steps < 650  # at the end of that rollout, with a checkpoint of it
    manifest = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())
    assert manifest["counters"]["env_steps"] == state.counters.env_steps
    run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected


def test_checkpoint_writes_each_episode_once(expected, reference):
    manifest = json.loads((reference / "checkpoint" / "manifest.json").read_text())
    shards = manifest["replay"]
    assert len(shards) > 1
    assert all(a["end"] == b["first"] for a, b in pairwise(shards))
    oldest = manifest["counters"]["episodes"] - 300
    assert shards[0]["first"] <= oldest < shards[0]["end"]  # files of episodes that left the ring are gone
    assert {path.name for path in (reference / "checkpoint").iterdir()} == {
        "manifest.json", *(entry["file"] for entry in manifest["parts"].values())
    }  # fmt: skip


def test_evaluation_does_not_change_training(expected, reference, run, tmp_path):
    run(tmp_path, run.settings(test_interval=120, test_episodes=9, test_envs=3))

    def training_rows(folder: Path) -> list[dict]:
        rows = [row for row in read_rows(folder) if "return_mean" in row]
        return [{name: value for name, value in row.items() if not name.startswith("test_")} for row in rows]

    assert training_rows(tmp_path) == training_rows(reference)


def test_a_finished_run_can_be_extended(run, tmp_path):
    run(tmp_path, run.settings(steps=400))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    state = run(tmp_path, run.settings(steps=700))
    assert state.counters.env_steps >= 700
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)
    assert read_rows(tmp_path)[-1]["env_steps"] == state.counters.env_steps


def test_a_checkpoint_of_other_settings_is_refused(run, tmp_path):
    run(tmp_path, run.settings(steps=250))
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for settings, message in (
        (run.settings(steps=250, test_envs=2), r"expected training\.test_envs 2 as in config\.yaml, got 4"),
        (run.settings("vdn", steps=250), r"expected algorithm 'vdn' as in config\.yaml, got 'iql'"),
        (run.settings(env="matrix/msteps-4", steps=250), r"expected env 'matrix/msteps-4' as in config\.yaml"),
    ):
        write_config(tmp_path, settings, episode_limit=5)
        with pytest.raises(UsageError, match=message):
            run(tmp_path, settings)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_precision_is_one_of_the_settings(run, tmp_path):
    settings = run.settings(steps=250)
    run(tmp_path, settings)
    manifest = read_manifest(tmp_path / "checkpoint")
    other = replace(settings, training=replace(settings.training, precision="bf16"))
    with pytest.raises(UsageError, match=r"expected training\.precision 'bf16' as in config\.yaml, got 'float32'"):
        refuse_other_settings(tmp_path, other, manifest)
    refuse_other_settings(tmp_path, settings, manifest)


def test_a_damaged_checkpoint_is_refused_and_nothing_is_overwritten(run, tmp_path):
    run(tmp_path, run.settings(steps=250))
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    file = next((tmp_path / "checkpoint").glob("replay-*"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UsageError, match=rf"{file.name} is damaged: expected \d+ bytes, got \d+"):
        run(tmp_path, run.settings(steps=500))
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_metrics_that_are_shorter_than_the_checkpoint_says_are_refused(run, tmp_path):
    run(tmp_path, run.settings(steps=250))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"metrics\.jsonl has 0 bytes, but the checkpoint was made when it had \d+"):
        run(tmp_path, run.settings(steps=500))


def test_a_loss_that_is_no_number_ends_the_run(run, tmp_path, monkeypatch):
    update = ValueLearner.update
    nan = {"loss": torch.tensor(torch.nan)}
    monkeypatch.setattr(ValueLearner, "update", lambda self, batch: update(self, batch) | nan)
    with pytest.raises(DivergenceError, match=r"the loss became nan before \d+ environment steps: .*smaller --learner"):
        run(tmp_path)


def test_note_about_another_torch(run, tmp_path):
    run(tmp_path, run.settings(steps=250))
    path = tmp_path / "checkpoint" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "2.9"}))
    run(tmp_path, run.settings(steps=300))
    assert "made under torch 2.9" in run.progress.text.getvalue()


def test_signals():
    out = io.StringIO()
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(Progress(1, output=out)) as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert out.getvalue().startswith("stopping after these episodes")
    assert out.getvalue().count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_memory_is_kept_unless_switched_off(run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: calls.append(1))
    run(tmp_path / "off", run.settings(steps=20, keep_memory=False))
    assert not calls
    run(tmp_path / "on", run.settings(steps=20))
    assert calls
