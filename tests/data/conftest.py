"""Episodes whose every number says where it belongs."""

import pytest
import torch

from emix.data import Box, Discrete, EnvSpec, Episodes, Field

SPECS = {
    "discrete": EnvSpec("fake", n_agents=2, action=Discrete(3), obs_dim=4, state_dim=5, episode_limit=6),
    "box": EnvSpec("fake", n_agents=2, action=Box(3, low=-2.0, high=2.0), obs_dim=4, state_dim=5, episode_limit=6),
}
RECORD = (Field("probability", (2,), "float32", "observation"), Field("value", (), "float32", "transition"))


def numbered(spec, numbers, lengths, record=RECORD):
    """Episode k's entry t is 100 (k + 1) + t wherever a float stands, and its actions follow from that number."""
    t = max(lengths)
    valid = torch.arange(t) < torch.tensor(lengths)[:, None]  # [B, T]
    real = torch.arange(t + 1) <= torch.tensor(lengths)[:, None]  # [B, T+1]
    number = (100 * (torch.tensor(numbers)[:, None] + 1) + torch.arange(t + 1)) * real  # [B, T+1]
    last = torch.arange(t) == torch.tensor(lengths)[:, None] - 1  # [B, T]

    def spread(values, *shape):
        return values[(..., *[None] * len(shape))].expand(*values.shape, *shape).clone()

    action = spec.action
    actions = number % action.n if isinstance(action, Discrete) else (number % 8 / 4 - 1) * real
    values = {
        "obs": spread(number.float(), 2, 4),
        "state": spread(number.float(), 5),
        "actions": spread(actions.float() if isinstance(action, Box) else actions, 2, *action.shape),
        "reward": number[:, :-1].float() * valid,
        "terminated": last & (torch.tensor(numbers)[:, None] % 2 == 0),
        "truncated": last & (torch.tensor(numbers)[:, None] % 2 == 1),
    }
    if isinstance(action, Discrete):
        values["avail"] = spread(real, 2, action.n)
    for field in record:
        source = number if field.at == "observation" else number[:, :-1] * valid
        values[field.name] = spread(source.float(), *field.shape)
    return Episodes.of(values, valid)


def number_of(batch):
    """Of each episode, or each transition's, of ``numbered``: which episode it is."""
    return (batch.reward[:, 0].long() // 100 - 1).tolist()


def assert_equal(one, other):
    """Two batches hold the same, in the same types."""
    ours, theirs = one.by_name(), other.by_name()
    assert ours.keys() == theirs.keys()
    for name, value in (ours | {"valid": one.valid}).items():
        expected = (theirs | {"valid": other.valid})[name]
        assert value.dtype == expected.dtype, name
        assert torch.equal(value, expected), name


@pytest.fixture(params=list(SPECS))
def spec(request):
    return SPECS[request.param]
