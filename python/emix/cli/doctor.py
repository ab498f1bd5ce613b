"""``emix doctor``: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import emix
from emix.cli.options import read_command_line
from emix.envs.sc2.packages import (
    Look,
    look_at_game,
    look_at_maps,
    look_at_protocol,
    look_at_smac,
    look_at_websocket,
)

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Doctor:
    """Check this machine: build, torch, CUDA, compilers, ops, optional packages. Exits with 1 where one is broken."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``missing`` is optional, ``broken`` is not."""

    what: str
    state: State
    detail: str
    mend: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    read_command_line(Doctor, arguments, "doctor")
    checks: list[Callable[[], Finding]] = [_python, _cores, _build, _torch, _ops, _cuda, _driver]
    findings = [check() for check in checks]
    findings += [*_gpus(), _nvcc(), _compiler()]
    findings += [_package("lbforaging", "lbf/ environments", 'pip install "emix[lbf]"')]
    findings += [_package("gymnasium-robotics", "mamujoco/ environments", 'pip install "emix[mamujoco]"')]
    findings += [_package("pettingzoo", "environments as PettingZoo's", 'pip install "emix[pettingzoo]"')]
    looks = (look_at_protocol(), look_at_websocket(), look_at_smac(), look_at_game(), look_at_maps())
    findings += [Finding(look.what, _optional(look), look.detail, look.mend) for look in looks]
    for finding in findings:
        print(f"{finding.state:<8} {finding.what:<18} {finding.detail}")
        if finding.mend:
            print(f"{'':<27} -> {finding.mend}")
    broken = [finding.what for finding in findings if finding.state == "broken"]
    print(f"{', '.join(broken)} must be mended" if broken else "emix can train here")
    return 1 if broken else 0


def _optional(look: Look) -> State:
    """What is broken of StarCraft II keeps nobody from training on anything else."""
    return "missing" if look.state == "broken" else look.state


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _cores() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("machine", "ok", f"{len(os.sched_getaffinity(0))} cores, {memory:.1f} GiB memory")


def _build() -> Finding:
    try:
        from emix import _host
    except ImportError as error:
        return Finding("emix", "broken", f"{emix.__version__}, not built: {error}", "pip install . (or make setup)")
    info = _host.build()
    cuda = (
        f"CUDA {info['cuda_version']} for {info['cuda_architectures']}" if info["cuda_version"] else "no CUDA kernels"
    )
    return Finding("emix", "ok", f"{emix.__version__}, built by {info['compiler']} with torch {info['torch']}, {cuda}")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", "broken", str(error), 'pip install "torch>=2.10"')
    if tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2]) < (2, 10):
        return Finding("torch", "broken", f"{torch.__version__}, expected at least 2.10", 'pip install "torch>=2.10"')
    return Finding("torch", "ok", str(torch.__version__))


def _ops() -> Finding:
    """Whether the compiled library loads and computes: the return of one step of reward 1 that bootstraps from 2."""
    try:
        import torch

        ops = import_module("emix.ops")
        reward, terminated = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.bool)
        result = ops.lambda_returns(reward, terminated, torch.full((1, 2), 2.0), gamma=0.5, lam=0.8).item()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("ops", "broken", " ".join(str(error).split()), "pip install --force-reinstall . (or make setup)")
    if result != 2.0:
        return Finding("ops", "broken", f"lambda_returns gave {result}, expected 2.0", "report it with this output")
    return Finding("ops", "ok", "the library loads and computes")


def _cuda() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("cuda", "missing", "no torch")
    if torch.version.cuda is None:
        return Finding(
            "cuda", "missing", "this torch is built without CUDA", "a torch with CUDA: https://pytorch.org/get-started"
        )
    if not torch.cuda.is_available():
        return Finding("cuda", "missing", f"torch has CUDA {torch.version.cuda}, but sees no GPU", "check `nvidia-smi`")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("cuda", "ok", f"CUDA {torch.version.cuda}: {', '.join(names)}")


def _driver() -> Finding:
    """Whether the driver runs emix's CUDA kernels: torch's may be of another CUDA, and say nothing of them."""
    driver = _driver_version()
    if driver == 0:
        return Finding(
            "driver",
            "missing",
            "no CUDA driver (libcuda.so.1), needed only for a GPU",
            "https://www.nvidia.com/drivers",
        )
    try:
        from emix import _host
    except ImportError:
        return Finding("driver", "ok", f"for CUDA {_text(driver)}")
    return _fits(_host.build()["cuda_version"], driver)


def _fits(built: str, driver: int) -> Finding:
    """The finding for a library built with CUDA ``built``, such as 12.9.86 ("": without), and a driver's version."""
    if not built:
        return Finding("driver", "ok", f"for CUDA {_text(driver)}; emix has no CUDA kernels")
    from emix import _host

    major, minor = (int(number) for number in built.split(".")[:2])
    toolkit = 1000 * major + 10 * minor
    if problem := _host.driver_problem(toolkit, driver):
        return Finding("driver", "broken", problem, _host.driver_remedy(toolkit, driver))
    return Finding("driver", "ok", f"for CUDA {_text(driver)}, runs what CUDA {major}.{minor} built")


def _gpus() -> list[Finding]:
    """Of each GPU: whether emix has code for it, and its kernels beside their references."""
    try:
        import torch

        from emix import _host
        from emix.cli import kernels
    except ImportError:  # which `_torch`, `_build` and `_ops` report
        return []
    if not torch.cuda.is_available():
        return []
    build = _host.build()
    if not build["cuda_version"]:
        mend = f"{kernels.REBUILD} (with nvcc on PATH)"
        return [Finding("gpu", "missing", "emix is built without CUDA kernels", mend)]
    found = []
    for index in range(torch.cuda.device_count()):
        name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        found.append(_gpu(f"cuda:{index}", name, capability, build["cuda_architectures"]))
    return found


def _gpu(device: str, name: str, capability: tuple[int, int], compiled: str) -> Finding:
    """The finding for one GPU. What cannot be launched there is not tried."""
    from emix.cli import kernels

    if problem := kernels.architecture_problem(compiled, capability):
        return Finding("gpu", "broken", f"{name}: {problem}", kernels.architecture_remedy(capability))
    import torch

    if failing := dict(kernels.failing_words(torch.device(device))):
        detail = "; ".join(f"{word}: {error}" for word, error in failing.items())
        mend = f"{kernels.REBUILD}; if that does not help, report this output"
        return Finding("gpu", "broken", f"{name}: {detail}", mend)
    return Finding("gpu", "ok", f"{name}: a kernel of each of {', '.join(kernels.words())} agrees with its reference")


def _driver_version() -> int:
    """12090 of a driver for CUDA 12.9; 0 where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    version = ctypes.c_int(0)
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0


def _text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _nvcc() -> Finding:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        return Finding(
            "nvcc", "missing", "needed only to build CUDA kernels", "install the CUDA toolkit, or put its bin in PATH"
        )
    return Finding("nvcc", "ok", f"{nvcc}, {_last_line([nvcc, '--version'])}")


def _compiler() -> Finding:
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        return Finding(
            "compiler", "missing", "needed only to build emix", "apt-get install g++ (or your system's package)"
        )
    return Finding("compiler", "ok", f"{compiler}, {_first_line([compiler, '--version'])}")


def _package(name: str, purpose: str, install: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "missing", f"needed only for {purpose}", install)


def _first_line(command: list[str]) -> str:
    return _output(command).partition("\n")[0]


def _last_line(command: list[str]) -> str:
    return _output(command).rpartition("\n")[2]


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"which does not run: {error}"
