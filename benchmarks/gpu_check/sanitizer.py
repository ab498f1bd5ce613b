"""The part ``sanitizer``: the ops' small cases under three tools of compute-sanitizer, side by side."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_check.machine import find_tool
from benchmarks.gpu_check.parts import PYTEST, SMALL, Setting
from benchmarks.gpu_check.running import SKIPPED

TOOLS = ["memcheck", "racecheck", "synccheck"]
# Two halves of the tests for each tool, so that six processes share the cores.
HALVES = {"recurrent": "recurrent", "others": "not recurrent"}
FOLDERS = ["tests/ops", "tests/envs/battle/test_devices.py"]
ERRORS = 9  # compute-sanitizer's exit status where it found something


def main(device: str) -> int:
    """Print every tool's output, and last a line for the table."""
    setting, program = Setting(device, Path.cwd()), find_tool("compute-sanitizer")
    if device != "cuda":
        print("there is no GPU: the emulator checks barriers, shuffles and shared memory itself, in the part `tests`")
        return SKIPPED
    if not shutil.which(program):
        print("compute-sanitizer is neither on PATH nor beside the CUDA toolkit's nvcc")
        return SKIPPED
    names = [f"{tool}-{half}" for tool in TOOLS for half in HALVES]
    processes = {name: _start(name, setting, program, 49_152 + 100 * i) for i, name in enumerate(names)}
    try:
        codes = {name: process.wait() for name, process in processes.items()}
    finally:  # also when the time is up
        logs = {name: setting.log(f"sanitizer-{name}").read_text(errors="replace") for name in names}
        for name, log in logs.items():
            print(f"\n{name}\n{log}", flush=True)
    if any("Device not supported" in log for log in logs.values()):
        print("compute-sanitizer does not support this device here")
        return SKIPPED
    errors = {tool: _errors(tool, logs) for tool in TOOLS}
    print(", ".join(f"{tool} {count} errors" for tool, count in errors.items()), f"in {_passed(logs)} cases")
    return int(any(codes.values()) or any(errors.values()))


def _start(name: str, setting: Setting, program: str, port: int) -> subprocess.Popen[bytes]:
    tool, half = name.split("-")
    # Only this project's kernels, and no calls of torch that are meant to fail. Each process has its own ports.
    options = f"--tool {tool} --kernel-name kns=emix --report-api-errors no --error-exitcode {ERRORS} "
    options += f"--target-processes application-only --launch-timeout 60 --port {port}"
    tests = [*PYTEST, *FOLDERS, "-m", "cuda", "-k", f"({SMALL}) and {HALVES[half]}"]
    # memcheck sees where a tensor ends only if each has its own allocation.
    environment = {**os.environ, **({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {})}
    with setting.log(f"sanitizer-{name}").open("wb") as log:
        return subprocess.Popen(
            [program, *options.split(), *tests], stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _errors(tool: str, logs: dict[str, str]) -> int:
    """What the last line of each log of this tool counts: errors, or racecheck's hazards."""
    found = [re.findall(r"SUMMARY: (\d+)", log) for name, log in logs.items() if name.startswith(tool)]
    return sum(int(each[-1]) for each in found if each)


def _passed(logs: dict[str, str]) -> int:
    return sum(int(count) for log in logs.values() for count in re.findall(r"(\d+) passed", log))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
