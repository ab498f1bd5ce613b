"""Algorithms and recipes by name."""

import re

import pytest

from emix import learners
from emix.errors import UsageError
from emix.training.config import training_config

NAMES = [name for name in learners.list_algorithms() if "@" in name]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_a_configuration(name):
    recipe = learners.load_recipe(name)
    assert recipe.name == name
    assert recipe.algorithm == name.partition("@")[0]
    assert recipe.version >= 1
    assert recipe.source
    learners.make_config(name, recipe.learner)
    training_config(recipe.training)


def test_the_value_algorithms_are_mixer_times_target():
    names = ["iql", "qmix", "smix", "vdn"]
    configs = {name: learners.make_config(name, learners.load_recipe(name).learner) for name in names}
    assert {name: (config.mixer, config.target) for name, config in configs.items()} == {
        "iql": ("none", "max"),
        "vdn": ("vdn", "max"),
        "qmix": ("qmix", "max"),
        "smix": ("qmix", "lambda"),
    }


def test_dop_is_a_row_of_ensemble_mix():
    for name in ("dop", "dop@pymarl2"):
        config = learners.make_config(name, learners.load_recipe(name).learner)
        assert (config.members, config.c1, config.c2, config.bonus) == (1, 0, 0, "none")
        assert (config.actor, config.norm, config.critic_update) == ("on_policy", "bti", "per_step")
    paper = learners.load_recipe("ensemble-mix")
    config = learners.make_config("ensemble-mix", paper.learner)
    assert (config.members, config.c1, config.c2, config.beta, config.nu) == (10, 0.01, 0.001, 0.001, 0.5)
    assert config == learners.make_config("ensemble-mix", {})
    assert paper.training["buffer_episodes"] == 5000


def test_smix_means_the_paper():
    recipe = learners.load_recipe("smix")
    assert recipe == learners.load_recipe("smix@paper")
    expected = {"num_envs": 4, "buffer_episodes": 1500, "batch_episodes": 32}
    assert {name: recipe.training[name] for name in expected} == expected
    assert "smix@foraging" in NAMES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smx", "did you mean smix"),
        ("coma", "expected one of dop, ensemble-mix, iql, qmix, smix, vdn"),
        ("smix@forage", "did you mean smix@foraging"),
        ("smix@", "unknown recipe 'smix@'"),
        ("", "unknown algorithm ''"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(name, expected):
    for function in (learners.get, learners.load_recipe):
        with pytest.raises(UsageError, match=re.escape(expected)):
            function(name)


def test_unknown_or_missing_fields_are_refused():
    good = "version: 1\nsource: here\nlearner: {lr: 0.001}\ntraining: {}\n"
    assert learners.parse_recipe(good, "smix@mine").learner == {"lr": 0.001}
    for text, expected in (
        (good + "author: me\n", "expected the fields version, learner, training, source"),
        (good.replace("source: here\n", ""), "expected the fields"),
        (good.replace("lr", "learning_rte"), "unknown hyperparameter 'learning_rte'"),
        (good.replace("lr", "td_lamda"), "did you mean td_lambda?"),
        (good.replace("0.001", "5e-4"), "lr: expected a value like 0.0005, got '5e-4'"),
        ("just text", "expected the fields"),
    ):
        with pytest.raises(UsageError, match=re.escape(expected)):
            learners.parse_recipe(text, "smix@mine")
