"""Sizes that are absurd, in a hostile or a mistyped configuration: one sentence, before any memory is taken."""

from __future__ import annotations

import resource
from dataclasses import fields
from typing import Any

import pytest
import torch

import emix
from emix import learners
from emix.cli import main
from emix.data.room import NetworkRoom
from emix.errors import UsageError, is_out_of_memory
from emix.nn.gru import GRU
from emix.training import make_settings
from emix.training.building import make_learner
from emix.training.state import TrainingState

TASKS = {"facmac": "matrix/continuous"}
ALGORITHMS = sorted({name.partition("@")[0] for name in learners.list_algorithms()} - {"toy"})
CPU = torch.device("cpu")


def sizes_of(algorithm: str) -> list[str]:
    """The hyperparameters that become sizes of networks or batches."""
    names = [each.name for each in fields(learners.get(algorithm).config) if type(each.default) is int]
    return [name for name in names if name.endswith("_dim") or name in ("members", "samples")]


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("size", [10**9, 10**12, 10**25])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_networks(algorithm: str, size: int) -> None:
    env = TASKS.get(algorithm, "matrix/penalty-2x3")
    before, refused = peak(), {}
    for name in sizes_of(algorithm):
        try:
            TrainingState.create(make_settings(algorithm, env, learner=_in_use(name, size))).close()
        except UsageError as error:
            refused[name] = str(error)
    assert "hidden_dim" in refused
    assert all(name in text and "\n" not in text for name, text in refused.items())
    assert peak() - before < 200 << 20  # where it was not refused, there is no such network in this algorithm


def _in_use(name: str, size: int) -> dict[str, Any]:
    """The size, and what makes the algorithm have such a network."""
    return {name: size} | ({"hypernet_layers": 2} if name == "hypernet_dim" else {})


@pytest.mark.parametrize("count", [10**12, 10**25])
@pytest.mark.parametrize("name", ["batch_size", "buffer_size", "updates_per_rollout", "updates_per_step"])
def test_of_plans(name: str, count: int) -> None:
    plan = {name: count} | ({"buffer_size": count} if name == "batch_size" else {})
    if name.startswith("updates") and count <= 10**12:
        assert make_settings("vdn", "matrix/penalty-2x3", plan=plan)  # a matter of time alone
        return
    with pytest.raises(UsageError, match=r"buffer_size|batch_size|updates_per"):
        TrainingState.create(make_settings("vdn", "matrix/penalty-2x3", plan=plan))


@pytest.mark.parametrize(
    "name", ["matrix/penalty-1000000000x3", "matrix/penalty-3x100000000000", f"matrix/msteps-{10**11}"]
)
def test_of_environments(name: str) -> None:
    before = peak()
    with pytest.raises(UsageError, match=f"{name}: a step of 4 environments .* GiB, but cpu has .*: take fewer"):
        emix.make(name, num_envs=4)
    assert peak() - before < 200 << 20


def test_what_fits_is_made_and_leaves_nothing_behind() -> None:
    settings = make_settings("qmix", "matrix/penalty-2x3", learner={"mixing_embed_dim": 512})
    env = settings.make_env(num_envs=1, device="cpu", seed=0)
    torch.manual_seed(0)
    learner = make_learner(settings, env.spec, CPU, seed=3)
    again = learners.get("qmix").learner(settings.learner, env.spec, device=CPU, seed=3)
    ours, theirs = learner.parts.state_dict(), again.parts.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.utils._python_dispatch._len_torch_dispatch_stack()


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.empty(10**10),
        lambda: torch.zeros(size=(10**5, 10**5)),
        lambda: torch.ones(10**5, 10**5, dtype=torch.uint8),
        lambda: torch.randn(10**10),
        lambda: torch.full((10**10,), 1.0),
        lambda: torch.zeros(1).new_zeros(10**10),
        lambda: torch.empty_strided((10**10,), (1,)),
        lambda: [torch.zeros(10**9 // 4) for _ in range(100)],
    ],
)
def test_every_way_to_make_a_tensor_counts(take: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emix.data.room.memory_of", lambda device: 4 << 30)
    before = peak()
    refused = pytest.raises(UsageError, match=r"mine: its networks .* 4.0 GiB that cpu has: .* got width 7")
    with refused, NetworkRoom("mine", {"width": 7}, CPU):
        take()
    assert peak() - before < 2 << 30


def test_a_gru_of_too_many_units_is_refused_by_the_run_and_not_by_its_first_step() -> None:
    for size in (0, 257, 10**9):
        with pytest.raises(UsageError, match=f"expects 1 to 256 units, which hidden_dim says, got {size}"):
            GRU(3, size)
    for algorithm in ("iql", "mappo", "ensemble-mix"):
        with pytest.raises(UsageError, match="hidden_dim says, got 300"):
            TrainingState.create(make_settings(algorithm, "matrix/penalty-2x3", learner={"hidden_dim": 300}))


def test_memory_that_runs_out_later_is_one_sentence(tmp_path, capsys, monkeypatch) -> None:
    with pytest.raises(RuntimeError) as ran_out:
        torch.empty(1 << 50)
    assert is_out_of_memory(ran_out.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("no"))
    assert not is_out_of_memory(UsageError("out of memory"))

    def fail(*args: object) -> None:
        raise ran_out.value

    monkeypatch.setattr("emix.learners.value.ValueLearner.update", fail)
    options = ["--steps", "40", "--plan.batch-size", "4", "--run-dir", str(tmp_path / "run")]
    assert main(["train", "vdn", "matrix/penalty-2x3", *options]) == 1
    told = capsys.readouterr().err
    assert "emix: not enough memory:" in told
    assert "emix resume" in told
    assert "Traceback" not in told
