import re

import pytest
import yaml

from emix.errors import UsageError
from emix.training import TrainingConfig, make_settings, read_settings, run_folder
from emix.training.config import spawn_seeds, training_config
from emix.training.settings import write_config


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


def test_config_yaml_round_trip(tmp_path):
    settings = make_settings("qmix", "matrix/msteps-5", learner={"lr": 1e-5}, training={"seed": 4, "num_envs": 8})
    write_config(tmp_path, settings, episode_limit=5)
    assert read_settings(tmp_path) == settings
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["recipe"]["name"] == "qmix@paper"
    assert content["recipe"]["version"] >= 1
    assert content["updates_per_env_step_at_full_length"] == 1 / (8 * 5)
    assert set(content["versions"]) == {"emix", "torch"}


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
