"""Loads libemix.so, which registers ``torch.ops.emix.*``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

# Another build of the library, such as the one whose CPU kernels are the emulated CUDA kernels.
OVERRIDE = "EMIX_LIBRARY"


def library_path() -> Path:
    """Where libemix.so lies: beside this package, or where the environment variable EMIX_LIBRARY says."""
    if OVERRIDE in os.environ:
        return Path(os.environ[OVERRIDE])
    folders = list(sys.modules["emix"].__path__)
    for folder in folders:  # an editable install has two: the sources and the compiled files
        path = Path(folder) / "libemix.so"
        if path.exists():
            return path
    raise ImportError(
        f"emix's compiled library libemix.so is not in {' or '.join(folders)}: the package was not installed, "
        "only found. Run `pip install .` in its folder (or `make setup`)."
    )


def load() -> None:
    """Load the library into torch; an ImportError says what does not fit."""
    path = library_path()
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"{path} cannot be loaded into torch {torch.__version__}: {error}. emix needs torch >= 2.10; "
            "reinstall it in this environment (pip install --force-reinstall emix)."
        ) from error
