"""Training on multi-agent MuJoCo: every learner of vectors, and runs that are killed and resumed."""

import math

import pytest

from emix.training import make_settings, read_rows

pytest.importorskip("gymnasium_robotics")

TRAINING = {"test_episodes": 1, "test_envs": 1, "log_interval": 60, "seed": 3, "num_envs": 2, "steps": 240}
TRANSITIONS = {"plan": {"batch_size": 16, "buffer_size": 150, "random_steps": 40}}
NARROW = {"hidden_dim": 8, "second_dim": 8, "critic_dim": 8, "critic_second_dim": 8, "mixing_embed_dim": 4}
EPISODES = {"minibatches": 2, "epochs": 2, "hidden_dim": 8, "plan": {"batch_size": 2}}
LEARNERS = {
    "mappo": {"plan": {"batch_size": 2}, "hidden_dim": 8, "epochs": 2},
    "perla-mappo@mujoco": EPISODES | {"samples": 3},
    "ader@mujoco": TRANSITIONS | NARROW,
    "facmac@paper": TRANSITIONS | NARROW,
}


def settings_of(algorithm, env, **training):
    values = dict(LEARNERS[algorithm])
    plan = values.pop("plan")
    training = TRAINING | {"test_interval": 240, "checkpoint_interval": 80} | training
    return make_settings(
        algorithm, env, learner=values, plan=plan, training=training, env_options={"episode_limit": 20}
    )


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_it_trains(algorithm, run, tmp_path):
    """Humanoid has padded observations, padded actions and ends of both kinds."""
    run(tmp_path, settings_of(algorithm, "mamujoco/Humanoid-9|8"))
    last = read_rows(tmp_path)[-1]
    assert all(math.isfinite(value) for value in last.values() if isinstance(value, float))
    assert last["loss"] != 0
    assert 0 < last["test_return_mean"] < 20 * 6  # 5 a step for standing
    assert "test_x_position_mean" in last


@pytest.mark.parametrize("algorithm", ["ader@mujoco", "perla-mappo@mujoco"])
def test_killed_and_resumed_gives_the_same_bytes(algorithm, run, tmp_path, killed):
    """Single transitions of HalfCheetah, and fresh episodes."""
    settings = settings_of(algorithm, "mamujoco/HalfCheetah-6x1")
    run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > 170:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    run(tmp_path / "killed", settings)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert b'"grad_norm"' in rows or b'"critic_grad_norm"' in rows
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == rows
