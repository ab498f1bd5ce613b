"""A learner's precision reaches every network that has one: for acting and updates, live and target."""

import pytest
import torch

from emix import learners, ops
from emix.data import Step
from emix.learners.ensemble_mix import Batch, EnsembleMix

NAMES = ["iql", "smix", "coma", "dop", "ensemble-mix", "mappo"]


@pytest.fixture
def asked(monkeypatch):
    """What each call of the agents' op asked for."""
    seen, original = [], ops.agent_sequence

    def recording(*inputs, precision="float32"):
        seen.append(precision)
        return original(*inputs, precision=precision)

    monkeypatch.setattr(ops, "agent_sequence", recording)
    return seen


def make_learner(name, spec, **options):
    config = learners.make_config(name, learners.load_recipe(name).learner)
    return learners.get(name).learner(config, spec, device="cpu", seed=0, **options)


def act_and_update(learner, spec, episodes):
    """One of each; the actions and the update's results."""
    flags = torch.zeros(2, dtype=torch.bool)
    zeros = {"obs": torch.zeros(2, spec.n_agents, spec.obs_dim), "state": torch.zeros(2, spec.state_dim)}
    avail = torch.ones(2, spec.n_agents, spec.n_actions, dtype=torch.bool)
    step = Step(**zeros, avail=avail, reward=flags.float(), terminated=flags, truncated=flags)
    actions, *_ = learner.actor.act(step, learner.actor.initial_memory(2), explore=True)
    batch = Batch(episodes, episodes[:4]) if isinstance(learner, EnsembleMix) else episodes
    return {"actions": actions} | learner.update(batch)


@pytest.mark.parametrize("name", NAMES)
def test_it_reaches_every_call(asked, spec, random_episodes, name):
    act_and_update(make_learner(name, spec, precision="bf16"), spec, random_episodes())
    assert len(asked) >= (2 if name == "coma" else 3)  # to act, and in the update two, or one without target policies
    assert set(asked) == {"bf16"}


@pytest.mark.parametrize("name", NAMES)
def test_float32_unless_asked(asked, spec, random_episodes, name):
    act_and_update(make_learner(name, spec), spec, random_episodes())
    assert set(asked) == {"float32"}


@pytest.mark.parametrize("name", NAMES)
def test_a_cpu_computes_in_float32_whatever_it_says(spec, random_episodes, emulated, name):
    """So that a run from a GPU can be looked at without one."""
    if emulated:
        pytest.skip("the emulated kernels round, as a GPU does")
    results = [
        act_and_update(make_learner(name, spec, precision=precision), spec, random_episodes())
        for precision in ("float32", "tf32")
    ]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
