"""Captured updates, with recorders that stand for CUDA graphs: they run what was recorded on the recorded tensors."""

import gc
import re
from dataclasses import fields, replace
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch.utils import _pytree as trees

from emix.data import Box, Discrete, EnvSpec, Episodes, Field, Replay
from emix.data.episodes import joined
from emix.errors import UsageError
from emix.learners import get, list_algorithms, load_recipe, make_config, merged
from emix.learners.ensemble_mix import Batch, EnsembleMix
from emix.learners.loop import run_loop
from emix.learners.value import ValueConfig, ValueLearner
from emix.playing.graphs import no_garbage
from emix.training.building import LENGTHS
from emix.training.captured import CapturedUpdate

pytestmark = pytest.mark.usefixtures("padding_computed")

RECORD = tuple(Field(name, (2,), "float32", "observation") for name in ("probability", "log_prob"))
SPEC = EnvSpec("test", n_agents=2, action=Discrete(3), obs_dim=4, state_dim=5, episode_limit=8)
BOX_SPEC = replace(SPEC, action=Box(2))


class Recorder:
    """Counts; a replay writes its results over those of the one before, as a graph does."""

    def __init__(self):
        self.warm_ups, self.records, self.replays = 0, 0, 0

    def warm_up(self, call):
        self.warm_ups += 1
        return call()

    def record(self, call):
        self.records += 1
        results = {}

        def replay():
            self.replays += 1
            for name, value in call().items():
                results.setdefault(name, torch.empty_like(value)).copy_(value)
            return results

        return replay

    def loop(self, body, times):
        run_loop(body, times)


def learner():
    return ValueLearner(ValueConfig(), SPEC, device="cpu", seed=0)


def batch(steps, seed):
    g = torch.Generator().manual_seed(seed)
    valid = torch.arange(steps) < torch.tensor([[steps], [2]])
    values = dict(
        obs=torch.randn(2, steps + 1, 2, 4, generator=g),
        state=torch.randn(2, steps + 1, 5, generator=g),
        avail=torch.ones(2, steps + 1, 2, 3, dtype=torch.bool),
        actions=torch.randint(3, (2, steps + 1, 2), generator=g),
        reward=torch.randn(2, steps, generator=g) * valid,
        terminated=torch.zeros(2, steps, dtype=torch.bool),
        truncated=torch.zeros(2, steps, dtype=torch.bool),
        probability=torch.zeros(2, steps + 1, 2),
        log_prob=-torch.rand(2, steps + 1, 2, generator=g),
    )
    return Episodes.of(values, valid)


def test_the_numbers_are_those_of_ordinary_updates():
    plain, captured, recorder = learner(), learner(), Recorder()
    update = CapturedUpdate(captured, recorder, longest=8)
    found = []
    for seed, steps in enumerate([4, 8, 4, 4, 8, 4]):
        expected = plain.update(batch(steps, seed))
        found.append((update(batch(steps, seed)), expected))
    for got, expected in found:  # compared at the end: a result outlives the replays after it
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in got)
    for ours, theirs in zip(captured.networks.parameters(), plain.networks.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (recorder.warm_ups, recorder.records, recorder.replays) == (2, 2, 4)  # two shapes


def test_padding_to_a_multiple_leaves_the_numbers():
    """To the rounding of float32: a padded batch may be summed in another order."""
    exact, padded = learner(), learner()
    sources = [Replay(6, SPEC, RECORD, device="cpu", seed=0, multiple=multiple) for multiple in (1, 4)]
    for seed, steps in enumerate([3, 2, 5]):
        for source in sources:
            source.add(batch(steps, seed), torch.tensor([steps, 2]))
    update = CapturedUpdate(padded, Recorder(), longest=8)
    lengths = set()
    for _ in range(10):
        short, long = (source.sample(2) for source in sources)
        lengths.add((short.reward.shape[1], long.reward.shape[1]))
        torch.testing.assert_close(dict(update(long)), exact.update(short), rtol=1e-4, atol=1e-5)
    assert {long for _, long in lengths} == {4, 8}
    assert any(short < long for short, long in lengths)
    for ours, theirs in zip(padded.networks.parameters(), exact.networks.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_updates_read_static_buffers():
    seen = []

    class Learner:
        def update(self, batch):
            seen.append(batch)
            return {"loss": batch.reward.sum()}

    update = CapturedUpdate(Learner(), Recorder())
    given = [batch(4, seed) for seed in range(3)]
    results = [float(update(each)["loss"]) for each in given]
    assert len({each.obs.data_ptr() for each in seen}) == 1
    assert results == [float(each.reward.sum()) for each in given]
    assert seen[0].obs.data_ptr() not in {each.obs.data_ptr() for each in given}


def test_a_batch_may_have_several_parts():
    class Batch(NamedTuple):
        critics: Episodes
        actors: Episodes

    class Learner:
        def update(self, batch):
            return {"loss": batch.critics.reward.sum() - batch.actors.reward.sum()}

    recorder = Recorder()
    update = CapturedUpdate(Learner(), recorder, longest=8)
    for seed, (critics, actors) in enumerate([(4, 8), (4, 8), (4, 4), (4, 8)]):
        one = Batch(batch(critics, seed), batch(actors, seed + 10))
        assert update(one)["loss"] == Learner().update(one)["loss"]
    assert (recorder.warm_ups, recorder.records, recorder.replays) == (2, 1, 2)


def test_what_cannot_be_captured_is_named():
    class Graphs(Recorder):
        def record(self, call):
            try:
                call()
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    class Waiting:
        def __init__(self):
            self.calls = []

        def update(self, batch):
            self.calls.append(batch)
            if len(self.calls) > 1:
                self.wait()
            return {}

        def wait(self):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")  # what .item() raises then

    update = CapturedUpdate(Waiting(), Graphs())
    update(batch(4, 0))
    with pytest.raises(UsageError) as info:
        update(batch(4, 1))
    message = str(info.value)
    assert message.startswith("Waiting.update cannot be captured in a CUDA graph: ")
    assert "test_captured.py:" in message
    assert 'raise RuntimeError("operation not permitted' in message
    assert message.endswith(
        "operation not permitted when stream is capturing; "
        "let nothing there wait for the device, or train with --no-graphs"
    )


def test_numbers_that_a_replay_would_not_change_are_named():
    class Counting:
        steps = 0

        def update(self, batch):
            self.steps += 1
            return {}

    with pytest.raises(UsageError, match=r"Counting.update cannot be captured .* it changes the attribute steps"):
        CapturedUpdate(Counting(), Recorder())(batch(4, 0))


SMALL = {"critic_dim": 16, "critic_second_dim": 16, "hidden_dim": 8, "second_dim": 8, "mixing_embed_dim": 4}
SMALL |= {"epochs": 2, "minibatches": 2}
SOON = {"target_update_interval": 10, "epsilon_anneal_time": 600, "target_update_episodes": 2}
LEARNERS = {name: (name, {}) for name in list_algorithms()}  # an algorithm or recipe, and what differs from it
LEARNERS |= {
    "n_step": ("smix", {"target": "n_step"}),
    "variance": ("ensemble-mix", {"bonus": "variance"}),
    "gate over all": ("ensemble-mix", {"gate_over": "all", "test_sample": True}),
    "retrace": ("ensemble-mix", {"on_target": "retrace"}),
    "batched": ("ensemble-mix", {"critic_update": "batched"}),
    "adam": ("ensemble-mix", {"optimizer": "adam"}),
    # With the optimiser that the tape knows.
    "n-step ppo": ("mappo@epymarl", {"optimizer": "rmsprop", "value_norm": "cumulative", "target": "hard"}),
    "gae ppo": ("ippo@on-policy", {"optimizer": "rmsprop"}),
    "perla": ("perla-mappo", {"optimizer": "rmsprop", "samples": 3, "resample": True, "fit": "executed"}),
    "perla of q": ("perla-ippo@smac", {"optimizer": "rmsprop", "samples": 3, "critic": "q", "minibatches": 3}),
    "single soft critic": ("ader", {"critics": "single", "average": "slopes"}),
    "published metric": ("ader", {"metric": "entropy", "alpha_in_critic": True, "temperature_mask": "all"}),
    "reversed": ("ader", {"allocation": "reversed", "target_tau": 0.1}),
}
VECTORS = re.compile(r"facmac|ader@(matrix|mujoco|prey)")  # recipes for actions that are vectors


def make_learner(name, spec, device="cpu", **plan):
    """A small one, that computes padding as on a GPU."""
    algorithm, changes = LEARNERS[name]
    found = get(algorithm)
    values = merged(load_recipe(algorithm).learner, SMALL | SOON | changes | {"plan": plan})
    known = {field.name for field in fields(found.config)}
    config = make_config(algorithm, {key: value for key, value in values.items() if key in known})
    one = found.learner(config, spec, device=device, seed=0)
    if isinstance(one, EnsembleMix):
        one.critic.skips_padding = False
    return one


def spec_of(name):
    return BOX_SPEC if VECTORS.match(LEARNERS[name][0]) else SPEC


def with_vectors(episodes):
    """The same with actions of ``BOX_SPEC``."""
    values = {name: value for name, value in episodes.by_name().items() if name != "avail"}
    values["actions"] = torch.stack([values["actions"] - 1, 1 - values["actions"]], dim=-1).float() / 2
    return Episodes.of(values, episodes.valid)


def train(name, device, capture):
    """Metrics and state of a learner after updates between which everything moves, by ``capture(learner)``."""
    vectors = VECTORS.match(LEARNERS[name][0])
    one = make_learner(name, spec_of(name), device)
    update, metrics = capture(one), []
    for seed, steps in enumerate([4, 8, 4, 4, 8, 4, 8, 4]):
        on, off = (batch(steps - seed % 3, each).padded(steps).to(device) for each in (seed, seed + 10))
        given = Batch(joined(on, off), on) if isinstance(one, EnsembleMix) else with_vectors(on) if vectors else on
        metrics.append({key: float(each) for key, each in update(given).items()})
        one.advance(env_steps=100, episodes=1)
    return metrics, {key: each.cpu() for key, each in one.parts.state_dict().items()}


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in found[1].items():
        assert torch.equal(value, expected[1][name]), name


@pytest.mark.parametrize("name", LEARNERS)
def test_a_recorded_update_goes_on_as_the_learner_does(name, device, tape):
    """No number that changes between updates, such as epsilon or when targets are due, is left in what was recorded."""
    optimiser = make_learner(name, spec_of(name)).optimiser.torch
    if device == "cpu" and isinstance(optimiser, torch.optim.Adam) and not optimiser.defaults["fused"]:
        pytest.skip("on a CPU torch's Adam reads its count, for which the tape would have to wait")
    recorder = tape() if device == "cpu" else None
    found = train(name, device, lambda one: CapturedUpdate(one, recorder, longest=8))
    assert_same(found, train(name, device, lambda one: one.update))


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", LEARNERS)
def test_on_a_gpu_that_is_not_the_current_one(name):
    found = train(name, "cuda:1", partial(CapturedUpdate, longest=8))
    assert_same(found, train(name, "cuda:1", lambda one: one.update))


def test_garbage_waits_for_the_end_of_a_recording():
    assert gc.isenabled()
    with no_garbage():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with no_garbage():
            pass
        assert not gc.isenabled()  # as the caller has it
    finally:
        gc.enable()


@pytest.mark.cuda
def test_graphs_that_are_garbage_while_others_are_recorded():
    """To free a graph breaks the capture that is under way, and a learner that is gone leaves its graphs to gc."""
    for _ in range(2):
        update = CapturedUpdate(make_learner("smix", SPEC, "cuda"), longest=8)
        for seed in (1, 2):
            update(batch(4, seed).to("cuda"))
        ring: list[object] = [update]
        ring.append(ring)  # which only gc finds
        del update, ring
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        train("qmix", "cuda", partial(CapturedUpdate, longest=8))
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("name", ["ensemble-mix", "dop", "retrace", "coma"])
def test_what_is_recorded_does_not_grow_with_time(name, tape):
    recorded = []
    for steps in (3, 60, 180):
        one, recorder = make_learner(name, replace(SPEC, episode_limit=steps)), tape()
        update = CapturedUpdate(one, recorder)
        for seed in range(2):
            on, off = batch(steps, seed), batch(steps, seed + 10)
            update(Batch(joined(on, off), on) if isinstance(one, EnsembleMix) else on)
        recorded.append(recorder.recorded)
        assert one.parts.parts["target"].units == 2 * steps
    assert recorded[0] == recorded[1] == recorded[2] < 400


def test_shapes_are_few_and_lie_in_one_set_of_buffers(tape):
    """Of Ensemble-MIX, whose batches have two parts, as training on a GPU draws them."""
    limit, recorder = 40, tape()
    spec = replace(SPEC, episode_limit=limit)
    one = make_learner("batched", spec, batch_size=2)
    source = Replay(100, spec, RECORD, device="cpu", seed=0, multiple=limit // LENGTHS)
    update = CapturedUpdate(one, recorder, longest=limit)
    for seed, steps in enumerate(torch.randperm(limit, generator=torch.Generator().manual_seed(0)).tolist() * 2):
        source.add(batch(max(steps, 2), seed), torch.tensor([max(steps, 2), 2]))
        update(one.draw(source))
    lengths = [static.actors.reward.shape[1] for static in update.batches.values()]
    assert len(lengths) == len(set(lengths))  # both parts have one
    assert set(lengths) <= set(range(5, 41, 5))
    assert len(lengths) > 5
    places = {tensor.data_ptr() for static in update.batches.values() for tensor in trees.tree_leaves(static)}
    assert places == {buffer.data_ptr() for buffer in update.buffers}
    longest = Batch(joined(batch(limit, 0), batch(limit, 0)), batch(limit, 0))
    entries = [tensor.numel() // tensor.shape[1] * (limit + 1) for tensor in trees.tree_leaves(longest)]
    assert [buffer.numel() for buffer in update.buffers] == entries


def test_a_batch_that_is_too_long_is_refused():
    update = CapturedUpdate(learner(), Recorder(), longest=6)
    update(batch(4, 0))
    with pytest.raises(ValueError, match=r"batch: expected .* of at most longest=6 steps, got .* \[2, 9, 2, 4\]"):
        update(batch(8, 0))
