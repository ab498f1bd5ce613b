"""When a learner is updated and from what: fresh or replayed data, episodes or transitions, random steps, groups."""

from __future__ import annotations

import signal

import pytest
import torch

from emix.errors import UsageError
from emix.training import DivergenceError, read_rows
from emix.training.loop import StopRequest

FRESH = {"source": "fresh", "batch_size": 64}


def numbers(fake) -> list[int]:
    """The episodes of all updates, in the order in which they were learned from."""
    return [number for batch in fake.batches for number in batch.record["number"][:, 0, 0].tolist()]


def test_fresh_data_64_episodes_of_4_environments(fake, run, tmp_path):
    """400 episodes give 6 updates of 64, each episode in one of them, and 16 wait for the next."""
    state = run(tmp_path, fake.settings(FRESH, steps=1200))  # 100 rollouts of 2 or 4 steps in each of 4 environments
    assert (state.counters.env_steps, state.counters.episodes, state.counters.updates) == (1200, 400, 6)
    assert [len(batch) for batch in fake.batches] == [64] * 6
    assert numbers(fake) == list(range(384))
    assert state.data.fresh == 16
    assert state.data.capacity == 68
    assert set(fake.learners[0].advanced) == {(8, 4), (16, 4)}


def test_fresh_data_over_a_resume(fake, run, tmp_path):
    """An episode that waits when the run is stopped is used afterwards, once."""
    stop = StopRequest()

    def ask(env_steps: int) -> None:
        if env_steps > 500:
            stop.signal = signal.SIGTERM

    state = run(tmp_path, fake.settings(FRESH, steps=1200), hook=ask, stop=stop)
    assert (state.counters.episodes % 64, state.data.fresh) == (state.data.fresh, state.counters.episodes % 64)
    assert 0 < state.data.fresh < 64
    state = run(tmp_path, fake.settings(FRESH, steps=1200))
    assert len(fake.learners) == 2
    assert state.counters.updates == 6
    assert numbers(fake) == list(range(384))


def test_several_updates_where_a_rollout_is_larger_than_a_batch(fake, run, tmp_path):
    state = run(tmp_path, fake.settings({"source": "fresh", "batch_size": 3}, num_envs=8, steps=96))
    assert state.counters.episodes == 32
    assert [len(batch) for batch in fake.batches] == [3] * 10
    assert numbers(fake) == list(range(30))


def test_updates_for_every_step_from_single_transitions(fake, run, tmp_path):
    plan = {"unit": "transition", "batch_size": 10, "buffer_size": 50, "updates_per_rollout": 0, "updates_per_step": 1}
    state = run(tmp_path, fake.settings(plan, steps=96))
    # Rollouts of 8, 16, 8, ... steps: the first leaves 8 transitions, too few for an update.
    assert state.counters.updates == state.counters.env_steps - 8 == 88
    assert {tuple(batch.reward.shape) for batch in fake.batches} == {(10, 1)}
    assert state.data.unit == "transition"
    assert len(state.data) == 50
    for batch in fake.batches:
        time = batch.record["time"][:, 0]
        assert torch.equal(batch.obs[:, 0, 0, 1], time)  # of the observation that it leads from
        assert torch.equal(batch.obs[:, 1, 0, 1], time + 1)
        assert torch.equal(batch.record["number"][:, 0], batch.record["number"][:, 1])
        assert batch.valid.all()


def test_updates_after_every_rollout_and_every_step(fake, run, tmp_path):
    plan = {"batch_size": 4, "buffer_size": 9, "updates_per_rollout": 2, "updates_per_step": 3}
    state = run(tmp_path, fake.settings(plan, steps=24))
    assert state.counters.updates == (2 + 3 * 8) + (2 + 3 * 16)


def test_random_steps_at_the_start(fake, run, tmp_path):
    plan = {"batch_size": 4, "buffer_size": 100, "random_steps": 20}
    state = run(tmp_path, fake.settings(plan, steps=60))
    # The rollouts that begin at 0 and 8 steps are random, those at 24, 32, 48 and 56 the actor's.
    assert len(fake.learners[0].actor.explored) == 4
    stored = state.data.export(0, state.data.added)
    steps = stored["lengths"].tolist()
    assert steps == [2] * 4 + [4] * 4 + [2] * 4 + [4] * 4 + [2] * 4 + [4] * 4
    random = sum(length + 1 for length in steps[:8])
    assert stored["actions"][random:].eq(1).all()
    assert len(stored["actions"][:random].unique()) == 3
    assert not stored["number"][:random].any()
    assert not stored["time"][:random].any()
    assert stored["time"][random:].any()


def test_random_steps_are_repeated_after_a_resume(fake, run, tmp_path, killed):
    plan = {"batch_size": 4, "buffer_size": 100, "random_steps": 300}
    settings = fake.settings(plan, steps=480, checkpoint_interval=100)
    whole = run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > 250:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    resumed = run(tmp_path / "killed", settings)
    ours, theirs = (state.data.export(0, state.data.added) for state in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    "plan",
    [
        {"source": "fresh", "batch_size": 7},
        {"unit": "transition", "batch_size": 10, "buffer_size": 50, "updates_per_rollout": 0, "updates_per_step": 1},
    ],
)
def test_killed_and_resumed_gives_the_same_bytes(fake, run, tmp_path, killed, plan):
    settings = fake.settings(plan, steps=480, log_interval=20, checkpoint_interval=100)
    run(tmp_path / "whole", settings)

    def die(env_steps: int) -> None:
        if env_steps > 250:
            raise killed

    with pytest.raises(killed):
        run(tmp_path / "killed", settings, hook=die)
    run(tmp_path / "killed", settings)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert b"aux_loss" in rows
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == rows


def test_a_recorded_field_that_no_list_knows_arrives_in_update(fake, run, tmp_path):
    """Whole episodes through rollout, replay, checkpoint and batch, by the actor's own words alone."""
    run(tmp_path, fake.settings({"batch_size": 4, "buffer_size": 6}, steps=240, checkpoint_interval=50))
    run(tmp_path, fake.settings({"batch_size": 4, "buffer_size": 6}, steps=480, checkpoint_interval=50))
    for batch in fake.batches:
        assert set(batch.record.keys()) == {"number", "time"}
        assert (batch.record["number"].dtype, batch.record["time"].dtype) == (torch.int64, torch.float32)
        steps = batch.reward.shape[1]
        assert batch.record["number"].shape == (4, steps + 1, 2)
        assert torch.equal(batch.record["time"], torch.arange(steps).expand(4, steps) * batch.valid)
    assert max(numbers(fake)) > 150


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"batch_size": 2, "buffer_size": 3}, "room for a rollout, 4 episodes of 4 environments, got 3"),
        (
            {"unit": "transition", "buffer_size": 32 - 1, "batch_size": 4},
            "room for a rollout, 32 transitions of 4 .* got 31",
        ),
    ],
)
def test_a_replay_without_room_for_a_rollout(fake, run, tmp_path, plan, message):
    with pytest.raises(UsageError, match=rf"plan.buffer_size expects {message}"):
        run(tmp_path / "run", fake.settings(plan))
    assert not (tmp_path / "run").exists()


def test_any_number_that_is_none_ends_the_run(fake, run, tmp_path):
    settings = fake.settings({"batch_size": 4, "buffer_size": 100}, {"nan_at": 30}, log_interval=100)
    message = r"the aux_loss became nan before \d+ environment steps: train again with a smaller --learner.lr$"
    with pytest.raises(DivergenceError, match=message):
        run(tmp_path, settings)
    assert read_rows(tmp_path)[-1]["aux_loss"] == 1.0


class Twins:
    """Stands for two processes that do the same: sums are doubled, and the other one may want something larger."""

    def __init__(self, *, first: bool, stops_at: int = 10**9) -> None:
        self.first, self.stops_at, self.asked = first, stops_at, 0

    def sum_(self, tensors) -> None:
        for tensor in tensors:
            tensor.mul_(2)

    def agree(self, value: int) -> int:
        self.asked += 1
        return max(value, self.asked == self.stops_at)


def test_only_the_first_of_a_group_writes(fake, run, tmp_path):
    settings = fake.settings({"batch_size": 4, "buffer_size": 100}, steps=240)
    state = run(tmp_path / "second", settings, group=Twins(first=False))
    assert not (tmp_path / "second").exists()
    assert (state.counters.env_steps, state.counters.episodes) == (240, 80)  # of both; 40 were played here
    assert fake.learners[0].advanced[:2] == [(16, 8), (32, 8)]
    run(tmp_path / "first", settings, group=Twins(first=True))
    assert (tmp_path / "first" / "checkpoint" / "manifest.json").exists()
    assert (tmp_path / "first" / "metrics.jsonl").exists()


def test_a_group_stops_together(fake, run, tmp_path):
    """The start agrees on whether to stop; each rollout on the number of updates, and on whether to stop."""
    settings = fake.settings({"batch_size": 4, "buffer_size": 100}, steps=2400, log_interval=10_000)
    state = run(tmp_path, settings, group=Twins(first=True, stops_at=7))
    assert len(fake.learners[0].advanced) == 3
    assert state.counters.env_steps < 2400
