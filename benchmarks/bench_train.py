"""Environment steps per second of ``emix train smix battle/2s3z`` at the paper's settings, from start to end.

    pytest benchmarks/bench_train.py -s

Evaluations, logging and checkpoints count. The goal on two CPU cores is 2500; EPyMARL on SMAClite makes 112. Steps per
second of processor time, imports and all, say what a machine that does something else meanwhile would make.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = {"cpu": 60_000, "cuda": 500_000}


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_per_second(threads: int, device: str, tmp_path: Path) -> None:
    arguments = ["train", "smix", "battle/2s3z", "--device", device, "--steps", str(STEPS[device])]
    options = ["--threads", str(threads), "--seed", "1", "--run-dir", str(tmp_path / "run")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "emix", *arguments, *options], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = json.loads((tmp_path / "run" / "summary.json").read_text())["seconds"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    shares = {name.removeprefix("frac_"): value for name, value in rows[-1].items() if name.startswith("frac_")}
    rates = f"{STEPS[device] / seconds:,.0f} environment steps/s, {STEPS[device] / processor:,.0f} per processor second"
    print(f"\n{device}, threads {threads}: {rates}")
    print("shares since the last row:", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    assert rows[-1]["env_steps"] >= STEPS[device]
