"""Algorithms and recipes by name."""

import math
import re
from dataclasses import dataclass

import pytest

from emix import learners
from emix.data import Box, EnvSpec
from emix.errors import UsageError
from emix.learners.plan import Plan
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
    assert (config.plan.batch_size, config.plan.buffer_size) == (32, 5000)
    for name in ("dop", "dop@pymarl2", "ensemble-mix"):  # the papers' critics see a state without last actions
        assert learners.load_recipe(name).env_options("battle/3m") == {"state_last_action": False}
        assert learners.load_recipe(name).env_options("prey/stag-hunt") == {}


def test_smix_means_the_paper():
    recipe = learners.load_recipe("smix")
    assert recipe == learners.load_recipe("smix@paper")
    assert recipe.training["num_envs"] == 4
    assert recipe.learner["plan"] == {"batch_size": 32, "buffer_size": 1500, "updates_per_rollout": 1}
    assert "smix@foraging" in NAMES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smx", "did you mean smix"),
        (
            "zzz",
            "expected one of ader, coma, dop, ensemble-mix, facmac, ippo, iql, mappo, perla-ippo, perla-mappo, "
            "qmix, qtran, smix, vdn",
        ),
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
        (good + "author: me\n", "expected the fields version, source, learner, training and env"),
        (good + "env: 3\n", "env expects names with values, got 3"),
        (
            good.replace("lr: 0.001", "plan: {batch: 3}"),
            "smix: plan: unknown hyperparameter 'batch': did you mean",
        ),
        (good.replace("lr: 0.001", "plan: 3"), "plan: expected a Plan, got 3"),
        (good.replace("source: here\n", ""), "expected the fields"),
        (good.replace("lr", "learning_rte"), "unknown hyperparameter 'learning_rte'"),
        (good.replace("lr", "td_lamda"), "did you mean td_lambda?"),
        (good.replace("0.001", "5e-4"), "lr: expected a value like 0.0005, got '5e-4'"),
        ("just text", "expected the fields"),
    ):
        with pytest.raises(UsageError, match=re.escape(expected)):
            learners.parse_recipe(text, "smix@mine")


@dataclass(frozen=True)
class MineConfig:
    """A user's hyperparameters."""

    lr: float = 0.1
    plan: Plan = Plan(source="fresh", batch_size=8)


class Mine:
    """A user's learner."""


def test_a_users_learner_is_found_with_its_recipes(tmp_path, monkeypatch):
    monkeypatch.setattr(learners, "_ALGORITHMS", dict(learners._ALGORITHMS))
    (tmp_path / "quick.yaml").write_text("version: 3\nsource: me\nlearner: {lr: 0.5, plan: {batch_size: 4}}\n")
    learners.register_learner("mine", Mine, MineConfig, tmp_path)
    learners.register_learner("mine", Mine, MineConfig, tmp_path)  # as a module that is imported twice does
    assert [name for name in learners.list_algorithms() if "mine" in name] == ["mine", "mine@paper", "mine@quick"]
    assert learners.load_recipe("mine").source == "the defaults of MineConfig"
    config = learners.make_config("mine@quick", learners.load_recipe("mine@quick").learner)
    assert config == MineConfig(lr=0.5, plan=Plan(source="fresh", batch_size=4))
    with pytest.raises(UsageError, match="did you mean mine@quick"):
        learners.load_recipe("mine@quik")


def test_what_cannot_be_a_learner_is_refused(monkeypatch):
    monkeypatch.setattr(learners, "_ALGORITHMS", dict(learners._ALGORITHMS))
    with pytest.raises(UsageError, match="the name 'smix' is taken"):
        learners.register_learner("smix", Mine, MineConfig)
    with pytest.raises(UsageError, match="a word without @"):
        learners.register_learner("mine@quick", Mine, MineConfig)
    with pytest.raises(UsageError, match="config expects a dataclass"):
        learners.register_learner("mine", Mine, Mine)


@pytest.mark.parametrize("name", ["smix", "coma", "qtran", "dop"])
def test_continuous_actions_are_refused_by_learners_of_discrete_ones(name):
    spec = EnvSpec("mine", n_agents=2, action=Box(3), obs_dim=4, state_dim=5, episode_limit=6)
    with pytest.raises(UsageError, match=r"expects discrete actions, mine has Box\(dim=3"):
        learners.get(name).learner(learners.make_config(name, {}), spec, device="cpu", seed=0)


@pytest.mark.parametrize(
    ("recipe", "k_ratio", "ema", "power"),
    [("paper", 0.1, 0.9, -2), ("3s5z", 0.05, 0.9, -3), ("3s_vs_3z", 0.1, 0.9, -3), ("5m_vs_6m", 0.15, 0.5, -3),
     ("MMM2", 0.1, 0.9, -2.5)],
)  # fmt: skip
def test_aders_table_1(recipe, k_ratio, ema, power):
    found = learners.load_recipe(f"ader@{recipe}")
    config = learners.make_config("ader", found.learner)
    assert (config.k_ratio, config.ema) == (k_ratio, ema)
    assert config.alpha_init == pytest.approx(math.exp(power))
    assert found.env_options("battle/3m") == {"reward": "sparse_deaths"}
    assert config == learners.make_config("ader", {"k_ratio": k_ratio, "ema": ema, "alpha_init": config.alpha_init})


def test_aders_budgets_of_vectors():
    for recipe, agents, dim, budget in (("matrix", 2, 1, -2), ("prey", 3, 2, -6), ("mujoco", 6, 1, -6)):
        config = learners.make_config("ader", learners.load_recipe(f"ader@{recipe}").learner)
        spec = EnvSpec("test", n_agents=agents, action=Box(dim), obs_dim=3, state_dim=3, episode_limit=3)
        config.check(spec)
        assert config.entropy_budget(spec) == budget
