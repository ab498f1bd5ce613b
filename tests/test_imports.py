"""Imports run one way: who may import whom, and that no two modules need each other, for types or inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "python" / "emix"
BOTTOM = {"_compiled", "_host", "_lazy", "_library", "_precision", "_version", "errors", "plugins", "reading"}
# What the modules of each part may import beside their own part.
ALLOWED = {
    "": {"_version", "data", "envs", "learners", "nn", "ops", "playing", "training"},  # the package itself, for users
    "__main__": {"cli"},
    "_compiled": set(),
    "_host": {"_compiled"},
    "_lazy": set(),
    "_library": {"_compiled"},
    "_precision": set(),
    "_version": set(),
    "errors": set(),
    "plugins": {"errors"},
    "reading": {"errors"},
    "data": {"_lazy", "errors"},
    "distributed": set(),
    "ops": {"_host", "_library", "_precision", "errors"},
    "nn": {"_precision", "errors", "ops"},
    "envs": BOTTOM | {"data", "ops"},
    "learners": BOTTOM | {"data", "distributed", "nn", "ops"},
    "playing": BOTTOM | {"data", "envs", "learners"},
    "training": BOTTOM | {"data", "distributed", "envs", "learners", "ops", "playing"},
    "bench": BOTTOM | {"data", "distributed", "envs", "learners", "nn", "ops", "playing", "training"},
    "reports": BOTTOM | {"training"},
    "cli": BOTTOM | {"", "bench", "data", "envs", "learners", "ops", "playing", "reports", "training"},
}


def modules(root: Path) -> dict[str, Path]:
    """Every module's file, by its name: ``emix.training.loop``; a package's is its ``__init__.py``."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """The modules of the package that a file imports anywhere, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((each.name, node.lineno) for each in node.names if each.name.split(".")[0] == "emix")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module.split(".")[0] == "emix":
                names = [f"{module}.{each.name}" for each in node.names]
                yield from ((name if name in known else module, node.lineno) for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and str(argument.value).startswith("emix."):
                yield str(argument.value), node.lineno


def part(module: str) -> str:
    """``emix.training.loop`` -> ``training``."""
    return module.split(".")[1] if "." in module else ""


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Paths that lead back to where they began."""
    found, finished = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in finished:
            for other in sorted(graph.get(name, ())):
                visit(other, [*path, name])
            finished.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


KNOWN = modules(ROOT)


def test_every_part_has_its_place() -> None:
    assert {part(name) for name in KNOWN} == set(ALLOWED)


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_no_import_runs_up(name: str) -> None:
    wrong = [
        f"{module}:{line} imports {other}"
        for module, path in KNOWN.items()
        if part(module) == name
        for other, line in imports(path, KNOWN)
        if part(other) not in ALLOWED[name] | {name}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_need_each_other() -> None:
    graph = {name: {other for other, _ in imports(path, KNOWN)} - {name} for name, path in KNOWN.items()}
    found = circles(graph)
    assert not found, "\n".join(" -> ".join(circle) for circle in found)


def test_the_test_sees_what_it_forbids(tmp_path: Path) -> None:
    package = tmp_path / "emix"
    (package / "ops").mkdir(parents=True)
    (package / "ops" / "one.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from emix.ops import two\n"
        "def late():\n"
        "    import emix.cli.main as main\n"
    )
    (package / "ops" / "two.py").write_text('import importlib\none = importlib.import_module("emix.ops.one")\n')
    known = modules(package)
    found = {name: dict(imports(path, known)) for name, path in known.items()}
    assert found == {"emix.ops.one": {"emix.ops.two": 3, "emix.cli.main": 5}, "emix.ops.two": {"emix.ops.one": 2}}
    assert circles({name: set(others) for name, others in found.items()}) == [
        ["emix.ops.one", "emix.ops.two", "emix.ops.one"]
    ]
