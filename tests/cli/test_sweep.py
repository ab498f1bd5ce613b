"""``emix sweep``: runs in processes of their own, skipped, resumed, failed and interrupted."""

import fcntl
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
from emix.cli.sweep import _combinations
from emix.cli.sweep_display import Display
from emix.training import make_settings
from emix.training.files import open_own
from emix.training.sweep import Job

ENV = "matrix/penalty-2x3"
QUICK = ["--plan.batch-size", "4", "--plan.buffer-size", "100", "--test-episodes", "4"]
NAME = "plan.batch_size=4,plan.buffer_size=100"  # of what differs from the recipe


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
        (["sweep", "smix", ENV, "--seeds", "1-1000000000000"], "expects at most 10,000 seeds, got '1-1000000000000'"),
        (["sweep", "smix", ENV, "--seeds", "1-9000,9001-18000"], "expects at most 10,000 seeds"),
        (["sweep", "smix", ENV, "--seeds", "9" * 5000], "expects numbers and ranges such as 1-3 or 1,2,5, got '9999"),
        (["sweep", "smix", ENV, "--seeds", str(2**63)], "seed expects at most 9,223,372,036,854,775,807"),
        (["sweep", "smix", ENV, "--jobs", "0"], "--jobs expects at least 1, got 0"),
        (["sweep", "smix", ENV, "--seed", "1"], "has no --seed, because it makes several runs: use --seeds"),
        (["sweep", "smix", ENV, "--run_dir=x"], "has no --run-dir, because it makes several runs: use --runs"),
        (["sweep", "smix", ENV, "--setps", "9"], "Unrecognized options: --setps"),
        (["sweep", "smix", ENV, "--steps", "0"], "steps expects at least 1, got 0"),
        (["sweep", "smix", ENV, "--learner.td-lambda", "0,x"], "Error parsing --learner.td-lambda"),
        (
            ["sweep", "smix", ENV, "--steps", "100,200"],
            "runs that differ in training.steps alone would share runs/smix/matrix/penalty-2x3/1, because a run is not",
        ),
        (
            ["sweep", "smix", ENV, "--log-interval", "5,6"],
            "runs that differ in training.log_interval alone would share",
        ),
        (["sweep", "smix", ENV, "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (
            ["sweep", "smix,vdn", ENV, "--plan.batch-size", "2", "--plan.buffer-size", "8,3"],
            "plan.buffer_size expects room for a rollout, 4 episodes of 4 environments, got 3",
        ),
        (["sweep", "smix", ENV, "--precision", "bf16"], "precision bf16 needs a GPU"),
        (["sweep", "smix", ENV, "--runs", "/dev/null/runs"], "cannot write the folder /dev/null/runs: Not a directory"),
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
            name = f"{algorithm},{NAME}"
            folder = tmp_path / name / ENV / str(seed)
            assert f"started {name} on {ENV}, seed {seed}, in {folder}" in lines
            assert any(line.startswith(f"done    {name} on {ENV}, seed {seed}: test return ") for line in lines)
            assert (folder / "log.txt").read_text().startswith(f"{algorithm} (recipe {algorithm}@paper, version 1) on")
    results = json.loads((tmp_path / "sweep.json").read_text())["results"]
    assert [(row["algorithm"], row["seeds"]) for row in results] == [("vdn", [1, 3]), ("iql", [1, 3])]
    summaries = [json.loads((tmp_path / f"iql,{NAME}" / ENV / seed / "summary.json").read_text()) for seed in "13"]
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
    folder = tmp_path / f"vdn,{NAME}" / ENV / "3"
    assert f"resuming {folder} at 40 of 60 environment steps" in (folder / "log.txt").read_text()
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 60

    assert main(sweep(tmp_path, "--seeds", "1", "--steps", "40", "--test-envs", "2")) == 2
    assert (
        "holds a run with training.test_envs 4, not 2 as is asked for: give the sweep another folder"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "combinations"),
    [
        ([], [[]]),
        (["--no-graphs", "--steps", "9"], [["--no-graphs", "--steps", "9"]]),
        (["--learner.lr", "1,2"], [["--learner.lr", "1"], ["--learner.lr", "2"]]),
        (["--learner.lr=1,2"], [["--learner.lr=1"], ["--learner.lr=2"]]),
        (["--env-option", "reward=sparse,dense"], [["--env-option", f"reward={each}"] for each in ("sparse", "dense")]),
        (["--env-option=sight=1,2"], [["--env-option=sight=1"], ["--env-option=sight=2"]]),
        (["--env-option", "sizes=[1,2]"], [["--env-option", "sizes=[1,2]"]]),
        (["--env-option", "sizes=[1,2],[3]"], [["--env-option", "sizes=[1,2]"], ["--env-option", "sizes=[3]"]]),
        (["--import", "a,b.py"], [["--import", "a,b.py"]]),
        (
            ["--learner.lr", "1,2", "--graphs", "--plan.batch-size=3,4"],
            [["--learner.lr", a, "--graphs", f"--plan.batch-size={b}"] for a in "12" for b in "34"],
        ),
    ],
)
def test_lists_of_values(options, combinations):
    assert _combinations(options) == combinations


def test_a_sweep_over_values(tmp_path, capsys):
    options = ["--learner.td-lambda", "0,0.8", "--num-envs=2,4", "--seeds", "1", "--steps", "8", "--jobs", "4"]
    assert main(sweep(tmp_path, *options, algorithms="smix")) == 0
    out = capsys.readouterr().out
    assert "4 runs, 0 of them finished before" in out
    rows = json.loads((tmp_path / "sweep.json").read_text())["results"]
    configurations = [
        f"num_envs=2,{NAME},td_lambda=0", f"{NAME},td_lambda=0", f"num_envs=2,{NAME}", NAME
    ]  # fmt: skip
    assert [row["configuration"] for row in rows] == configurations  # the recipe has lambda 0.8 and 4 environments
    assert [row["algorithm"] for row in rows] == ["smix"] * 4
    for configuration in configurations:
        assert (tmp_path / f"smix,{configuration}" / ENV / "1" / "summary.json").exists()
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert lines[0].startswith("env,algorithm,configuration,")
    assert lines[2].startswith(f'{ENV},smix,"{NAME},td_lambda=0",smix@paper,')


def test_a_failed_run_does_not_stop_the_others(tmp_path, capsys):
    folder = tmp_path / f"vdn,{NAME}" / ENV / "1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("")  # what `emix train` refuses to overwrite
    assert main(sweep(tmp_path, "--seeds", "1-2", "--steps", "8", "--jobs", "1", algorithms="vdn")) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"emix: failed: vdn,{NAME} on {ENV}, seed 1: {folder} already holds a run")
    assert f"done    vdn,{NAME} on {ENV}, seed 2" in captured.out
    assert "1 of 2" in captured.out
    runs = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [(run["state"], run["summary"] is None) for run in runs] == [("failed", True), ("done", False)]


def test_a_run_of_another_sweep_is_left_alone(tmp_path):
    """Whose log it is, and whose lines are told."""
    options = ["--steps", "20", *QUICK]
    settings = make_settings("vdn", ENV, training={"seed": 1, "steps": 20})
    first, second = (Job(settings, tmp_path / "run", options) for _ in range(2))
    first.folder.mkdir()
    (first.folder / "log.txt").write_text("emix: a line of last week's\n")
    log = open_own(first.folder / "log.txt", os.O_WRONLY | os.O_APPEND)
    fcntl.flock(log, fcntl.LOCK_EX)
    second.start()
    assert second.state == "failed"
    assert second.last_words() == f"{tmp_path / 'run'} is in use by another sweep: wait for it"
    os.close(log)
    first.start()
    assert first.process is not None
    first.process.wait()
    assert first.poll(stopping=False)
    assert "last week" not in first.last_words()


def test_ctrl_c_saves_every_run_and_the_same_command_goes_on(tmp_path, capsys):
    arguments = sweep(tmp_path, "--seeds", "1-3", "--steps", "3000", "--jobs", "2", algorithms="iql")
    command = [sys.executable, "-m", "emix", *arguments, "--log-interval", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / f"iql,{NAME}" / ENV / str(seed) for seed in (1, 2, 3)]
    deadline = time.monotonic() + 120
    files = [folder / "metrics.jsonl" for folder in folders[:2]]
    while not all(file.exists() and file.stat().st_size for file in files):  # training, and no longer being made
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "emix: stopped; the same command goes on\n"
    assert out.count("started") == 2
    assert f"stopped iql,{NAME} on {ENV}, seed 1" in out
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
    for part in (
        "150 / 200",
        "test return 1.500",
        "1:02:05",
        "1 running, 1 waiting; the running ones at 150 of 200 steps",
    ):
        assert part in text
