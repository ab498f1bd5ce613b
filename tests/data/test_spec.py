"""Sizes, and the one table of what an episode holds."""

import pytest

from emix.data import Box, Discrete, EnvSpec, Field, fields, require_discrete
from emix.errors import UsageError

DISCRETE = EnvSpec("matrix/penalty-2x3", 2, Discrete(300), obs_dim=4, state_dim=5, episode_limit=6)
CONTINUOUS = EnvSpec("matrix/continuous", 2, Box(3), obs_dim=4, state_dim=5, episode_limit=6)
RECORD = (Field("log_prob", (2,), "float32", "observation"), Field("value", (), "float32", "transition"))


def test_the_table_of_discrete_actions():
    table = {field.name: (field.shape, field.dtype, field.at, field.stored) for field in fields(DISCRETE, RECORD)}
    assert table == {
        "obs": ((2, 4), "float32", "observation", "float32"),
        "state": ((5,), "float32", "observation", "float32"),
        "avail": ((2, 300), "bool", "observation", "bool"),
        "actions": ((2,), "int64", "observation", "int16"),
        "reward": ((), "float32", "transition", "float32"),
        "terminated": ((), "bool", "transition", "bool"),
        "truncated": ((), "bool", "transition", "bool"),
        "log_prob": ((2,), "float32", "observation", "float32"),
        "value": ((), "float32", "transition", "float32"),
    }


def test_the_table_of_vectors_has_no_avail():
    table = {field.name: field for field in fields(CONTINUOUS)}
    assert list(table) == ["obs", "state", "actions", "reward", "terminated", "truncated"]
    assert table["actions"] == Field("actions", (2, 3), "float32", "observation")


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("name", ["obs", "avail", "valid", "lengths", "offsets"])
def test_a_record_has_names_of_its_own(spec, name):
    with pytest.raises(UsageError, match=f"{spec.name}: .* names of its own, got '{name}', which is taken"):
        fields(spec, [Field(name, (), "float32", "transition")])


def test_a_record_has_a_name_once():
    with pytest.raises(UsageError, match="got 'log_prob', which is taken"):
        fields(DISCRETE, [*RECORD, RECORD[0]])


def test_number_of_choices():
    assert DISCRETE.n_actions == 300
    with pytest.raises(UsageError, match=r"matrix/continuous: n_actions expects .* it has Box\(dim=3, low=-1.0"):
        CONTINUOUS.n_actions  # noqa: B018


def test_who_needs_discrete_actions_says_so():
    assert require_discrete(DISCRETE, "smix") == Discrete(300)
    text = r"smix expects discrete actions, matrix/continuous has Box\(dim=3, low=-1.0, high=1.0\): choose another"
    with pytest.raises(UsageError, match=text):
        require_discrete(CONTINUOUS, "smix")
