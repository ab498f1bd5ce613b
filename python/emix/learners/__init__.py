"""Algorithms by name, and their recipes: settings that are known to work for a family of tasks.

``smix`` means ``smix@paper``; ``smix@foraging`` is the recipe ``recipes/smix/foraging.yaml``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, NamedTuple

import yaml

from emix.errors import UsageError
from emix.learners.ensemble_mix import EnsembleMix
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.learner import Learner
from emix.learners.value import ValueConfig, ValueLearner


class Algorithm(NamedTuple):
    """A learner's class and the dataclass of its hyperparameters."""

    learner: Callable[..., Learner]
    config: type[Any]


_ALGORITHMS = {
    "dop": Algorithm(EnsembleMix, EnsembleMixConfig),
    "ensemble-mix": Algorithm(EnsembleMix, EnsembleMixConfig),
    "iql": Algorithm(ValueLearner, ValueConfig),
    "qmix": Algorithm(ValueLearner, ValueConfig),
    "smix": Algorithm(ValueLearner, ValueConfig),
    "vdn": Algorithm(ValueLearner, ValueConfig),
}
_RECIPES = resources.files("emix.learners") / "recipes"
_RECIPE_FIELDS = ("version", "learner", "training", "source")


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe file. Its version rises when its numbers change, so that a curve names what made it."""

    name: str
    """<algorithm>@<recipe>"""
    version: int
    algorithm: str
    learner: dict[str, Any]
    """Fields of the algorithm's config that differ from its defaults."""
    training: dict[str, Any]
    """Fields of ``emix.training.config.TrainingConfig`` that differ from its defaults."""
    source: str
    """Where the numbers come from."""


def list_algorithms() -> list[str]:
    """Every algorithm and every recipe of it: ``["iql", "iql@paper", ...]``."""
    return [name for algorithm in _ALGORITHMS for name in (algorithm, *_recipe_names(algorithm))]


def get(name: str) -> Algorithm:
    """The algorithm of ``"smix"`` or ``"smix@foraging"``.

    Raises:
        UsageError: no such algorithm or recipe.
    """
    return _ALGORITHMS[_split(name)[0]]


def load_recipe(name: str) -> Recipe:
    """The recipe of ``"smix@foraging"``; ``"smix"`` means ``"smix@paper"``.

    Raises:
        UsageError: no such algorithm or recipe.
    """
    algorithm, recipe = _split(name)
    text = (_RECIPES / algorithm / f"{recipe}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, f"{algorithm}@{recipe}")


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe's YAML: ``version``, ``learner``, ``training`` and ``source``.

    Raises:
        UsageError: a field is missing or unknown, or a hyperparameter is out of range.
    """
    values = yaml.safe_load(text)
    if not isinstance(values, Mapping) or set(values) != set(_RECIPE_FIELDS):
        got = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
        raise UsageError(f"recipe {name}: expected the fields {', '.join(_RECIPE_FIELDS)}, got {got}")
    recipe = Recipe(name=name, algorithm=name.partition("@")[0], **values)
    make_config(recipe.algorithm, recipe.learner)
    return recipe


def make_config(name: str, values: Mapping[str, Any]) -> Any:
    """The config of algorithm ``name`` with ``values`` in place of its defaults.

    Raises:
        UsageError: a field is unknown, of the wrong type or out of range.
    """
    config = get(name).config
    known = [field.name for field in fields(config)]
    for field in values:
        if field not in known:
            raise UsageError(f"{name}: unknown hyperparameter {field!r}{_closest(field, known)}")
    return config(**values)


def _split(name: str) -> tuple[str, str]:
    """``"smix@foraging" -> ("smix", "foraging")``, both known."""
    algorithm, separator, recipe = name.partition("@")
    if algorithm not in _ALGORITHMS:
        raise UsageError(f"unknown algorithm {algorithm!r}{_closest(algorithm, _ALGORITHMS)}")
    if not separator:
        return algorithm, "paper"
    names = _recipe_names(algorithm)
    if f"{algorithm}@{recipe}" not in names:
        raise UsageError(f"unknown recipe {name!r}{_closest(name, names)}")
    return algorithm, recipe


def _recipe_names(algorithm: str) -> list[str]:
    return sorted(f"{algorithm}@{file.name.removesuffix('.yaml')}" for file in (_RECIPES / algorithm).iterdir())


def _closest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else f": expected one of {', '.join(known)}"
