"""The Python examples of README.md, docs/ and the ops' docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emix import ops

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_script(script: Path) -> None:
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


NAMES = [module.name for module in pkgutil.iter_modules(ops.__path__)]
WORDS = [name for name in NAMES if not name.startswith("_") and name != "reference"]


@pytest.mark.parametrize("word", WORDS)
def test_doctests_of_the_ops(word: str) -> None:
    result = doctest.testmod(importlib.import_module(f"emix.ops.{word}"), extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_links_between_the_pages() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_line_is_wider_than_160(page: Path) -> None:
    wide = [
        f"{page.name}:{i} has {len(line)}" for i, line in enumerate(page.read_text().splitlines(), 1) if len(line) > 160
    ]
    assert wide == []
