"""When a learner is updated."""

import pytest

from emix import learners
from emix.errors import UsageError
from emix.learners.plan import Plan


def test_updates_after_a_rollout():
    assert Plan(updates_per_rollout=2).updates(steps=120) == 2
    assert Plan(unit="transition", updates_per_rollout=0, updates_per_step=1).updates(steps=120) == 120
    assert Plan(source="fresh", batch_size=64).updates(steps=120) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "online"}, "source expects one of replay, fresh, got 'online'"),
        ({"unit": "step"}, "unit expects one of episode, transition"),
        ({"batch_size": 0}, "batch_size expects an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size expects an integer"),
        ({"random_steps": -1}, "random_steps expects an integer of at least 0, got -1"),
        ({"updates_per_rollout": True}, "updates_per_rollout expects an integer"),
        ({"updates_per_rollout": 0}, "both 0"),
        ({"batch_size": 33, "buffer_size": 32}, r"buffer_size expects at least batch_size \(33\), got 32"),
        ({"source": "fresh", "updates_per_rollout": 2}, "source fresh expects .* set the learner's epochs"),
        ({"source": "fresh", "unit": "transition"}, "source fresh expects unit episode"),
    ],
)
def test_a_plan_refuses_nonsense(values, message):
    with pytest.raises(UsageError, match=message):
        Plan(**values)


@pytest.mark.parametrize("algorithm", ["iql", "qmix", "smix", "qtran", "coma@r", "dop", "ensemble-mix"])
def test_agents_with_a_memory_learn_from_episodes(algorithm):
    name = algorithm.partition("@")[0]
    values = learners.load_recipe(algorithm).learner
    with pytest.raises(UsageError, match="agents with a memory learn from episodes"):
        learners.make_config(name, values | {"plan": Plan(unit="transition", batch_size=32, buffer_size=5000)})
