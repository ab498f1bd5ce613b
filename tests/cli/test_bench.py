"""``emix bench ops``: it measures, checks before it times, and refuses what it does not know."""

import pytest
import torch

from emix import ops
from emix.bench.ops import Case, cases, measure
from emix.cli import main


def test_prints_a_table(capsys):
    assert main(["bench", "ops", "--op", "gae", "--device", "cpu", "--no-compile"]) == 0
    out = capsys.readouterr().out
    assert "gae" in out
    assert "eager" in out
    assert "copy" in out


def test_unknown_op_is_refused(capsys):
    assert main(["bench", "ops", "--op", "gea", "--device", "cpu"]) == 2
    assert "'gea' is not measured: expected some of agent_sequence" in capsys.readouterr().err


def test_every_public_op_is_measured():
    measured = {case.op for case in cases(torch.device("cpu"))}
    functions = {name for name in ops.__all__ if name.islower() and name != "reference"}
    # The acting op draws its own numbers; these returns are lambda_returns' kernel with other arguments.
    assert functions - measured == {"explore_actions", "trace_returns", "n_step_returns", "q_lambda_returns"}


def test_a_wrong_result_is_not_timed(monkeypatch):
    reward = torch.ones(2, 3)
    case = Case("gae", "B 2, T 3", (reward, reward > 9, torch.zeros(2, 4)), {"gamma": 0.9, "lam": 0.9})
    monkeypatch.setattr(ops, "gae", lambda *tensors, **options: torch.zeros(2, 3))
    with pytest.raises(AssertionError, match="gae"):
        measure(case, torch.device("cpu"), backward=False, compiled=False)
