"""The part ``build``: what is missing from the wheels, then emix for this Python, this torch and this GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu_check.packages import PIP, MissingPackageError, install
from benchmarks.gpu_check.parts import Setting

# Whether what is imported is what was built, and computes.
_TRY = """
import sys, emix, torch
from emix import _host, ops
assert emix.__file__.startswith(sys.argv[1]), (
    f"emix is imported from {emix.__file__}, not from {sys.argv[1]}: it is installed in this Python; take another one")
one = torch.ones(1, 1, device=sys.argv[2])
result = ops.lambda_returns(one, one == 0, torch.full((1, 2), 2.0, device=sys.argv[2]), gamma=0.5, lam=0.8).item()
assert result == 2.0, f"lambda_returns gave {result}, expected 2.0"
"""


def main(device: str) -> int:
    """Build into ``setting.site``; a second time, only what has changed is compiled."""
    setting = Setting(device, Path.cwd())
    try:
        installed = install(setting.site)
    except MissingPackageError as error:
        print(f"ERROR: {error}")
        return 1
    print(f"installed from wheels: {' '.join(installed) or 'nothing'}", flush=True)
    start = time.monotonic()
    cuda = "ON" if device == "cuda" else "EMULATED"
    # A build folder for each device: with another EMIX_CUDA CMake would compile everything anew.
    options = ["--no-build-isolation", "--no-index", "--no-deps", "--upgrade", "--target", str(setting.site)]
    settings = ["-C", f"build-dir={setting.work / 'cmake'}", "-C", f"cmake.define.EMIX_CUDA={cuda}"]
    environment = {**os.environ, **setting.environment()}
    subprocess.run([*PIP, "install", "--verbose", *options, *settings, "."], env=environment, check=True)
    built = time.monotonic() - start
    subprocess.run([sys.executable, "-c", _TRY, str(setting.site), setting.torch_device], env=environment, check=True)
    print(f"{len(installed)} packages from wheels, emix compiled in {built:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
