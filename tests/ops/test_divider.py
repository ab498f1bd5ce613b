"""csrc/divider.h: what kernels divide by, as a product."""

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def test_equals_division(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler (g++ or c++)")
    include = FOLDER.parents[1] / "csrc"
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{include}", FOLDER / "divider.cpp"]
    subprocess.run([*command, "-o", tmp_path / "divider"], check=True)
    assert subprocess.run([tmp_path / "divider"], capture_output=True, text=True, check=True).stdout == "0 0\n"
