"""``emix bench update``: what it counts, what it prints, what it refuses."""

import json

import pytest
import torch

from emix import learners
from emix.bench.choices import SPECS, algorithms
from emix.bench.update import RandomEpisodes, measure_update
from emix.cli import main
from emix.data import Discrete, EnvSpec

SMALL = EnvSpec("small", n_agents=2, action=Discrete(3), obs_dim=5, state_dim=7, episode_limit=4)


@pytest.fixture
def batches_of(monkeypatch):
    """Let every plan's batches have so many episodes."""
    made = learners.make_config

    def set_size(size):
        def with_size(name, values):
            return made(name, learners.merged(values, {"plan": {"batch_size": size}}))

        monkeypatch.setattr(learners, "make_config", with_size)

    return set_size


@pytest.fixture
def small(monkeypatch, batches_of):
    monkeypatch.setitem(SPECS, "small", SMALL)
    batches_of(4)


@pytest.mark.parametrize("algorithm", algorithms())
def test_every_algorithm_is_measured(small, algorithm):
    row = measure_update(algorithm, "small", torch.device("cpu"), rounds=1)
    assert row.seconds > 0
    assert row.floor > 0
    assert row.launches > 0
    assert row.graph_seconds is None


def test_arithmetic_of_vdn(small):
    """Forward: the live agent and its target; backward: of the weights, and of all inputs but the observation."""
    rows, h = 4 * 5 * 2, 64
    first, gates, last = 5 * h, 2 * 3 * h * h, h * 3
    agent = 2 * rows * (first + gates + last)
    backward = 2 * rows * (first + 2 * gates + 2 * last)
    assert measure_update("vdn", "small", torch.device("cpu"), rounds=1).flops == 2 * agent + backward


def test_bytes_grow_with_the_batch(small, batches_of):
    one = measure_update("vdn", "small", torch.device("cpu"), rounds=1).bytes
    batches_of(8)
    two = measure_update("vdn", "small", torch.device("cpu"), rounds=1).bytes
    batch = RandomEpisodes(SMALL, device=torch.device("cpu")).sample(4)
    fields = [batch.valid, *batch.by_name().values()]
    assert two - one == sum(field.numel() * field.element_size() for field in fields)


def test_random_episodes_are_valid():
    batch = RandomEpisodes(SMALL, device=torch.device("cpu")).sample(16)
    assert batch.avail.gather(-1, batch.actions.unsqueeze(-1)).all()
    assert batch.valid.all()
    assert batch.terminated.sum(1).eq(1).all()


def test_prints_a_table_and_writes_rows(small, capsys, tmp_path):
    arguments = ["bench", "update", "--algorithm", "vdn", "--map", "small", "--device", "cpu", "--threads", "1"]
    assert main([*arguments, "--json", str(tmp_path / "rows.json")]) == 0
    out = capsys.readouterr().out
    assert "vdn small: " in out
    assert "times the floor" in out
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["learner"], row["map"], row["case"]) == ("vdn", "small", "4 episodes, float32")
    assert row["peers"] == {}  # a GPU has the update without a graph
    assert min(row["ms"], row["floor_ms"], row["launches"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "4m"], "--map '4m' is not measured: expected some of 3m, 2s3z, MMM2, 27m_vs_30m"),
        (["--algorithm", "smax", "--map", "3m"], "unknown algorithm 'smax'"),
    ],
)
def test_unknown_names_are_refused(capsys, arguments, message):
    assert main(["bench", "update", "--device", "cpu", "--threads", "1", *arguments]) == 2
    assert message in capsys.readouterr().err
