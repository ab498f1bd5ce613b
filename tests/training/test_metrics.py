import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emix.playing import collect
from emix.training import read_rows
from emix.training.metrics import MetricsWriter, TrainingStatistics


@pytest.fixture
def statistics(scripted_env, policy):
    statistics = TrainingStatistics()
    env = scripted_env([[(2, False), (4, True)], [(3, False)]])
    statistics.episodes.add(collect(env, policy, explore=True))  # returns 3 and 36
    statistics.episodes.add(collect(env, policy, explore=True))  # returns 10 and 36
    statistics.updates.add({"loss": torch.tensor(1.0), "grad_norm": torch.tensor(5.0)})
    statistics.updates.add({"loss": torch.tensor(2.0), "grad_norm": torch.tensor(0.1)})
    return statistics


def test_means(statistics):
    means = statistics.means()
    assert means["return_mean"] == (3 + 36 + 10 + 36) / 4
    assert means["return_std"] == pytest.approx(torch.tensor([3.0, 36, 10, 36]).std(correction=0).item())
    assert means["ep_length_mean"] == 3
    assert means["battle_won_mean"] == 0.75
    assert means["loss"] == 1.5
    assert means["grad_norm"] == pytest.approx(2.55)
    statistics.clear()
    assert statistics.means() == {}


def test_state_is_exact(statistics):
    copy = TrainingStatistics()
    copy.load_state_dict(statistics.state_dict(), torch.device("cpu"))
    for one in (statistics, copy):
        one.updates.add({"loss": torch.tensor(0.3), "grad_norm": torch.tensor(0.7)})
    assert copy.means() == statistics.means()


def write_rows(folder, steps, **options):
    writer = MetricsWriter(folder, **options)
    offsets = {}
    for step in steps:
        row = {"env_steps": step, "return_mean": step / 3, "test_return_mean": 1.0}
        writer.write(row, {"env_steps": step, "seconds": 2.0})
        offsets[step] = writer.sync()
    writer.close()
    return offsets


def test_rows_after_the_checkpoint_are_cut_off(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    write_rows(whole, [0, 10, 20, 30])
    offsets = write_rows(tmp_path, [0, 10, 20, 25])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 27, "ret')  # the row that the kill cut
    assert [row["env_steps"] for row in read_rows(tmp_path)] == [0, 10, 20, 25]
    write_rows(tmp_path, [20, 30], offsets=offsets[10], env_steps=10)
    for name in ("metrics.jsonl", "timing.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path):
    offsets = write_rows(tmp_path, [0, 10, 20, 25])
    write_rows(tmp_path, [20, 30], offsets=offsets[10], env_steps=10)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) >= {"train/return_mean", "test/return_mean", "time/seconds"}
    assert [event.step for event in events.Scalars("train/return_mean")] == [0, 10, 20, 30]


def test_no_two_event_files_begin_in_the_same_second(tmp_path):
    offsets = write_rows(tmp_path, [0, 10])
    write_rows(tmp_path, [20], offsets=offsets[10], env_steps=10)
    assert len({file.name.split(".")[3] for file in tmp_path.glob("events.out.tfevents.*")}) == 2


def test_what_is_not_finite_becomes_null(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"env_steps": 1, "loss": float("inf")}, {"env_steps": 1})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"env_steps": 1, "loss": None}
