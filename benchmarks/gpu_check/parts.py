"""The parts of the check, the most worth knowing first: what each runs and how long it may take."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_check.machine import PATIENCE, TOOLKIT

# The ops' small cases, by words of their tests' names: every kernel in float64, narrow types and gradients.
SMALL = "devices_agree or narrow or padding_reaches_nothing or rows_and_steps_alone or (course_of_a_battle and 3m)"

# Without what it would write into the sources.
PYTEST = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]


class UnknownPartError(Exception):
    """PARTS names what is no part."""


@dataclass(frozen=True)
class Setting:
    """Where the check runs: on a GPU, or with the emulated library in place of one."""

    device: str  # cuda or emulated
    root: Path

    @property
    def work(self) -> Path:
        return self.root / "build/gpu-check" / self.device

    @property
    def site(self) -> Path:
        """Folder of emix and of the packages from wheels."""
        return self.work / "site"

    @property
    def libemix(self) -> Path:
        return self.site / "emix/libemix.so"

    @property
    def built(self) -> bool:
        return self.libemix.exists()

    @property
    def torch_device(self) -> str:
        return "cuda" if self.device == "cuda" else "cpu"

    def log(self, part: str) -> Path:
        return self.work / f"{part}.log"

    def rows(self, part: str) -> Path:
        """What a part measured, as JSON."""
        return self.work / f"{part}.json"

    def environment(self) -> dict[str, str]:
        """The variables of every part."""
        path = [str(self.site), os.environ.get("PYTHONPATH", "")]
        variables = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), str(self.site / "bin"), TOOLKIT]),
        }
        return variables if self.device == "cuda" else {**variables, "EMIX_LIBRARY": str(self.libemix)}

    def problem(self, machine: dict[str, str]) -> str:
        """Why nothing can be run here, or an empty string."""
        if machine["torch"] == "none":
            return f"{sys.executable} has no torch: make gpu-check PYTHON=<a Python that has it>"
        if machine["torch"] == "not importable":
            return f"torch cannot be imported, or not in {PATIENCE} s: {sys.executable} -c 'import torch' says more"
        if self.device == "cuda" and machine["card"] == "none":
            return (
                f"torch {machine['torch']} sees no CUDA device here (`nvidia-smi` says more); "
                "DEVICE=emulated takes the emulated kernels in place of a GPU"
            )
        return ""


@dataclass(frozen=True)
class Part:
    """One line of the table."""

    seconds: int
    """Its limit on a GPU. The emulator takes the time it takes."""
    command: Callable[[Setting], list[str]]

    def limit(self, setting: Setting, left: float) -> float:
        return min(self.seconds, left) if setting.device == "cuda" else 1200


def choose(names: str) -> list[str]:
    """The parts that ``names`` lists, in the order of PARTS."""
    given = re.split(r"[,\s]+", names.strip())
    for name in given:
        if name not in PARTS:
            close = difflib.get_close_matches(name, PARTS, 1, 0)
            raise UnknownPartError(
                f"PARTS names {name!r}, which is no part: did you mean {close[0]!r}? Parts: {' '.join(PARTS)}"
            )
    return [name for name in PARTS if name in given]


def _module(name: str) -> Callable[[Setting], list[str]]:
    return lambda setting: [sys.executable, "-m", f"benchmarks.gpu_check.{name}", setting.device]


def _tests(setting: Setting) -> list[str]:
    if setting.device == "emulated":
        return [*PYTEST, "tests/ops", "tests/envs/battle", "-m", "not cuda", "-k", SMALL]
    return [*PYTEST, "-n", str(min(16, os.cpu_count() or 1)), "--dist", "worksteal", "tests", "-m", "cuda"]


def _bench(what: str, *, cuda: str = "", emulated: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        options = {"cuda": cuda, "emulated": emulated}[setting.device].split()
        rows = str(setting.rows(what))
        return [sys.executable, "-m", "emix", "bench", what, "--device", setting.torch_device, "--json", rows, *options]

    return command


TOTAL = 470  # seconds for all parts on a GPU, of eight minutes: what comes late gets what the parts before it left
PARTS = {
    "build": Part(130, _module("build")),
    "tests": Part(150, _tests),
    "train": Part(70, _module("train")),
    "ops": Part(100, _bench("ops", emulated="--op gae lambda_returns")),
    "battle": Part(50, _bench("battle", emulated="--map 3m --num-envs 8")),
    "update": Part(80, _bench("update", cuda="--algorithm smix ensemble-mix", emulated="--algorithm smix --map 3m")),
    "sanitizer": Part(120, _module("sanitizer")),
}
