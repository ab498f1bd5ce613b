"""Captured rollouts against ``collect``: on the CPU on a tape that stands for CUDA graphs."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import emix
import emix.playing.captured as captured
import emix.playing.source as source
from emix.data.episodes import joined
from emix.errors import UsageError
from emix.learners.ensemble_mix import Batch, EnsembleMix
from emix.learners.learner import Acted
from emix.learners.value import EpsilonGreedyActor
from emix.playing import CapturedRollout, Stopwatch, collect, evaluate
from emix.training import CapturedUpdate
from tests.training.test_captured import LEARNERS, VECTORS, make_learner

CASES = [(name, limit) for name in ("smix", "ensemble-mix") for limit in (5, 16, 20, 60)]  # multiples of 8, and not
CASES += [(name, 20) for name in LEARNERS if name not in ("smix", "ensemble-mix") and not VECTORS.match(name)]


@pytest.fixture(autouse=True)
def _blocks(monkeypatch):
    """Blocks as on a GPU."""
    monkeypatch.setattr("emix.playing.rollout.ask_every", lambda device: 8)


def battle(limit=20, *, num_envs=3, seed=0, device="cpu", name="battle/3m", **options):
    return emix.make(
        name, num_envs=num_envs, seed=seed, device=device, **({"checked": False, "episode_limit": limit} | options)
    )


def ordinary(env, one, *, explore):
    return partial(collect, env, one, explore=explore)


def play(name, limit, player, *, device="cpu", updater=lambda one: one.update):
    """Rollouts, tests and updates by turns: what was played, and the learner's and the environments' states at the end.

    Args:
        name: of the learner's configuration.
        limit: of the episodes.
        player: makes of environment, learner and ``explore`` what plays a rollout.
        device: of everything.
        updater: makes of the learner what updates it.
    """
    env, test_env = battle(limit, device=device), battle(limit, num_envs=2, seed=1, device=device)
    one = make_learner(name, env.spec, device)
    rollout, test = player(env, one.actor, explore=True), player(test_env, one.actor, explore=False)
    update = updater(one)
    found = []
    for _ in range(4):
        found += [rollout(), test()]
        on, lengths = found[-2].episodes, found[-2].lengths
        update(Batch(joined(on, on), on) if isinstance(one, EnsembleMix) else on)
        one.advance(env_steps=int(lengths.sum()), episodes=3)
    state = dict(one.parts.state_dict())
    for which, each in (("env", env), ("test", test_env)):
        state |= {f"{which}.{key}": value for key, value in each.battles._asdict().items()}
    return found, {key: value.cpu() for key, value in state.items()}


def assert_same(found, expected):
    for ours, theirs in zip(found[0], expected[0], strict=True):  # at the end: a result outlives the replays after it
        for field, value in theirs.episodes.by_name().items():
            assert torch.equal(ours.episodes.by_name()[field], value), field
        assert torch.equal(ours.episodes.valid, theirs.episodes.valid)
        assert torch.equal(ours.lengths, theirs.lengths)
        assert torch.equal(ours.returns, theirs.returns)
        assert list(ours.info) == list(theirs.info)
        assert all(torch.equal(ours.info[key], value) for key, value in theirs.info.items())
    assert found[1].keys() == expected[1].keys()
    for key, value in found[1].items():
        assert torch.equal(value, expected[1][key]), key


@pytest.mark.parametrize(("name", "limit"), CASES)
def test_the_numbers_are_those_of_collect(name, limit, device, tape):
    """While epsilon falls, weights move and tests come between: none of it is left in what was recorded."""
    if device == "cpu":
        found = play(name, limit, partial(CapturedRollout, recorder=tape()))
    else:
        updater = partial(CapturedUpdate, longest=limit)
        found = play(name, limit, CapturedRollout, device=device, updater=updater)
    assert_same(found, play(name, limit, ordinary, device=device))


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_a_gpu_that_is_not_the_current_one():
    graphs = play("ensemble-mix", 20, CapturedRollout, device="cuda:1", updater=partial(CapturedUpdate, longest=20))
    assert_same(graphs, play("ensemble-mix", 20, ordinary, device="cuda:1"))


def test_python_runs_twice_for_blocks_of_one_length(tape):
    env = battle(20, spawn_jitter=0.0)
    one, calls, act = make_learner("smix", env.spec).actor, [], EpsilonGreedyActor.act
    one.act = lambda *args, **options: calls.append(1) or act(one, *args, **options)
    rollout, acted = CapturedRollout(env, one, explore=True, recorder=tape()), []
    for _ in range(4):
        calls.clear()
        assert int(rollout().lengths.max()) == 20  # 8, 8, 4
        acted.append(len(calls))
    assert acted == [1 + 8 + 8 + 4, 1 + 4, 1, 1]


def test_observations_in_place_of_the_state(tape):
    spec = battle(obs_instead_of_state=True).spec
    assert spec.state_dim == spec.n_agents * spec.obs_dim
    env, same = (battle(obs_instead_of_state=True) for _ in range(2))
    one, other = make_learner("smix", spec).actor, make_learner("smix", spec).actor
    rollout = CapturedRollout(env, one, explore=True, recorder=tape())
    for _ in range(3):
        assert torch.equal(rollout().episodes.state, collect(same, other, explore=True).episodes.state)


def test_a_map_that_closes_between_rollouts(tape):
    options = {"name": "battle/2_corridors", "closing_step": 10, "obs_closed": True}
    env, same = battle(**options), battle(**options)
    one, other = make_learner("smix", env.spec).actor, make_learner("smix", env.spec).actor
    rollout = CapturedRollout(env, one, explore=True, recorder=tape())
    for env_steps in (0, 0, 0, 20, 20):
        for each in (env, same):
            each.advance(env_steps)
        assert torch.equal(rollout().episodes.obs, collect(same, other, explore=True).episodes.obs)


def test_tests_and_time(tape):
    env, same = battle(num_envs=2), battle(num_envs=2)
    one, watch = make_learner("smix", env.spec).actor, Stopwatch()
    rollout = CapturedRollout(env, one, explore=False, recorder=tape())
    assert evaluate(env, one, 6, rollout) == evaluate(same, one, 6)
    rollout(stopwatch=watch)
    assert set(watch.seconds) == {"env"}


@pytest.mark.parametrize(
    ("env", "allowed"),
    [
        (lambda: battle(), True),
        (lambda: battle(checked=True), False),
        (lambda: emix.make("matrix/msteps-5", num_envs=2), False),
    ],
    ids=["battle", "checked", "matrix"],
)
def test_which_environments_are_captured(env, allowed, tape, monkeypatch):
    env = env()
    monkeypatch.setattr(captured, "CudaGraphs", lambda learner, device: tape())
    one = make_learner("smix", env.spec).actor
    players = [source._player(env, one, explore=True, captured=each) for each in (False, True)]
    assert [isinstance(each, CapturedRollout) for each in players] == [False, allowed]
    for player in players:
        assert player(stopwatch=Stopwatch()).lengths.min() > 0
    if not allowed:
        message = (
            f"A rollout of EpsilonGreedyActor in {env.spec.name} cannot be captured .* expected an environment whose"
        )
        with pytest.raises(UsageError, match=message):
            CapturedRollout(env, one, explore=True)


class Memory(NamedTuple):
    time: int | Tensor


class Stopping:
    """Takes the first action that is available; what stands in the way of a capture is for others to add."""

    record = ()

    def initial_memory(self, num_envs):
        return Memory(torch.zeros(()))

    def act(self, step, memory, *, explore):
        return Acted(step.avail.int().argmax(-1), memory)


def test_what_waits_for_the_device_is_named(tape):
    class Waiting(Stopping):
        def act(self, step, memory, *, explore):
            assert step.avail.any().item()
            return super().act(step, memory, explore=explore)

    rollout = CapturedRollout(battle(), Waiting(), explore=True, recorder=tape())
    with pytest.raises(UsageError, match=r"Waiting in battle/3m cannot be captured .*_local_scalar_dense.* waits for"):
        rollout()


def test_a_memory_that_a_replay_would_not_change_is_named(tape):
    class Counting(Stopping):
        def act(self, step, memory, *, explore):
            return Acted(super().act(step, memory, explore=explore).actions, Memory(3))

    rollout = CapturedRollout(battle(), Counting(), explore=True, recorder=tape())
    with pytest.raises(UsageError, match=r"Counting in battle/3m cannot be captured .* the memory has the int 3,"):
        rollout()


def test_numbers_that_a_replay_would_not_change_are_named(tape):
    class Counting(Stopping):
        acted = 0

        def act(self, step, memory, *, explore):
            self.acted += 1
            return super().act(step, memory, explore=explore)

    rollout = CapturedRollout(battle(), Counting(), explore=True, recorder=tape())
    with pytest.raises(UsageError, match=r"in battle/3m cannot be captured .* the attribute acted of Counting, which"):
        rollout()
