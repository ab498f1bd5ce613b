"""What belongs to an op is there for every op: a reference, a test, a place in docs/ops.md, a fake kernel.

That it is measured, ``tests/cli/test_bench.py`` sees; that its docstring is whole, ``test_shared.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch._library.simple_registry import singleton as registered

from emix import ops
from emix.ops import battle

ROOT = Path(__file__).parents[2]
NAMES = [name for name in ops.__all__ if name.islower() and name != "reference"]
TESTS = "\n".join(file.read_text() for file in Path(__file__).parent.glob("*.py") if file != Path(__file__))
PAGES = {page: (ROOT / "docs" / page).read_text() for page in ("ops.md", "environments.md")}
# Every op that the library registers, those of the backward passes and of the battle among them.
COMPILED = sorted({each.name for each in torch._C._jit_get_all_schemas() if each.name.startswith("emix::")})


@pytest.mark.parametrize("name", NAMES)
def test_an_op_has_a_reference_a_test_and_its_place_in_the_docs(name: str) -> None:
    assert callable(getattr(ops.reference, name, None)), f"ops/reference/__init__.py exports no {name}"
    assert re.search(rf"\b{name}\b", TESTS), f"no test in tests/ops names {name}"
    assert re.search(rf"`{name}[`(]", PAGES["ops.md"]), f"docs/ops.md says nothing of {name}"


def test_the_battle_is_described_and_tested() -> None:
    """It has a page of rules in place of a reference, and another implementation of each rule in its tests."""
    assert "## Battles" in PAGES["environments.md"]
    for name in ("battle_step", "battle_reset"):
        assert callable(getattr(battle, name))
        assert name in TESTS


def test_compiled_ops_are_found() -> None:
    assert {"emix::linear_mix", "emix::linear_mix_backward", "emix::battle_step"} <= set(COMPILED)


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_op_has_a_fake_kernel(name: str) -> None:
    assert registered.find(name).fake_impl.kernel is not None, f"{name}: ops/<word>.py registers no fake kernel"


def in_place(name: str) -> bool:
    return any(each.alias_info is not None for each in torch._C._get_schema(name, "").arguments)


@pytest.mark.parametrize("name", [name for name in COMPILED if not in_place(name)])
def test_autograd_passes_a_compiled_op_by(name: str) -> None:
    """Else torch warns of a missing derivative."""
    entry = re.search(r"Autograd\[alias\]: .*", torch._C._dispatch_dump(name))
    assert entry is not None, f"{name}: get it by `compiled` of ops/_call.py"
    assert "fallthrough" in entry.group()
