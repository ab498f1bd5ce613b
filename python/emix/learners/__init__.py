"""Algorithms by name, and their recipes: settings that are known to work for a family of tasks.

``smix`` means ``smix@paper``; ``smix@foraging`` is the recipe ``recipes/smix/foraging.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fnmatch import fnmatchcase
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from emix.errors import UsageError, closest
from emix.learners.ader_config import AderConfig
from emix.learners.coma_config import ComaConfig
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.facmac_config import FacmacConfig
from emix.learners.ppo_config import PPOConfig
from emix.learners.qtran_config import QtranConfig
from emix.learners.value_config import ValueConfig
from emix.plugins import load_entry_points

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from emix.learners.learner import Learner


class Algorithm(NamedTuple):
    """A learner, the dataclass of its hyperparameters, and the folder of its recipes."""

    made_by: Callable[..., Learner] | tuple[str, str]  # its class, or the module and the name of that
    config: type[Any]
    recipes: Traversable | None  # without one its only recipe is ``paper``, the config's defaults

    @property
    def learner(self) -> Callable[..., Learner]:
        """The learner's class, imported with torch when it is first asked for."""
        if isinstance(self.made_by, tuple):
            module, name = self.made_by
            return getattr(import_module(module), name)
        return self.made_by


_RECIPES = resources.files("emix.learners") / "recipes"
_ALGORITHMS: dict[str, Algorithm] = {}
_SECTIONS = {"learner", "training", "env"}


def register_learner(
    name: str, learner: Callable[..., Learner], config: type[Any], recipes: Traversable | None = None
) -> None:
    """Let ``emix.train`` and the commands find a learner by ``name``.

    Args:
        name: without ``@``.
        learner: its class, called with (config, spec, device=..., seed=...): see ``emix.learners.learner.Learner``.
        config: the frozen dataclass of its hyperparameters; every field has a default.
        recipes: a folder of ``<recipe>.yaml``, such as ``pathlib.Path(__file__).parent / "recipes"``; where there is
            none, or no ``paper.yaml`` in it, the recipe ``paper`` is the config's defaults.

    Raises:
        UsageError: the name is taken by another learner or has an ``@``, or config is no dataclass with defaults.
    """
    if not name or "@" in name or "/" in name:
        raise UsageError(f"register_learner: name expects a word without @ and /, got {name!r}")
    if not is_dataclass(config):
        raise UsageError(f"register_learner {name!r}: config expects a dataclass, got {config!r}")
    new = Algorithm(learner, config, recipes)
    known = _ALGORITHMS.get(name)
    if known is not None and _source(known) != _source(new):
        raise UsageError(
            f"register_learner: the name {name!r} is taken by {'.'.join(_source(known)[0])}: choose another"
        )
    try:
        config()
    except TypeError as error:
        raise UsageError(f"register_learner {name!r}: every field of config expects a default ({error})") from error
    _ALGORITHMS[name] = new


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe file. Its version rises when its numbers change, so that a curve names what made it."""

    name: str
    """<algorithm>@<recipe>"""
    version: int
    source: str
    """Where the numbers come from."""
    learner: dict[str, Any] = field(default_factory=dict)
    """Fields of the algorithm's config that differ from its defaults, those of its ``plan`` in a dict of their own."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of ``emix.training.TrainingConfig`` that differ from its defaults."""
    env: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of environments, by a pattern of their names: ``{"battle/*": {"state_last_action": False}}``."""

    @property
    def algorithm(self) -> str:
        """<algorithm>"""
        return self.name.partition("@")[0]

    def env_options(self, env: str) -> dict[str, Any]:
        """The options for the environment of this name, of every pattern that fits; later ones win."""
        options: dict[str, Any] = {}
        for pattern, values in self.env.items():
            if fnmatchcase(env, pattern):
                options |= values
        return options


def list_algorithms() -> list[str]:
    """Every algorithm and every recipe of it: ``["iql", "iql@paper", ...]``."""
    load_entry_points("emix.learners")
    return [name for algorithm in sorted(_ALGORITHMS) for name in (algorithm, *_recipe_names(algorithm))]


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
    file = _recipe_file(algorithm, recipe)
    if file is None:  # a user's learner without a file
        return Recipe(f"{algorithm}@{recipe}", 1, f"the defaults of {_ALGORITHMS[algorithm].config.__name__}")
    return parse_recipe(file.read_text(encoding="utf-8"), f"{algorithm}@{recipe}")


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe's YAML: ``version`` and ``source``, and where it has them ``learner``, ``training`` and ``env``.

    Raises:
        UsageError: a field is missing or unknown, or a hyperparameter is out of range.
    """
    values = yaml.safe_load(text)
    needed, known = {"version", "source"}, {"version", "source"} | _SECTIONS
    if not isinstance(values, Mapping) or not needed <= set(values) <= known:
        got = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
        raise UsageError(f"recipe {name}: expected the fields version, source, learner, training and env, got {got}")
    for section in _SECTIONS & set(values):
        if not isinstance(values[section], Mapping):
            raise UsageError(f"recipe {name}: {section} expects names with values, got {values[section]!r}")
    recipe = Recipe(name=name, **values)
    make_config(recipe.algorithm, recipe.learner)
    return recipe


def make_config(name: str, values: Mapping[str, Any]) -> Any:
    """The config of algorithm ``name`` with ``values`` in place of its defaults.

    Args:
        name: of the algorithm, with or without a recipe.
        values: by field; those of a nested dataclass, such as ``plan``, in a dict, in place of its own defaults.

    Raises:
        UsageError: a field is unknown, of the wrong type or out of range.
    """
    return _filled(get(name).config(), values, name)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; dicts within, such as ``plan``, are merged in turn."""
    result = dict(values)
    for name, value in changes.items():
        inner = result.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def _filled(config: Any, values: Mapping[str, Any], name: str) -> Any:
    """The dataclass ``config`` with ``values`` set, in nested dataclasses, too."""
    known = [each.name for each in fields(config)]
    chosen = {each: getattr(config, each) for each in known}
    for each, value in values.items():
        if each not in known:
            raise UsageError(f"{name}: unknown hyperparameter {each!r}{_closest(each, known)}")
        nested = is_dataclass(chosen[each]) and isinstance(value, Mapping)
        chosen[each] = _filled(chosen[each], value, f"{name}: {each}") if nested else value
    return type(config)(**chosen)


def _split(name: str) -> tuple[str, str]:
    """``"smix@foraging" -> ("smix", "foraging")``, both known."""
    broken = "".join(f"; {sentence}" for sentence in load_entry_points("emix.learners"))
    algorithm, separator, recipe = name.partition("@")
    if algorithm not in _ALGORITHMS:
        raise UsageError(f"unknown algorithm {algorithm!r}{_closest(algorithm, _ALGORITHMS)}{broken}")
    if not separator:
        return algorithm, "paper"
    names = _recipe_names(algorithm)
    if f"{algorithm}@{recipe}" not in names:
        raise UsageError(f"unknown recipe {name!r}{_closest(name, names)}")
    return algorithm, recipe


def _recipe_names(algorithm: str) -> list[str]:
    recipes = _ALGORITHMS[algorithm].recipes
    files = recipes.iterdir() if recipes is not None and recipes.is_dir() else ()
    names = {file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")}
    return [f"{algorithm}@{name}" for name in sorted(names | {"paper"})]


def _recipe_file(algorithm: str, recipe: str) -> Traversable | None:
    recipes = _ALGORITHMS[algorithm].recipes
    file = None if recipes is None else recipes / f"{recipe}.yaml"
    return file if file is not None and file.is_file() else None


def _source(algorithm: Algorithm) -> tuple[tuple[str, str], tuple[str, str]]:
    """Where a learner comes from: importing its module anew must not clash with itself."""
    by, config = algorithm.made_by, algorithm.config
    learner = by if isinstance(by, tuple) else (by.__module__, by.__qualname__)
    return learner, (config.__module__, config.__qualname__)


def _closest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all."""
    return f": {closest(name, sorted(known))}"


_BUILT_IN: tuple[tuple[tuple[str, ...], str, str, type[Any]], ...] = (
    (("ader",), "ader", "Ader", AderConfig),
    (("coma",), "coma", "Coma", ComaConfig),
    (("facmac",), "facmac", "Facmac", FacmacConfig),
    (("dop", "ensemble-mix"), "ensemble_mix", "EnsembleMix", EnsembleMixConfig),
    (("ippo", "mappo", "perla-ippo", "perla-mappo"), "ppo", "PPO", PPOConfig),
    (("qtran",), "qtran", "Qtran", QtranConfig),
    (("iql", "qmix", "smix", "vdn"), "value", "ValueLearner", ValueConfig),
)
for _names, _module, _class, _config in _BUILT_IN:
    for _name in _names:
        _ALGORITHMS[_name] = Algorithm((f"emix.learners.{_module}", _class), _config, _RECIPES / _name)
