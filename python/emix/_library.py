"""Loads libemix.so, which registers ``torch.ops.emix.*``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from emix._compiled import compiled_file

# Another build of the library, such as the one whose CPU kernels are the emulated CUDA kernels.
OVERRIDE = "EMIX_LIBRARY"


def library_path() -> Path:
    """Where libemix.so lies: beside this package, or where the environment variable EMIX_LIBRARY says."""
    if OVERRIDE in os.environ:
        return Path(os.environ[OVERRIDE])
    return compiled_file("libemix.so")


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
    _refuse_stale(path)


def _refuse_stale(path: Path) -> None:
    """Raise ImportError where an editable install's library was built from other sources than lie beside its Python:
    its ops would be missing, or take other arguments."""
    table = Path(__file__).resolve().parents[2] / "csrc" / "library.cpp"
    if not table.is_file():  # an ordinary install: both come from one wheel
        return
    schemas: Any = torch._C
    declared = {str(schemas.parse_schema(f"emix::{text}")) for text in _declared(table.read_text(encoding="utf-8"))}
    built = {str(each) for each in schemas._jit_get_all_schemas() if each.name.startswith("emix::")}
    if other := sorted(_name(schema) for schema in declared - built):
        raise ImportError(
            f"{path} was built from older sources than those of {table.parents[1]} ({', '.join(other)} differ): "
            f"run `make setup` there (or `pip install --editable .`)"
        )


def _declared(text: str) -> list[str]:
    """The schemas in library.cpp: ``m.def("...")``, each of several literals."""
    calls = re.findall(r'm\.def\(\s*((?:"[^"]*"\s*)+)\)', text)
    return ["".join(re.findall(r'"([^"]*)"', call)) for call in calls]


def _name(schema: str) -> str:
    return schema.partition("(")[0].removeprefix("emix::")
