"""Try a wheel in fresh environments: of every Python at hand, and of one with each torch that is named.

``python -m tests.wheel dist/emix-0.1.0-*.whl --torch 2.11 2.13 newest [--python python3.11 ...]``
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST, NEWEST = 10, 20  # minor versions of Python that are looked for


def pythons() -> list[str]:
    """Every Python from 3.10 on: on PATH, and pyenv's."""
    found: dict[str, str] = {}
    pyenv = [path for path in Path.home().glob(".pyenv/versions/*/bin/python3.*") if path.suffix[1:].isdecimal()]
    on_path = (shutil.which(f"python3.{minor}") for minor in range(OLDEST, NEWEST))
    for each in [*map(str, sorted(pyenv)), *filter(None, on_path), sys.executable]:
        version = _version(each)
        if version and version >= (3, OLDEST):
            found.setdefault(f"{version[0]}.{version[1]}", each)
    return [found[name] for name in sorted(found, key=lambda name: int(name.partition(".")[2]))]


def _version(python: str) -> tuple[int, int] | None:
    """(3, 12), or None where it does not run (a shim of a version that is not chosen) or lacks venv."""
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    numbers = re.findall(r"\d+", done.stdout)
    return (int(numbers[0]), int(numbers[1])) if done.returncode == 0 and len(numbers) == 2 else None


def try_wheel(wheel: Path, python: str, torch: str) -> str:
    """Install and check it in an environment that is thrown away; "" or what failed."""
    with tempfile.TemporaryDirectory() as folder:
        inside = str(Path(folder) / "bin" / "python")
        wanted = "torch" if torch == "newest" else f"torch=={torch}.*"
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [python, "-m", "venv", folder],
            [*pip, wanted, str(wheel.resolve())],
            [inside, str(Path(__file__).with_name("check.py"))],
        ):
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            if done.returncode != 0:
                return f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}"
        print(f"  {done.stdout.rstrip().splitlines()[-1]}", flush=True)
    return ""


def main() -> int:
    """Try every combination and return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheel", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", default=["newest"], help="of the last Python; every Python gets 2.13")
    parser.add_argument("--python", nargs="+", default=pythons(), help="by default all that are found")
    arguments = parser.parse_args()
    wheel, found = arguments.wheel, arguments.python
    trials = dict.fromkeys([(python, "2.13") for python in found] + [(found[-1], torch) for torch in arguments.torch])
    failed = 0
    for python, torch in trials:
        print(f"{wheel.name}: {python}, torch {torch}", flush=True)
        if problem := try_wheel(wheel, python, torch):
            failed += 1
            print(problem, flush=True)
    print(f"{len(trials) - failed} of {len(trials)} environments take the wheel")
    return failed


if __name__ == "__main__":
    sys.exit(main())
