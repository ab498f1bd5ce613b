"""The packages that the check needs and a machine may lack: collected where there is a network, installed where not."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".wheels"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# torch must be there. Films and MuJoCo are no part of the check, and larger than all other packages together.
LEFT_OUT = ["torch", "imageio-ffmpeg", "gymnasium-robotics", "mujoco"]
STUB = "+there"  # the local version of a wheel that stands for what the other machine has


class MissingPackageError(Exception):
    """A package is neither installed nor among the collected wheels."""


def requirements() -> list[str]:
    """What building, the tests and every part need, LEFT_OUT apart."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        metadata = tomllib.load(file)
    project = metadata["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *metadata["build-system"]["requires"]]
    names = ["test"]
    for extra in names:  # grows: an extra may name others of this project, which no index has
        for each in extras[extra]:
            if own := re.fullmatch(rf"{project['name']}\[(.+)\]", each):
                names += own[1].split(",")
            else:
                needed.append(each)
    return [each for each in needed if _name(each) not in LEFT_OUT]


def install(target: Path) -> list[str]:
    """Put into the folder ``target`` what of the requirements is not installed, and return their names and versions.

    Nothing that is installed is touched, and no index is asked.
    """
    tools = [tool for tool in ("cmake>=3.26", "ninja") if not shutil.which(_name(tool))]
    source = ["--no-index", "--find-links", str(WHEELS)]
    # --target alone would install everything again, and without it pip would replace what is installed: so pip says
    # what is missing first.
    plan = _pip("install", "--dry-run", "--quiet", "--report", "-", *source, *requirements(), *tools, path=target)
    if plan.returncode:
        unmet = re.search(r"No matching distribution found for (\S+)", plan.stderr)
        raise MissingPackageError(
            f"{unmet[1]} is neither installed nor in {WHEELS.name}: run `make gpu-wheels` on a machine with a network, "
            f"and bring {WHEELS} here"
            if unmet
            else plan.stderr.strip()
        )
    wanted = [each["metadata"] for each in json.loads(plan.stdout)["install"]]
    pinned = [f"{each['name']}=={each['version']}" for each in wanted]
    if pinned:
        _pip("install", "--quiet", "--no-deps", "--target", str(target), *source, *pinned).check_returncode()
    return pinned


def collect(python: str, platforms: list[str], there: list[str]) -> None:
    """Download into WHEELS what a machine needs that has ``there``, a list of NAME==VERSION.

    Each of these is stood for by an empty wheel without dependencies, so that pip downloads neither it nor what it
    needs. pip evaluates markers such as python_version for the Python that runs it: best use the one of the machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        stubs, fetched = Path(folder, "stubs"), Path(folder, "fetched")
        stubs.mkdir()
        for each in there:
            _write_stub(stubs, *each.split("=="))
        constraints = stubs / "constraints.txt"
        constraints.write_text("".join(f"{each}{STUB}\n" for each in there))
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        options += [f"--platform={platform}" for platform in platforms]
        options += ["--find-links", str(stubs), "--constraint", str(constraints), "--dest", str(fetched), "--quiet"]
        if _pip("download", *options, *requirements(), "cmake>=3.26", "ninja", show=True).returncode:
            raise SystemExit("gpu-wheels: pip could not collect the wheels; those of before are as they were")
        shutil.rmtree(WHEELS, ignore_errors=True)
        WHEELS.mkdir()
        for wheel in fetched.glob("*.whl"):
            if STUB not in wheel.name:
                shutil.copy(wheel, WHEELS)


def glibc_platforms(newest: str) -> list[str]:
    """``manylinux_2_28_x86_64`` and the older platforms whose wheels run there; pip does not know them by itself."""
    found = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", newest)
    if not found:
        raise SystemExit(f"gpu-wheels: GPU_PLATFORM expects manylinux_2_<minor>_<machine>, got {newest}")
    minor, machine = int(found[1]), found[2]
    named = [f"manylinux{year}_{machine}" for year, least in [("2014", 17), ("2010", 12), ("1", 5)] if minor >= least]
    return [*(f"manylinux_2_{each}_{machine}" for each in range(minor, 4, -1)), *named, f"linux_{machine}"]


def _pip(*arguments: str, path: Path | None = None, show: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run([*PIP, *arguments], env=environment, capture_output=not show, text=True, check=False)


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


def _write_stub(folder: Path, name: str, version: str) -> None:
    stem = f"{name.replace('-', '_')}-{version}{STUB}"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}{STUB}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: gpu-wheels\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{stem}.dist-info/{file}", text)


def main() -> int:
    """``make gpu-wheels``."""
    parser = argparse.ArgumentParser(prog="make gpu-wheels", description=__doc__)
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="its newest platform tag")
    parser.add_argument("--there", nargs="*", default=["torch==2.11.0"], help="what it has, as NAME==VERSION")
    given = parser.parse_args()
    collect(given.python, glibc_platforms(given.platform), given.there)
    wheels = sorted(WHEELS.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    names = " ".join(wheel.name.split("-")[0] for wheel in wheels)
    print(f"{len(wheels)} wheels, {size / 2**20:.1f} MiB, in {WHEELS}: {names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
