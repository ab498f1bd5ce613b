"""What the papers' tables and figures compare, as runs to be made; ``experiments.yaml`` holds them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import yaml


class Planned(NamedTuple):
    """A method on an environment, once for each seed."""

    title: str
    algorithm: str
    options: list[str]
    env: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Args:
        title: what it shows.
        seeds: such as ``"1-10"``.
        groups: each with ``methods``, of titles what ``emix train`` is told, and ``envs``.
        steps: of a run; None: the recipe's.
        minutes: of a run, where it was measured.
        metric: None: the test win rate, or the test return.
        bounds: of the metric, to average over tasks.
        says: what the paper says in words.
    """

    title: str
    seeds: str
    groups: Sequence[Mapping[str, Any]]
    steps: int | None = None
    minutes: float | None = None
    metric: str | None = None
    bounds: Sequence[float] | None = None
    says: str | None = None

    @property
    def titles(self) -> list[str]:
        """Of the methods, each once."""
        return list(dict.fromkeys(title for group in self.groups for title in group["methods"]))

    def planned(self) -> list[Planned]:
        """Every method on every environment of its group."""
        found = []
        for group in self.groups:
            for env in group["envs"]:
                for title, words in group["methods"].items():
                    algorithm, *options = shlex.split(words)
                    found.append(Planned(title, algorithm, options, env))
        return found


def experiments() -> dict[str, Experiment]:
    """Every one by its name."""
    text = (resources.files("emix.reports") / "experiments.yaml").read_text(encoding="utf-8")
    return {name: Experiment(**values) for name, values in yaml.safe_load(text).items()}
