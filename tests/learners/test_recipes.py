"""Algorithms and recipes by name."""

import math
import re
from dataclasses import dataclass, replace

import pytest

from emix import learners
from emix.data import Box, EnvSpec
from emix.errors import UsageError
from emix.learners.plan import Plan
from emix.training import make_settings
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


# A recipe is its published source's: every hyperparameter, and how its runs are driven.
PYMARL_Q = {"target": "max", "gamma": 0.99, "lr": 5e-4, "rms_alpha": 0.99, "rms_eps": 1e-5, "grad_norm_clip": 10}
PYMARL_Q |= {"target_update_episodes": 200, "epsilon_start": 1.0, "epsilon_finish": 0.05, "epsilon_anneal_time": 50_000}
PYMARL_Q |= {"hidden_dim": 64, "bootstrap_truncated": False, "plan": Plan(batch_size=32, buffer_size=5000)}
SMIX = PYMARL_Q | {"target": "lambda", "td_lambda": 0.8, "plan": Plan(batch_size=32, buffer_size=1500)}
SMIX_NET = {"mixer": "qmix", "mixing_embed_dim": 32, "hypernet_layers": 1}
OFFPG = {"td_lambda": 0.8, "tb_lambda": 0.93, "tb_steps": 5, "gamma": 0.99, "critic_dim": 256, "hidden_dim": 64}
OFFPG |= {"mixing_embed_dim": 32, "mixer_bias": False, "optimizer": "rmsprop", "rms_alpha": 0.99, "lr": 5e-4}
OFFPG |= {"grad_norm_clip": 20, "target_update_interval": 600, "epsilon_start": 0.5, "epsilon_finish": 0.05}
OFFPG |= {"epsilon_anneal_time": 500_000, "entropy": 0, "c": None, "on_target": "td_lambda", "norm": "bti"}
OFFPG |= {"critic_update": "per_step", "test_sample": False}
DOP = OFFPG | {"members": 1, "c1": 0, "c2": 0, "bonus": "none", "actor": "on_policy", "rms_eps": 1e-5}
DOP |= {"critic_lr": 1e-4, "on_batch": 16, "on_window": 32, "plan": Plan(batch_size=32, buffer_size=5000)}
STAG = {"bootstrap_truncated": True, "agent_id": False}
AUTHORS = DOP | {"members": 10, "bonus": "kurtosis", "beta": 1e-4, "bonus_limit": 0.1, "gate_over": "all"}
AUTHORS |= {"actor": "two_steps", "off_norm": "sum", "actor_batch": "ring", "agent_id": True}
SC2 = {"steps": 10_050_000, "test_interval": 20_000, "test_episodes": 24}
SMIX_RUNS = {"num_envs": 4, "test_interval": 20_000, "test_episodes": 24}
PUBLISHED = {
    "iql@pymarl": (PYMARL_Q | {"mixer": "none"}, SC2 | {"num_envs": 1}),
    "vdn@pymarl": (PYMARL_Q | {"mixer": "vdn"}, SC2 | {"num_envs": 1}),
    "qmix@pymarl": (PYMARL_Q | SMIX_NET | {"hypernet_layers": 2, "hypernet_dim": 64}, SC2 | {"num_envs": 1}),
    "qmix@paper": (PYMARL_Q | SMIX_NET, SMIX_RUNS),
    "smix@paper": (SMIX | SMIX_NET, SMIX_RUNS),
    "smix@code": (SMIX | SMIX_NET, SC2 | {"num_envs": 8}),
    "iql@r": (SMIX | {"mixer": "none"}, SMIX_RUNS),
    "vdn@r": (SMIX | {"mixer": "vdn"}, SMIX_RUNS),
    "dop@paper": (DOP | {"actor_batch": "newest"}, SC2 | {"num_envs": 4}),
    "dop@authors": (DOP | {"actor_batch": "ring"}, SC2 | {"num_envs": 4}),
    "dop@pymarl2": (
        DOP
        | {"critic_lr": 5e-4, "rms_eps": 1e-8, "on_batch": 32, "on_window": 64, "actor_batch": "ring"}
        | {"plan": Plan(batch_size=64, buffer_size=5000)},
        {"steps": 10_050_000, "num_envs": 8, "test_interval": 10_000, "test_episodes": 32},
    ),
    "dop@stag-hunt": (DOP | STAG, {"steps": 2_050_000, "num_envs": 4, "test_interval": 10_000, "test_episodes": 16}),
    "ensemble-mix@authors": (AUTHORS, SC2 | {"num_envs": 1}),
    "ensemble-mix@stag-hunt": (
        {"members": 10, "c1": 0.01, "c2": 0.001, "beta": 0.001, "nu": 0.5, "actor": "mixed"} | STAG,
        {"steps": 2_050_000, "num_envs": 4, "test_interval": 10_000, "test_episodes": 16},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_what_its_source_says(name):
    recipe, (values, training) = learners.load_recipe(name), PUBLISHED[name]
    config = learners.make_config(name, recipe.learner)
    assert {field: getattr(config, field) for field in values} == values
    found = training_config(recipe.training)
    assert {field: getattr(found, field) for field in training} == training


def test_stag_hunt_is_the_same_but_for_ids_and_time_limits():
    for algorithm in ("dop", "ensemble-mix"):
        paper, stag = (
            learners.make_config(algorithm, learners.load_recipe(f"{algorithm}@{recipe}").learner)
            for recipe in ("paper", "stag-hunt")
        )
        assert replace(stag, bootstrap_truncated=False, agent_id=True) == paper


def test_ensemble_mix_is_the_papers():
    paper = learners.load_recipe("ensemble-mix")
    config = learners.make_config("ensemble-mix", paper.learner)
    assert (config.members, config.c1, config.c2, config.beta, config.nu) == (10, 0.01, 0.001, 0.001, 0.5)
    assert config == learners.make_config("ensemble-mix", {})
    assert (config.plan.batch_size, config.plan.buffer_size) == (32, 5000)
    names = ("dop", "dop@authors", "dop@pymarl2", "ensemble-mix", "ensemble-mix@authors")
    for name in names:  # the papers' critics see a state without last actions
        assert learners.load_recipe(name).env_options("battle/3m") == {"state_last_action": False}
        assert learners.load_recipe(name).env_options("prey/stag-hunt") == {}


def test_smacs_maps_have_the_same_options_wherever_they_are_played():
    options = {name: learners.load_recipe(name).env_options("battle/3m") for name in learners.list_algorithms()}
    assert sum(map(bool, options.values())) > 10
    for name, here in options.items():
        assert learners.load_recipe(name).env_options("sc2/3m") == here, name
        assert learners.load_recipe(name).env_options("smac/3m") == here, name


# What the ablations of SMIX(lambda) change, as options of a run.
ABLATIONS = {
    "lambda 0": ({"td_lambda": 0.0}, {}),
    "lambda 1": ({"td_lambda": 1.0}, {}),
    "SMIX(n)": ({"target": "n_step", "n_step": 16}, {}),
    "on policy": ({}, {"buffer_size": 4, "batch_size": 4}),
    "larger buffer": ({}, {"buffer_size": 5000}),
    "noabs": ({"positive_weights": False}, {}),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_of_smix_changes_what_it_says(name):
    learner, plan = ABLATIONS[name]
    before = make_settings("smix", "matrix/msteps-5")
    after = make_settings("smix", "matrix/msteps-5", learner=learner, plan=plan)
    assert after.learner == replace(before.learner, **learner, plan=replace(before.learner.plan, **plan))
    assert after.training == before.training


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
