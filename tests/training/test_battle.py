"""Training on battles: the environment's options reach all that plays, and a resumed run forgets none of them."""

import pytest
import yaml

from emix.cli import main
from emix.training import make_settings, read_rows, read_settings
from emix.training.settings import write_config

OPTIONS = {"closing_step": 300, "obs_closed": True, "reward": "sparse", "episode_limit": 20, "spawn_jitter": 0.0}


def settings(**options):
    training = {
        "steps": 600, "test_interval": 200, "test_episodes": 4, "log_interval": 100, "checkpoint_interval": 100,
    }  # fmt: skip
    plan = {"batch_size": 4, "buffer_size": 50}
    return make_settings("vdn", "battle/2_corridors", plan=plan, training=training, env_options=OPTIONS | options)


def test_options_are_written_and_read(tmp_path):
    write_config(tmp_path, settings(), episode_limit=20)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["env_options"] == OPTIONS
    assert read_settings(tmp_path) == settings()


def test_a_run_from_before_there_were_options(tmp_path):
    write_config(tmp_path, make_settings("vdn", "matrix/msteps-5"), episode_limit=5)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for name in ("env_options", "imports", "changes"):
        del content[name]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert read_settings(tmp_path) == make_settings("vdn", "matrix/msteps-5")


def test_the_corridor_closes_for_training_and_tests_and_after_a_resume(run, killed, tmp_path):
    state = run(tmp_path / "whole", settings())
    assert state.source.env.spec.obs_dim == 17
    assert state.source.env.spec.episode_limit == 20
    assert state.source.env.closed
    assert state.source.test_env.closed

    def kill(env_steps):
        if env_steps > 400:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings(), hook=kill)
    assert run(tmp_path / "killed", settings()).source.env.closed
    assert read_rows(tmp_path / "killed") == read_rows(tmp_path / "whole")
    assert not run(tmp_path / "open", settings(closing_step=10_000)).source.env.closed


def test_the_command_line(tmp_path, capsys):
    folder = str(tmp_path / "run")
    options = [part for name, value in OPTIONS.items() for part in ("--env-option", f"{name}={value}")]
    arguments = ["--steps", "100", "--plan.batch-size", "4", "--test-interval", "100", "--run-dir", folder]
    assert main(["train", "vdn", "battle/2_corridors", *arguments, *options]) == 0
    assert "battle/2_corridors (closing_step 300, obs_closed True, reward sparse, " in capsys.readouterr().out
    assert read_settings(tmp_path / "run").env_options == OPTIONS
    assert main(["eval", folder, "--episodes", "4"]) == 0
    assert "test_ep_length_mean      20.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("reward", "--env-option expects NAME=VALUE, such as reward=sparse, got 'reward'"),
        ("seed=3", "seed is an option of the training, --seed"),
        ("rewrad=sparse", "battle/3m: unknown option 'rewrad', did you mean reward"),
        ("reward=sparce", "battle/3m: unknown reward 'sparce', did you mean sparse"),
        ("reward=[", "--env-option reward=[: the value is not YAML"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, capsys, option, text):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "smix", "battle/3m", "--env-option", option]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
