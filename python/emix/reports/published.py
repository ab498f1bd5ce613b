"""What the papers have published, to be put beside what was measured; ``published.yaml`` holds it, with the sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

_MAPS = {"sc2", "smac"}  # StarCraft II itself: what is published of battle/<map> is of these


@dataclass(frozen=True)
class Figure:
    """Of one method on one task, in the units of the metric."""

    source: str
    mean: float | None = None
    std: float | None = None
    median: float | None = None

    def text(self) -> str:
        """``0.99 ± 0.00 std, median 0.99``."""
        spread = "" if self.std is None else f" ± {self.std:.2f} std"
        parts = [] if self.mean is None else [f"{self.mean:.2f}{spread}"]
        return ", ".join(parts + ([] if self.median is None else [f"median {self.median:.2f}"]))


@dataclass(frozen=True)
class Published:
    """Tables of published figures, the first that has a figure wins."""

    tables: Sequence[Mapping[str, Any]] = ()

    def find(self, task: str, name: str, title: str, metric: str) -> Figure | None:
        """The figure of a method, by its title in the paper or by its run's name; that of ``battle/<map>`` is also of
        ``sc2/<map>`` and ``smac/<map>``."""
        family, slash, rest = task.partition("/")
        task = f"battle{slash}{rest}" if family in _MAPS else task
        for table in self.tables:
            if table["metric"] != metric:
                continue
            methods = {table["methods"].get(name, title), title}
            for method in methods & set(table["values"].get(task, {})):
                values = [table["scale"] * value for value in table["values"][task][method]]
                return Figure(table["source"], *values)
        return None


@cache
def published() -> Mapping[str, Mapping[str, Any]]:
    """Every table by its name."""
    text = (resources.files("emix.reports") / "published.yaml").read_text(encoding="utf-8")
    tables: dict[str, Mapping[str, Any]] = yaml.safe_load(text)
    return tables
