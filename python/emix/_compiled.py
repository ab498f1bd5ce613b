"""Where the package's compiled files lie; without torch."""

from __future__ import annotations

import sys
from pathlib import Path


def compiled_file(name: str) -> Path:
    """The file ``name`` beside this package.

    Raises:
        ImportError: it is not there, and what to do.
    """
    folders = list(sys.modules["emix"].__path__)
    for folder in folders:  # an editable install has two: the sources and the compiled files
        path = Path(folder) / name
        if path.exists():
            return path
    raise ImportError(
        f"emix's compiled library {name} is not in {' or '.join(folders)}: the package was not installed, "
        "only found. Run `pip install .` in its folder (or `make setup`)."
    )
