import re
from dataclasses import dataclass, replace

import pytest
import yaml

from emix import learners
from emix.errors import UsageError
from emix.training import TrainingConfig, make_settings, read_settings, run_folder
from emix.training.config import spawn_seeds, training_config
from emix.training.settings import LONGEST_NAME, write_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps expects at least 1, got 0"),
        ({"seed": -1}, "seed expects 0 or more, got -1"),
        ({"num_envs": 2.5}, "num_envs expects int, got 2.5"),
        ({"log_interval": True}, "log_interval expects int, got True"),
        ({"device": 3}, "device expects str, got 3"),
        ({"graphs": 1}, "graphs expects bool, got 1"),
        ({"precision": "fp16"}, "precision expects float32, tf32, bf16, got 'fp16'"),
        ({"test_episodes": 10, "test_envs": 4}, "multiple of test_envs.*got 10 and 4"),
        ({"batch_episodes": 5}, "unknown training settings batch_episodes: expected some of steps"),
        ({"stesp": 5}, "unknown training settings stesp: expected some of steps"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(UsageError, match=message):
        training_config(values)


def test_switches():
    assert TrainingConfig().keep_memory
    assert not training_config({"keep_memory": False}).keep_memory


def test_streams_of_a_run_and_of_its_neighbours_differ():
    seeds = [seed for run in range(50) for seed in spawn_seeds(run)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert spawn_seeds(1) == spawn_seeds(1)


def test_settings_are_the_recipe_with_changes(tmp_path):
    settings = make_settings("smix", "matrix/msteps-5", learner={"lr": 1e-3}, training={"seed": 4})
    assert settings.learner.lr == 1e-3
    assert settings.learner.td_lambda == 0.8
    assert settings.training == TrainingConfig(seed=4)
    assert settings.changes == {"lr": 1e-3}
    assert run_folder(settings, tmp_path) == tmp_path / "smix,lr=0.001" / "matrix" / "msteps-5" / "4"


@pytest.mark.parametrize(
    ("algorithm", "changes", "name"),
    [
        ("smix", {}, "smix"),
        ("smix@paper", {"learner": {"td_lambda": 0.8}}, "smix"),  # as in the recipe
        ("smix@foraging", {"learner": {"td_lambda": 0.4}}, "smix@foraging,td_lambda=0.4"),
        ("smix", {"learner": {"gamma": 1, "td_lambda": 1e-5}}, "smix,gamma=1,td_lambda=1e-05"),
        ("smix", {"learner": {"gamma": 1.0, "target": "max"}}, "smix,gamma=1,target=max"),
        ("smix", {"learner": {"bootstrap_truncated": True}}, "smix,bootstrap_truncated=true"),
        ("smix", {"plan": {"batch_size": 64}, "training": {"num_envs": 8}}, "smix,num_envs=8,plan.batch_size=64"),
        ("smix", {"env_options": {"reward": "sparse", "limit": None}}, "smix,env.limit=null,env.reward=sparse"),
        ("smix", {"env_options": {"map": "a/b c,d=1"}}, "smix,env.map=a%2Fb%20c%2Cd%3D1"),
        ("ensemble-mix", {"learner": {"c1": 0}}, "ensemble-mix,c1=0"),
        # How long, where and how closely watched a run is says nothing of what is learned.
        (
            "smix",
            {
                "training": {
                    "steps": 7, "seed": 3, "device": "cuda", "threads": 2, "graphs": False, "keep_memory": False,
                    "test_interval": 5, "test_episodes": 3, "test_envs": 3, "log_interval": 9, "checkpoint_interval": 8,
                }
            },
            "smix",
        ),
    ],
)  # fmt: skip
def test_a_name_says_what_differs_from_the_recipe(algorithm, changes, name):
    assert make_settings(algorithm, "matrix/msteps-5", **changes).name == name


def test_a_recipes_options_of_the_environment(tmp_path):
    """They are the default, the user's win, and only those are in the name."""
    assert make_settings("dop", "matrix/msteps-5").env_options == {}
    settings = make_settings("dop", "battle/3m", env_options={"reward": "sparse"})
    assert settings.env_options == {"state_last_action": False, "reward": "sparse"}
    assert settings.name == "dop,env.reward=sparse"
    settings = make_settings("dop", "battle/3m", env_options={"state_last_action": True})
    assert settings.env_options == {"state_last_action": True}
    assert settings.name == "dop,env.state_last_action=true"


def test_a_long_name_ends_in_a_hash():
    def name(**options: str) -> str:
        return make_settings("smix", "matrix/msteps-5", env_options=options).name

    long, other = name(one="x" * 90, two="y"), name(one="x" * 90, two="z")
    assert len(long) == len(other) == LONGEST_NAME
    assert long != other
    assert long[:-9] == other[:-9]
    assert re.fullmatch(r"smix,env\.one=x+-[0-9a-f]{8}", long)
    assert long == name(two="y", one="x" * 90)


def test_the_name_stays_when_the_recipe_changes(tmp_path, monkeypatch):
    settings = make_settings("smix", "matrix/msteps-5", learner={"td_lambda": 0.4})
    write_config(tmp_path, settings, episode_limit=5)
    recipe = replace(learners.load_recipe("smix"), learner={"td_lambda": 0.4}, version=9)
    monkeypatch.setattr(learners, "load_recipe", lambda name: recipe)
    assert make_settings("smix", "matrix/msteps-5").learner.td_lambda == 0.4
    assert read_settings(tmp_path).name == "smix,td_lambda=0.4"


def test_a_config_without_plan_is_refused(monkeypatch):
    @dataclass(frozen=True)
    class Config:
        lr: float = 0.1

    algorithm = learners.Algorithm(learners.get("smix").learner, Config, None)
    monkeypatch.setitem(learners._ALGORITHMS, "mine", algorithm)
    with pytest.raises(UsageError, match="mine: Config expects a field plan with a Plan as its default"):
        make_settings("mine", "matrix/msteps-5")


def test_config_yaml_round_trip(tmp_path):
    settings = make_settings("qmix", "matrix/msteps-5", learner={"lr": 1e-5}, training={"seed": 4, "num_envs": 8})
    write_config(tmp_path, settings, episode_limit=5)
    assert read_settings(tmp_path) == settings
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["recipe"]["name"] == "qmix@paper"
    assert content["recipe"]["version"] >= 1
    assert content["changes"] == {"lr": 1e-5, "num_envs": 8}
    assert content["updates_per_env_step_at_full_length"] == 1 / (8 * 5)
    assert set(content["versions"]) == {"emix", "torch"}


@pytest.mark.parametrize(
    ("plan", "updates"),
    [
        ({"updates_per_rollout": 3}, 3 / (4 * 5)),
        ({"updates_per_rollout": 2, "updates_per_step": 1}, 1 + 2 / (4 * 5)),
        ({"source": "fresh", "batch_size": 64}, 1 / (64 * 5)),
    ],
)
def test_updates_per_step(plan, updates):
    settings = make_settings("smix", "matrix/msteps-5", plan=plan)
    assert settings.updates_per_step(5) == pytest.approx(updates, rel=1e-12)


ANOTHER_TYPE = "algorithm: 5\nenv: x\nrecipe: {}\nlearner: {}\n"


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "algorithm: smix\nenv: x\n", "algorithm: nope\n", ANOTHER_TYPE])
def test_damaged_config(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"^{re.escape(str(tmp_path))}/config\.yaml is not the configuration") as info:
        read_settings(tmp_path)
    assert "\n" not in str(info.value)


def test_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"holds no run: expected a folder with config\.yaml"):
        read_settings(tmp_path / "missing")
