"""What the results were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

PATIENCE = 120  # seconds: a machine that has just started reads torch for the first time
TOOLKIT = "/usr/local/cuda/bin"
_TORCH = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "CUDA": torch.version.cuda or "none",
    "card": torch.cuda.get_device_name() if there else "none",
    "compute capability": "{}.{}".format(*torch.cuda.get_device_capability()) if there else "none",
}))
"""


def describe(root: Path) -> dict[str, str]:
    """Card, driver, versions, commit and date; "none" or "unknown" for what is not there."""
    torch = _output([sys.executable, "-c", _TORCH])
    missing = "none" if find_spec("torch") is None else "not importable"
    found = json.loads(torch) if torch else {"torch": missing, "CUDA": "none", "card": "none"}
    version = re.search(r"release ([\d.]+)", _output([find_tool("nvcc"), "--version"]))
    return {
        "card": found.pop("card"),
        "driver": _driver(),
        **found,
        "nvcc": version[1] if version else "none",
        "python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0))),
        "commit": os.environ.get("COMMIT") or _commit(root),
        "date": time.strftime("%Y-%m-%d"),
    }


def find_tool(name: str) -> str:
    """A program of the CUDA toolkit, on PATH or where the toolkit is usually installed; else the name as it is."""
    return shutil.which(name) or shutil.which(name, path=TOOLKIT) or name


def _driver() -> str:
    lines = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).splitlines()
    return lines[0] if lines else "none"


def _commit(root: Path) -> str:
    commit = _output(["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"]).strip()
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}{' with changes' if changed else ''}" if commit else "unknown"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
