"""The package as it is installed: what the library links, what an import costs, what a failing build says."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import emix
from emix import _host, _library

ROOT = Path(__file__).parent.parent


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def test_importing_emix_does_not_import_torch() -> None:
    assert run("import emix, sys; assert 'torch' not in sys.modules").returncode == 0


def test_version_is_that_of_the_build() -> None:
    assert emix.__version__ == _host.build()["version"]


def test_build_information() -> None:
    build = _host.build()
    assert build["cuda"] in ("ON", "OFF")
    assert (build["cuda"] == "ON") == bool(build["cuda_architectures"])
    assert re.match(r"\d+\.\d+", build["torch"])


@pytest.mark.skipif(not shutil.which("nm") or not shutil.which("readelf"), reason="needs binutils")
def test_library_uses_only_torchs_stable_c_shims() -> None:
    """What makes one file serve every torch: no C++ symbol of torch, and nothing of CUDA to link."""
    path = str(_library.library_path())
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split()[-1].split("@")[0] for line in undefined.splitlines()]
    torchs = [s for s in symbols if re.search(r"torch|at::|c10", s)]
    assert torchs
    assert all(s.startswith(("aoti_torch_", "torch_")) for s in torchs), torchs
    mangled_torch = [s for s in symbols if s.startswith("_Z") and re.search(r"N2at|3c10|5torch", s)]
    assert not mangled_torch
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.+?)\]", dynamic)
    allowed = r"libtorch_cpu\.so|(libstdc\+\+|libgcc_s|libc|libm|libdl|libpthread|librt|ld-linux.*)\.so.*"
    assert all(re.fullmatch(allowed, name) for name in needed), needed
    assert "libtorch_cpu.so" in needed


def test_missing_library_says_what_to_do() -> None:
    result = run("from emix import ops", EMIX_LIBRARY="/nonexistent/libemix.so")
    assert "/nonexistent/libemix.so cannot be loaded into torch" in result.stderr
    assert "reinstall" in result.stderr


CMAKE = Path(sys.executable).parent / "cmake"


@pytest.mark.skipif(not CMAKE.exists(), reason="needs the cmake of `make setup`")
@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["-DEMIX_CUDA=OFF"], {"CXX": "/nonexistent/g++"}, "emix needs a C++17 compiler and found none"),
        (["-DEMIX_CUDA=ON"], {"CUDACXX": "/nonexistent/nvcc"}, "EMIX_CUDA=ON needs nvcc and found none"),
        (["-DEMIX_CUDA=MAYBE"], {}, "EMIX_CUDA must be AUTO, ON, OFF or EMULATED, got MAYBE"),
    ],
)
def test_what_the_build_says_when_something_is_missing(
    tmp_path: Path, options: list[str], environment: dict[str, str], message: str
) -> None:
    command = [str(CMAKE), "-S", str(ROOT), "-B", str(tmp_path), f"-DPython_EXECUTABLE={sys.executable}", *options]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert result.returncode != 0
    assert message in " ".join(result.stderr.split())


@pytest.mark.skipif(not CMAKE.exists() or not shutil.which("nvcc"), reason="needs the cmake of `make setup`, and nvcc")
def test_a_release_is_configured_and_warned_of_where_its_toolkit_wants_new_drivers(tmp_path: Path) -> None:
    command = [str(CMAKE), "-S", str(ROOT), "-B", str(tmp_path), f"-DPython_EXECUTABLE={sys.executable}"]
    command += ["-DEMIX_CUDA=ON", "-DEMIX_RELEASE=ON"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    new = int(re.search(r"release (\d+)", version).group(1)) >= 13
    said = "This release will need a CUDA driver of 580 or newer" in " ".join(result.stderr.split())
    assert said == new
    subprocess.run([str(CMAKE), "--build", str(tmp_path), "--target", "emix_host"], capture_output=True, check=True)
    assert b"75-real 80-real 90-real 100-real 120" in (tmp_path / "libemix_host.so").read_bytes()


@pytest.mark.skipif(not CMAKE.exists(), reason="needs the cmake of `make setup`")
def test_what_the_build_says_without_torch(tmp_path: Path) -> None:
    """A Python that has no torch: the running one, told to look nowhere."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')
    python.chmod(0o755)
    command = [
        str(CMAKE),
        "-S",
        str(ROOT),
        "-B",
        str(tmp_path / "build"),
        "-DEMIX_CUDA=OFF",
        f"-DPython_EXECUTABLE={python}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "emix needs torch >= 2.10" in " ".join(result.stderr.split())


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_on_request(keep: bool) -> None:
    code = f"""
from emix import _host
import numpy as np

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if {keep}:
    assert _host.keep_freed_memory()
before = resident()
block = np.ones(1 << 27, dtype=np.uint8)
del block
assert (resident() - before > 100e6) == {keep}
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
