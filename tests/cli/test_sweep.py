"""``emix sweep``: runs in processes of their own, skipped, resumed, failed and interrupted."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emix.cli import main
from emix.cli.sweep_display import Display
from emix.training import make_settings
from emix.training.sweep import Job

ENV = "matrix/penalty-2x3"
QUICK = ["--batch-episodes", "4", "--buffer-episodes", "100", "--test-episodes", "4"]


def sweep(folder: Path, *options: str, algorithms: str = "vdn,iql", env: str = ENV) -> list[str]:
    return ["sweep", algorithms, env, "--runs", str(folder), *QUICK, *options]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep"], "expects ALGORITHMS ENVS first, such as `emix sweep smix,qmix battle/3m"),
        (["sweep", "--seeds", "1-3", "smix", ENV], "expects ALGORITHMS ENVS first"),
        (["sweep", "smix,smx", ENV], "unknown algorithm 'smx': did you mean smix"),
        (["sweep", "smix", f"{ENV},matrix/mstep-5"], "unknown environment 'matrix/mstep-5': did you mean matrix/ms"),
        (["sweep", "smix,", ENV], "ALGORITHMS expects names separated by commas"),
        (["sweep", "smix", f"{ENV},,"], "ENVS expects names separated by commas"),
        (["sweep", "smix", ENV, "--seeds", "3-1"], "expects numbers and ranges such as 1-3 or 1,2,5, got '3-1'"),
        (["sweep", "smix", ENV, "--seeds", "1,x"], "got '1,x'"),
        (["sweep", "smix", ENV, "--jobs", "0"], "--jobs expects at least 1, got 0"),
        (["sweep", "smix", ENV, "--seed", "1"], "has no --seed, because it makes several runs: use --seeds"),
        (["sweep", "smix", ENV, "--run_dir=x"], "has no --run-dir, because it makes several runs: use --runs"),
        (["sweep", "smix", ENV, "--setps", "9"], "Unrecognized options: --setps"),
        (["sweep", "smix", ENV, "--steps", "0"], "steps expects at least 1, got 0"),
        (["sweep", "smix", ENV, "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["sweep", "smix", "prey/stag-hunt", "--env-option", "punish=1"], "unknown option 'punish', the only one is"),
    ],
)
def test_wrong_request(capsys, tmp_path, monkeypatch, arguments, message):
    """One sentence before anything starts."""
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as exit:  # how tyro leaves
        code = exit.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_runs_are_made_skipped_and_extended(tmp_path, capsys):
    assert main(sweep(tmp_path, "--seeds", "1,3", "--steps", "40", "--jobs", "4")) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:3] == [
        "vdn: recipe vdn@paper, version 1",
        "iql: recipe iql@paper, version 1",
        "4 runs, 0 of them finished before, 4 at once, 40 environment steps each",
    ]
    for algorithm in ("vdn", "iql"):
        for seed in (1, 3):
            folder = tmp_path / algorithm / ENV / str(seed)
            assert f"started {algorithm} on {ENV}, seed {seed}, in {folder}" in lines
            assert any(line.startswith(f"done    {algorithm} on {ENV}, seed {seed}: test return ") for line in lines)
            assert (folder / "log.txt").read_text().startswith(f"{algorithm} (recipe {algorithm}@paper, version 1) on")
    results = json.loads((tmp_path / "sweep.json").read_text())["results"]
    assert [(row["algorithm"], row["seeds"]) for row in results] == [("vdn", [1, 3]), ("iql", [1, 3])]
    summaries = [json.loads((tmp_path / "iql" / ENV / seed / "summary.json").read_text()) for seed in "13"]
    assert results[1]["values"] == [summary["test_return_mean"] for summary in summaries]
    assert f"{results[1]['mean']:.3f}" in out
    assert "\x1b" not in out

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("log.txt")}
    assert main(sweep(tmp_path, "--seeds", "1,3", "--steps", "40")) == 0
    out = capsys.readouterr().out
    assert "4 runs, 4 of them finished before" in out
    assert "started" not in out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("log.txt")}

    assert main(sweep(tmp_path, "--seeds", "3", "--steps", "60", algorithms="vdn")) == 0
    folder = tmp_path / "vdn" / ENV / "3"
    assert f"resuming {folder} at 40 of 60 environment steps" in (folder / "log.txt").read_text()
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 60

    assert main(sweep(tmp_path, "--seeds", "1", "--steps", "40", "--learner.lr", "0.1")) == 2
    assert "holds a run with learner lr 0.0005, and the sweep asks for 0.1" in capsys.readouterr().err


def test_a_failed_run_does_not_stop_the_others(tmp_path, capsys):
    folder = tmp_path / "vdn" / ENV / "1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("")  # what `emix train` refuses to overwrite
    assert main(sweep(tmp_path, "--seeds", "1-2", "--steps", "8", "--jobs", "1", algorithms="vdn")) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"emix: failed: vdn on {ENV}, seed 1: {folder} already holds a run")
    assert f"done    vdn on {ENV}, seed 2" in captured.out
    assert "1 of 2" in captured.out
    runs = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [(run["state"], run["summary"] is None) for run in runs] == [("failed", True), ("done", False)]


def test_ctrl_c_saves_every_run_and_the_same_command_goes_on(tmp_path, capsys):
    arguments = sweep(tmp_path, "--seeds", "1-3", "--steps", "3000", "--jobs", "2", algorithms="iql")
    command = [sys.executable, "-m", "emix", *arguments, "--log-interval", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / "iql" / ENV / str(seed) for seed in (1, 2, 3)]
    deadline = time.monotonic() + 120
    while not all((folder / "metrics.jsonl").exists() for folder in folders[:2]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "emix: stopped; the same command goes on\n"
    assert out.count("started") == 2
    assert f"stopped iql on {ENV}, seed 1" in out
    for folder in folders[:2]:
        steps = json.loads((folder / "checkpoint" / "manifest.json").read_text())["counters"]["env_steps"]
        assert 0 < steps < 3000
        owner = int((folder / "lock").read_text().split()[1])
        with pytest.raises(ProcessLookupError):
            os.kill(owner, 0)
    assert not folders[2].exists()

    assert main([*arguments, "--log-interval", "4"]) == 0
    capsys.readouterr()
    for folder in folders:
        assert json.loads((folder / "summary.json").read_text())["env_steps"] == 3000
        assert ("resuming" in (folder / "log.txt").read_text()) == (folder != folders[2])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_table(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    jobs = [
        Job(make_settings("vdn", ENV, training={"seed": seed, "steps": 200}), tmp_path / str(seed), [])
        for seed in (1, 2)
    ]
    jobs[0].state, jobs[0].started = "running", time.monotonic() - 3725
    jobs[0].folder.mkdir()
    (jobs[0].folder / "metrics.jsonl").write_text('{"env_steps": 100, "test_return_mean": 1.5}\n{"env_steps": 150}\n')
    output = Terminal()
    display = Display(jobs, output=output)
    display.show(jobs[0])
    display.show(None)
    display.close()
    text = output.getvalue()
    assert f"started vdn on {ENV}, seed 1, in {jobs[0].folder}" in text
    for part in ("75%", "test return 1.500", "1:02:05", "1 running, 1 waiting"):
        assert part in text
