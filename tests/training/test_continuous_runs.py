"""Runs of learners whose actions are vectors: killed and resumed, and what they log of each agent."""

import pytest

from emix.errors import UsageError
from emix.training import make_settings, read_rows

TRAINING = {"test_episodes": 1, "test_envs": 1, "log_interval": 20, "seed": 3}
TRANSITIONS = {"unit": "transition", "batch_size": 16, "buffer_size": 60}  # fewer than are played
EPISODES = {"batch_size": 2, "buffer_size": 3}
RUNS = {
    "transitions": ("ader@matrix", "matrix/continuous", TRANSITIONS, 120, 10, 50),
    "episodes of a recurrent policy": ("facmac@prey", "prey/heterogeneous", EPISODES, 400, 2, 150),
    "episodes of a recurrent policy of ADER": ("ader@prey", "prey/heterogeneous", EPISODES, 400, 2, 150),
}


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_gives_the_same_bytes(name, run, tmp_path, killed):
    algorithm, env, plan, steps, num_envs, interval = RUNS[name]
    training = TRAINING | {
        "steps": steps,
        "num_envs": num_envs,
        "test_interval": steps,
        "checkpoint_interval": interval,
    }
    settings = make_settings(algorithm, env, plan=plan, training=training)
    run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > steps * 0.7:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    run(tmp_path / "killed", settings)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert b'"policy_loss"' in rows
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == rows
    if algorithm.startswith("ader"):
        last = read_rows(tmp_path / "whole")[-1]
        agents = 2 if env == "matrix/continuous" else 3
        budget = -2 if env == "matrix/continuous" else -6
        assert sum(last[f"target_entropy_{i}"] for i in range(agents)) == pytest.approx(budget)
        assert all(last[f"alpha_{i}"] > 0 and f"entropy_{i}" in last for i in range(agents))


def test_facmac_on_a_battle_is_refused_before_anything_starts(run, tmp_path):
    settings = make_settings("facmac", "battle/3m")
    with pytest.raises(UsageError, match=r"FACMAC expects actions that are vectors, battle/3m has Discrete"):
        run(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
