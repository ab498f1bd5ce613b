"""Workers that hang, and the signals that stop a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

import emix
from emix.envs import waiting
from emix.envs.host import EnvWorkerError

pytest.importorskip("lbforaging")
ENV = "lbf/Foraging-5x5-2p-1f-v3"


def pids(env) -> list[int]:
    return [process.pid for process in env._vector.processes]


def test_a_worker_that_somebody_has_stopped(monkeypatch):
    monkeypatch.setattr(waiting, "STEP_SECONDS", 1.0)
    env = emix.make(ENV, num_envs=2)
    step = env.reset()
    worker = pids(env)[0]
    os.kill(worker, signal.SIGSTOP)
    before = time.monotonic()
    message = rf"the worker process {worker} of environment.* has not answered for 1 seconds: it hangs, or somebody"
    with pytest.raises(EnvWorkerError, match=message):
        env.step(torch.zeros_like(step.avail[..., 0], dtype=torch.int64))
    assert time.monotonic() - before < 60
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_time_in_which_this_process_is_stopped_does_not_count(monkeypatch):
    """As where the whole job is suspended: the clock jumps, and nobody was slow."""
    env = emix.make(ENV, num_envs=1)
    env.reset()
    jumps = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: float(next(jumps)))
    monkeypatch.setattr(waiting, "RESET_SECONDS", 20.0)
    env.reset()  # a slice of a second at most counts for each jump of 1000
    monkeypatch.undo()
    env.close()


def test_the_signals_that_stop_a_job_are_not_for_workers():
    env = emix.make(ENV, num_envs=2)
    step = env.reset()
    for worker in pids(env):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(worker, number)
    for _ in range(3):
        step = env.step(torch.zeros_like(step.avail[..., 0], dtype=torch.int64))
    env.close()


def test_a_program_that_closes_nothing_ends():
    """multiprocessing sends its children SIGTERM at the end, and waits for them."""
    code = f"import emix; env = emix.make({ENV!r}, num_envs=2); env.reset()"
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0


@pytest.fixture
def process(tmp_path):
    """A training of its own session that has played for some rows; it ends with the test, whatever comes of that."""
    command = [sys.executable, "-m", "emix", "train", "vdn", ENV, "--steps", "1000000", "--log-interval", "100"]
    command += ["--test-episodes", "4", "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    try:
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_saves_a_checkpoint(process, tmp_path, number):
    """As batch systems and terminals send it: to the training and all that it has started at once."""
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; `emix resume".encode() in err
    assert b"Traceback" not in err
    assert (tmp_path / "run" / "checkpoint" / "manifest.json").exists()


def test_three_times_ctrl_c_end_any_wait(process):
    """The training waits for a worker that does not answer."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=False
    )
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGSTOP)
    before = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(3.0)  # two that come before the first was seen, on a loaded machine, are one
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - before < 60
