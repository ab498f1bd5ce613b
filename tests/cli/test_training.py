"""Training from the command line, in processes of its own: killed, interrupted, resumed, evaluated, drawn."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from emix.cli import main
from emix.training import make_settings, read_rows
from emix.training.settings import write_config

RUN = [
    "train", "smix", "matrix/msteps-5", "--steps", "6000", "--seed", "5", "--learner.lr", "0.001",
    "--log-interval", "200", "--test-interval", "1000", "--checkpoint-interval", "150",
    "--plan.batch-size", "8", "--plan.buffer-size", "1000",
]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "emix", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Path, str]:
    """A run that nobody disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("cli") / "reference"
    code, out, err = finish(start(*RUN, "--run-dir", str(folder)))
    assert code == 0, err
    return folder, out


def test_what_is_printed_and_written(reference):
    folder, out = reference
    lines = out.splitlines()
    assert lines[0] == f"smix (recipe smix@paper, version 1) on matrix/msteps-5, seed 5, in {folder}"
    assert "steps 6,000 (2,050,000)" in lines[1]
    assert "learner.lr 0.001 (0.0005)" in lines[1]
    assert "plan.batch_size 8 (32)" in lines[1]
    assert lines[2] == (
        "updates: 1 per 4 episodes, that is 1 per 20 environment steps where episodes last the full 5 steps"
    )
    assert lines[3] == "steps: 6,000"
    assert len(lines) == 5 + rows(folder) + 2  # introduction, a plain line for every row, result
    assert "\x1b" not in out
    summary = json.loads((folder / "summary.json").read_text())
    assert lines[-2].startswith(f"test return {summary['test_return_mean']:.3f} after {summary['env_steps']:,} env")
    assert lines[-1] == f"curve: {folder / 'curve.png'}"
    assert (summary["algorithm"], summary["env"], summary["seed"]) == ("smix", "matrix/msteps-5", 5)
    assert summary["updates_per_env_step"] == summary["updates"] / summary["env_steps"]
    Image.open(folder / "curve.png").verify()
    assert list(folder.glob("events.out.tfevents.*"))


def test_interrupted_killed_and_resumed_gives_the_same_bytes(reference, tmp_path, capsys):
    folder = tmp_path / "run"
    rng = random.Random(0)

    process = start(*RUN, "--run-dir", str(folder))
    wait_until(lambda: rows(folder) > 4, process)
    assert main(["resume", str(folder)]) == 2  # a second process is refused
    assert f"{folder} is in use by process {process.pid} on " in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130
    assert "stopping after these episodes" in out
    assert err.startswith("emix: stopped by SIGINT; ")
    assert f"`emix resume {folder}` continues from the checkpoint of " in err

    killed = 0
    for _ in range(3):
        seen = rows(folder)
        process = start("resume", str(folder))
        wait_until(lambda: rows(folder) != seen or rows(folder) > 25, process)  # noqa: B023
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        killed += finish(process)[0] == -signal.SIGKILL
    assert killed >= 2

    code, out, err = finish(start("resume", str(folder)))
    assert code == 0, err
    assert out.startswith(f"resuming {folder} at ")
    assert (folder / "metrics.jsonl").read_bytes() == (reference[0] / "metrics.jsonl").read_bytes()


@pytest.mark.cuda
@pytest.mark.parametrize("algorithm", ["smix", "ensemble-mix"])
def test_killed_and_resumed_on_a_gpu_gives_the_same_bytes(tmp_path, algorithm):
    """With CUDA graphs of updates, rollouts and tests, which each process captures anew."""
    run = [
        "train", algorithm, "battle/3m", "--device", "cuda", "--steps", "8000", "--seed", "5", "--num-envs", "4",
        "--log-interval", "400", "--test-interval", "2000", "--test-episodes", "8", "--checkpoint-interval", "300",
        "--plan.batch-size", "16", "--plan.buffer-size", "200",
    ]  # fmt: skip
    whole, folder = tmp_path / "whole", tmp_path / "run"
    code, _, err = finish(start(*run, "--run-dir", str(whole)))
    assert code == 0, err
    assert rows(whole) > 20

    for command, seen in (([*run, "--run-dir"], 4), (["resume"], 10)):
        process = start(*command, str(folder))
        wait_until(lambda: rows(folder) > seen, process)  # noqa: B023
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
    code, out, err = finish(start("resume", str(folder)))
    assert code == 0, err
    assert out.startswith(f"resuming {folder} at ")
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    settings = make_settings("iql", "matrix/msteps-5", training={"steps": 50})
    write_config(tmp_path, settings, episode_limit=5)
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 0}\n{"env_')
    code, out, err = finish(start("resume", str(tmp_path)))
    assert code == 0, err
    assert out.startswith(f"resuming {tmp_path} at 0 of 50 environment steps\n")
    assert [row["env_steps"] >= 50 for row in read_rows(tmp_path)] == [False, True]


def test_a_finished_run(reference, tmp_path, capsys):
    folder = str(reference[0])
    assert main(["resume", folder]) == 0
    assert f"{folder} is finished (6,00" in capsys.readouterr().out
    assert main(["resume", folder, "--steps", "10"]) == 2
    assert "steps expects at least the 6,00" in capsys.readouterr().err

    assert main(["eval", folder, "--episodes", "6"]) == 0
    first = capsys.readouterr().out
    assert "6 episodes" in first
    assert "test_return_mean" in first
    assert main(["eval", folder, "--episodes", "6"]) == 0
    assert capsys.readouterr().out == first

    out = tmp_path / "loss.png"
    assert main(["plot", folder, "--out", str(out), "--metric", "loss"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    Image.open(out).verify()


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The environments' processes."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_dead_worker_ends_the_run_and_its_checkpoint_is_kept(tmp_path):
    pytest.importorskip("lbforaging")
    folder = tmp_path / "run"
    manifest = folder / "checkpoint" / "manifest.json"
    process = start(
        "train", "vdn", "lbf/Foraging-5x5-2p-1f-v3", "--steps", "1000000", "--log-interval", "500",
        "--checkpoint-interval", "500", "--test-episodes", "4", "--run-dir", str(folder),
    )  # fmt: skip
    wait_until(manifest.exists, process)
    pids = workers(process)
    os.kill(pids[0], signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 1
    assert "lbf/Foraging-5x5-2p-1f-v3: the worker process of environment" in err
    assert "was killed by SIGKILL" in err
    assert f"emix: `emix resume {folder}` continues from the checkpoint of " in err
    assert "Traceback" not in err
    assert not any(alive(pid) for pid in pids)

    before = json.loads(manifest.read_text())["counters"]["env_steps"]
    process = start("resume", str(folder))
    wait_until(lambda: json.loads(manifest.read_text())["counters"]["env_steps"] > before, process)
    pids = workers(process)
    assert pids
    process.kill()
    finish(process)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)  # they notice that they are alone


def test_doctor(capsys, monkeypatch):
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert all(f" {word} " in out for word in ("python", "torch", "ops", "cuda", "nvcc", "compiler", "lbforaging"))
    assert out.splitlines()[-1] == "emix can train here" if code == 0 else "must be mended" in out

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setitem(sys.modules, "emix.ops", None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken   ops" in out
    assert "missing  compiler" in out
    assert "-> apt-get install g++" in out
