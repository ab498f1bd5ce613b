"""``emix bench ops`` and ``battle``: they measure, check before they time, and refuse what they do not know."""

import json

import pytest
import torch

from emix import ops
from emix.bench import battle
from emix.bench import measure as measuring
from emix.bench.battle import BLOCK, measure_battle
from emix.bench.ops import Case, cases, measure
from emix.cli import main


def test_prints_a_table(capsys):
    assert main(["bench", "ops", "--op", "gae", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "gae" in out
    assert "eager" in out
    assert "copy" in out
    assert "compile" not in out  # takes seconds an op: only where asked for


def test_unknown_op_is_refused(capsys):
    assert main(["bench", "ops", "--op", "gea", "--device", "cpu"]) == 2
    assert "'gea' is not measured: expected some of agent_sequence" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("threads", "0"), ("num-envs", "-1")])
def test_counts_are_checked_before_anything_is_measured(capsys, option, value):
    assert main(["bench", "battle", f"--{option}", value]) == 2
    assert f"--{option} expects at least 1, got {value}" in capsys.readouterr().err


def test_every_public_op_is_measured():
    measured = {case.op for case in cases(torch.device("cpu"))}
    functions = {name for name in ops.__all__ if name.islower() and name != "reference"}
    # The acting op draws its own numbers; the returns and gaussian_sample are a measured kernel with other arguments;
    # sampled_marginal_value is two measured ops.
    others = {"explore_actions", "trace_returns", "n_step_returns", "q_lambda_returns"}
    assert functions - measured == others | {"gaussian_sample", "sampled_marginal_value"}


def test_a_wrong_result_is_not_timed(monkeypatch):
    reward = torch.ones(2, 3)
    case = Case("gae", "B 2, T 3", (reward, reward > 9, torch.zeros(2, 4)), {"gamma": 0.9, "lam": 0.9})
    monkeypatch.setattr(ops, "gae", lambda *tensors, **options: torch.zeros(2, 3))
    with pytest.raises(AssertionError, match="gae"):
        measure(case, torch.device("cpu"), backward=False, compiled=False)


def test_json_of_ops(tmp_path):
    file = tmp_path / "ops.json"
    assert main(["bench", "ops", "--op", "masked_policy", "--device", "cpu", "--json", str(file)]) == 0
    forward, both = json.loads(file.read_text())
    assert set(forward) == {"op", "case", "device_us", "call_us", "floor_us", "peers", "launches"}
    assert (forward["op"], forward["case"]) == ("masked_policy", "rows 38,400, A 18, forward")
    assert both["case"].endswith("forward, backward")
    assert set(forward["peers"]) == {"eager", "eager, call"}
    assert forward["device_us"] == forward["call_us"]  # of the CPU
    assert min(forward["floor_us"], forward["device_us"], *forward["peers"].values()) > 0
    assert forward["launches"] == 1


def test_an_op_that_fails_does_not_take_the_others_along(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ops, "gae", lambda *tensors, **options: torch.zeros(32, 120))
    file = tmp_path / "ops.json"
    assert main(["bench", "ops", "--op", "gae", "lambda_returns", "--device", "cpu", "--json", str(file)]) == 1
    assert "not measured: gae forward\n" in capsys.readouterr().out
    assert {row["op"] for row in json.loads(file.read_text())} == {"lambda_returns"}


def test_times_of_a_device_are_of_one_call(monkeypatch):
    """A graph of 20 calls counts as 20; one whose single call is long is of that one."""
    captured = []

    def graphed(call, calls):
        captured.append((call, calls))
        return (call, calls)

    seconds = {"short": 1e-5, "long": 2e-3}
    monkeypatch.setattr(measuring, "graphed", graphed)
    monkeypatch.setattr(measuring, "_seconds", lambda replay, repeats, device: seconds[replay[0]] * replay[1])
    monkeypatch.setattr(
        measuring, "median_times", lambda replays, device, **_: {k: seconds[v[0]] * v[1] for k, v in replays.items()}
    )
    found = measuring.device_times({"a": "short", "b": "long"}, torch.device("cuda"))
    assert found == pytest.approx({"a": 1e-5, "b": 2e-3})
    assert [captured[1], captured[3]] == [("short", measuring.CALLS), ("long", 1)]


def test_battle_counts_the_steps_of_running_battles(monkeypatch):
    """Battles of at most 11 steps restart at the end of each second block of 8: 11 of 16 steps are played."""
    plays = []

    class Watched(battle._Play):
        def __init__(self, env):
            super().__init__(env)
            plays.append(self)

    monkeypatch.setattr(battle, "_Play", Watched)
    make = battle.make
    monkeypatch.setattr(battle, "make", lambda name, **options: make(name, **options, episode_limit=11))
    row = measure_battle("27m_vs_30m", torch.device("cpu"), num_envs=2, rounds=2, seconds=0.01)
    steps, blocks, ended, won = plays[0].counts.tolist()
    assert steps == sum(2 * (BLOCK if block % 2 == 0 else 11 - BLOCK) for block in range(blocks))
    assert ended == blocks // 2 * 2
    assert won == 0
    assert row.battle_won == 0
    assert 0 < row.steps_per_second < row.simulator_steps_per_second


def test_json_of_battle(tmp_path, monkeypatch):
    monkeypatch.setattr(battle.measure_battle, "__kwdefaults__", {"num_envs": None, "rounds": 1, "seconds": 0.01})
    file = tmp_path / "battle.json"
    assert main(["bench", "battle", "--map", "3m", "--num-envs", "4", "--device", "cpu", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert (row["map"], row["envs"]) == ("3m", 4)
    assert row["steps_per_s"] > 0
