"""A run from Python in one call, and its policy back."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

import emix
from emix.errors import UsageError
from emix.playing import collect, evaluate
from emix.training import read_settings

ENV = "matrix/penalty-2x3"
OPTIONS = {"plan": {"batch_size": 4, "buffer_size": 50}, "test_episodes": 4, "quiet": True}


def test_a_run_in_one_call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = emix.train("vdn", ENV, steps=40, seed=2, learner={"lr": 0.01}, num_envs=2, **OPTIONS)
    name = "vdn,lr=0.01,num_envs=2,plan.batch_size=4,plan.buffer_size=50"
    assert result.folder == Path("runs") / name / ENV / "2"
    assert result.summary == json.loads((result.folder / "summary.json").read_text())
    assert (result.summary["env_steps"], result.summary["configuration"]) == (40, name.partition(",")[2])
    assert "test_return_mean" in result.summary
    assert (result.folder / "curve.png").exists()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UsageError, match="already holds a run: continue it with"):
        emix.train("vdn", ENV, steps=40, run_dir=result.folder, **OPTIONS)


def test_the_numbers_are_those_of_the_command(tmp_path, capsys):
    from emix.cli import main

    result = emix.train("iql", ENV, steps=60, seed=1, run_dir=tmp_path / "call", **OPTIONS)
    options = ["--plan.batch-size", "4", "--plan.buffer-size", "50", "--test-episodes", "4"]
    assert (
        main(["train", "iql", ENV, "--steps", "60", "--seed", "1", *options, "--run-dir", str(tmp_path / "cli")]) == 0
    )
    assert (result.folder / "metrics.jsonl").read_bytes() == (tmp_path / "cli" / "metrics.jsonl").read_bytes()
    assert read_settings(result.folder) == read_settings(tmp_path / "cli")


def test_what_torch_was_set_to_is_given_back(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.manual_seed(5)
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    emix.train("vdn", ENV, steps=20, run_dir=tmp_path / "run", **OPTIONS)
    assert torch.get_num_threads() == 2
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) is handler


def test_resume(tmp_path):
    folder = tmp_path / "run"
    first = emix.train("vdn", ENV, steps=40, run_dir=folder, resume=True, **OPTIONS)
    assert emix.train("vdn", ENV, steps=40, run_dir=folder, resume=True, **OPTIONS) == first
    longer = emix.train("vdn", ENV, steps=80, run_dir=folder, resume=True, **OPTIONS)
    assert longer.summary["env_steps"] == 80
    whole = emix.train("vdn", ENV, steps=80, run_dir=tmp_path / "whole", **OPTIONS)
    assert whole.summary["test_return_mean"] == longer.summary["test_return_mean"]
    with pytest.raises(UsageError, match="holds a run of 80 steps, more than the 40 that are asked for"):
        emix.train("vdn", ENV, steps=40, run_dir=folder, resume=True, **OPTIONS)
    with pytest.raises(UsageError, match=r"holds a run with changes.lr None, not 0.5 as is asked for"):
        emix.train("vdn", ENV, steps=80, run_dir=folder, resume=True, learner={"lr": 0.5}, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learner": {"lrr": 1}}, "unknown hyperparameter 'lrr'"),
        ({"plan": {"batch": 1}}, "unknown hyperparameter 'batch'"),
        ({"env_options": {"reward": 1}}, "reward"),
        ({"step": 5}, "unknown training settings step"),
        ({"imports": ["nowhere.py"]}, "--import nowhere.py: there is no such file"),
    ],
)
def test_wrong_requests(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        emix.train("vdn", ENV, run_dir=tmp_path / "run", **({"quiet": True} | options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_a_checkpoint_first(tmp_path, monkeypatch, number, raised):
    def play(self, *, stopwatch, collect=emix.playing.Local.collect):
        if self.env_steps > 100:
            os.kill(os.getpid(), number)
        return collect(self, stopwatch=stopwatch)

    monkeypatch.setattr(emix.playing.Local, "collect", play)
    with pytest.raises(raised):
        emix.train("vdn", ENV, steps=100_000, run_dir=tmp_path / "run", **OPTIONS)
    manifest = json.loads((tmp_path / "run" / "checkpoint" / "manifest.json").read_text())
    assert 100 < manifest["counters"]["env_steps"] < 120


def test_in_a_thread(tmp_path):
    results = []
    options = OPTIONS | {"steps": 20, "run_dir": tmp_path / "run"}
    thread = threading.Thread(target=lambda: results.append(emix.train("vdn", ENV, **options)))
    thread.start()
    thread.join()
    assert results[0].summary["env_steps"] == 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A battle's run."""
    options = {"env_options": {"episode_limit": 20}, "plan": {"batch_size": 2, "buffer_size": 8}, "test_episodes": 4}
    folder = tmp_path_factory.mktemp("trained") / "run"
    return emix.train("ensemble-mix", "battle/3m", steps=200, run_dir=folder, quiet=True, **options).folder


def test_a_trained_policy_acts(trained):
    policy = emix.load(trained)
    assert (policy.spec.n_agents, policy.spec.episode_limit, policy.settings.env) == (3, 20, "battle/3m")
    assert policy.env_steps >= 200
    env = policy.make_env(4)
    step, memory = env.reset(), policy.initial_memory(4)
    while not step.done.all():
        actions, memory, record = policy.act(step, memory)
        assert (actions.shape, set(record)) == ((4, 3), {"probability"})
        assert (step.avail.gather(2, actions[:, :, None])[:, :, 0] | step.done[:, None]).all()
        step = env.step(actions)
    explored = collect(policy.make_env(4), policy, explore=True).episodes
    assert (explored.record["probability"][explored.valid.nonzero(as_tuple=True)] > 0).all()


def test_it_plays_as_the_last_test_did(trained):
    """On the test's own episodes: the weights are those of the end."""
    from emix.training.config import spawn_seeds

    policy = emix.load(str(trained))
    env = policy.make_env(4, seed=spawn_seeds(policy.settings.training.seed).test_env)
    env.episode += 1  # the test at step 0 came first
    last = json.loads((trained / "summary.json").read_text())
    found = evaluate(env, policy, 4)
    assert found == {name: value for name, value in last.items() if name.startswith("test_")}


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        emix.load(tmp_path)
    with pytest.raises(UsageError, match="device expects cpu, cuda"):
        emix.train("vdn", ENV, run_dir=tmp_path / "x", device="tpu", quiet=True)
