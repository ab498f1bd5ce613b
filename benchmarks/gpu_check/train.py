"""The part ``train``: SMIX on battle/3m, once undisturbed and once killed and resumed, must write the same metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu_check.parts import Setting

STEPS = {"cuda": 12_000, "emulated": 2_000}
ROWS = 20  # that a run writes


def main(device: str) -> int:
    """Train, kill, resume, compare."""
    setting = Setting(device, Path.cwd())
    whole, killed = setting.work / "runs/whole", setting.work / "runs/killed"
    shutil.rmtree(whole.parent, ignore_errors=True)
    command = _command(setting, STEPS[device])
    start = time.monotonic()
    _emix("train", *command, "--run-dir", str(whole))
    seconds = time.monotonic() - start
    summary = json.loads((whole / "summary.json").read_text())
    _kill_half_way([*command, "--run-dir", str(killed)], killed)
    done = json.loads((killed / "checkpoint/manifest.json").read_text())["counters"]["env_steps"]
    _emix("resume", str(killed))
    rows = compare(whole, killed)
    row = {"learner": "smix", "map": "3m", "steps_per_s": summary["env_steps"] / summary["seconds"], "seconds": seconds}
    setting.rows("train").write_text(json.dumps([row]))
    print(f"killed and resumed at {done:,} of {summary['env_steps']:,} steps: all {rows} rows of metrics the same")
    return 0


def compare(whole: Path, killed: Path) -> int:
    """Return how many rows of metrics both runs have; an AssertionError names the first one that differs."""
    expected, found = (_metrics(folder).read_bytes().splitlines() for folder in (whole, killed))
    for number, (theirs, ours) in enumerate(zip(expected, found, strict=False), 1):
        assert ours == theirs, f"row {number} of metrics.jsonl is {ours!r} after the resume, {theirs!r} expected"
    assert len(expected) == len(found), f"metrics.jsonl has {len(found)} rows, {len(expected)} expected"
    return len(found)


def _command(setting: Setting, steps: int) -> list[str]:
    """The paper's recipe, but for the intervals."""
    intervals = {"log": steps // ROWS, "checkpoint": steps // 8, "test": steps // 4}
    options = [each for name, value in intervals.items() for each in (f"--{name}-interval", str(value))]
    few = "--test-episodes 8" if setting.device == "cuda" else "--test-episodes 4 --plan.batch-size 8"
    options += few.split()
    return ["smix", "battle/3m", "--seed", "1", "--device", setting.torch_device, "--steps", str(steps), *options]


def _kill_half_way(command: list[str], folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "emix", "train", *command])
    try:
        while process.poll() is None and _rows(folder) < ROWS // 2:
            time.sleep(0.02)
        code = process.poll()
        assert code is None, f"the run ended by itself, with status {code}, before it could be killed"
        assert (folder / "checkpoint/manifest.json").exists(), "half of the run left no checkpoint"
    finally:
        process.kill()
        process.wait()


def _emix(*arguments: str) -> None:
    print(f"emix {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "emix", *arguments], check=True)


def _metrics(folder: Path) -> Path:
    return folder / "metrics.jsonl"


def _rows(folder: Path) -> int:
    return _metrics(folder).read_bytes().count(b"\n") if _metrics(folder).exists() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
