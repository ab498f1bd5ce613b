"""COMA's critic and QTRAN's joint value: the layers over one-hot inputs that are never built."""

import pytest
import torch
from torch.nn.functional import one_hot

from emix.nn.agent import RecurrentAgent
from emix.nn.counterfactual import CounterfactualCritic
from emix.nn.joint import JointValue

S, O, A, N, H = 5, 4, 3, 3, 6  # noqa: E741 - the letters of the docstrings


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    lead = (2, 7)
    return {
        "state": torch.randn(*lead, S, generator=g, dtype=torch.float64),
        "obs": torch.randn(*lead, N, O, generator=g, dtype=torch.float64),
        "actions": torch.randint(A, (*lead, N), generator=g),
        "last": torch.randint(A + 1, (*lead, N), generator=g),  # A: none yet
        "hidden": torch.randn(*lead, N, H, generator=g, dtype=torch.float64),
    }


def encoded(actions):
    return one_hot(actions, A + 1)[..., :A].double()


def test_the_counterfactual_critic_is_its_layers_over_what_pymarl_builds(inputs):
    critic = CounterfactualCritic(S, O, A, N, 8).double()
    state, obs, actions, last = (inputs[name] for name in ("state", "obs", "actions", "last"))
    joint = encoded(actions).unsqueeze(-3).expand(2, 7, N, N, A)  # for each agent, those of all
    others = (joint * (1 - torch.eye(N))[..., None]).flatten(-2)
    common = [each.unsqueeze(-2).expand(2, 7, N, -1) for each in (state, encoded(last).flatten(-2))]
    ids = torch.eye(N, dtype=torch.float64).expand(2, 7, N, N)
    x = torch.cat([common[0], obs, others, common[1], ids], dim=-1)
    expected = critic.head(critic.hidden(critic.first(x).relu()).relu())
    found = critic(state, obs, actions, last)
    torch.testing.assert_close(found, expected)
    parameters = list(critic.parameters())
    ours, theirs = (torch.autograd.grad(each.square().sum(), parameters) for each in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_an_agents_own_action_does_not_change_its_values(inputs):
    critic = CounterfactualCritic(S, O, A, N, 8).double()
    state, obs, actions, last = (inputs[name] for name in ("state", "obs", "actions", "last"))
    other = actions.clone()
    other[..., 1] = (other[..., 1] + 1) % A
    before, after = critic(state, obs, actions, last), critic(state, obs, other, last)
    torch.testing.assert_close(before[..., 1, :], after[..., 1, :])
    assert not torch.allclose(before[..., 0, :], after[..., 0, :])


def test_the_joint_value_is_its_layers_over_what_pymarl_builds(inputs):
    joint = JointValue(S, A, H, 8).double()
    state, hidden, actions = (inputs[name] for name in ("state", "hidden", "actions"))
    pairs = torch.cat([hidden, encoded(actions)], dim=-1)
    encoding = joint.encode_head(joint.encode(pairs).relu()).sum(-2)
    expected = joint.q(torch.cat([state, encoding], dim=-1)).squeeze(-1)
    found = joint(state, hidden, actions)
    torch.testing.assert_close(found, expected)
    parameters = [*joint.q.parameters(), *joint.encode.parameters(), *joint.encode_head.parameters()]
    ours, theirs = (torch.autograd.grad(each.square().sum(), parameters) for each in (found, expected))
    torch.testing.assert_close(ours, theirs)
    assert joint.value(state).shape == (2, 7)


@pytest.mark.parametrize("agent_id", [True, False])
def test_unrolled_agents_are_those_of_the_op(inputs, agent_id):
    agent = RecurrentAgent(O, A, N, H, agent_id=agent_id).double()
    q, states = agent.unroll(inputs["obs"], inputs["last"])
    expected, last_state = agent(inputs["obs"], inputs["last"])
    torch.testing.assert_close(q, expected)
    torch.testing.assert_close(states[:, -1], last_state)
    ours, theirs = (torch.autograd.grad(each.square().sum(), list(agent.parameters())) for each in (q, expected))
    torch.testing.assert_close(ours, theirs)


def test_agents_without_ids_act_alike_on_what_is_alike(inputs):
    obs, last = inputs["obs"][:, :, :1].expand(-1, -1, N, -1), inputs["last"][:, :, :1].expand(-1, -1, N)
    alike, unlike = (RecurrentAgent(O, A, N, H, agent_id=agent_id).double()(obs, last)[0] for agent_id in (False, True))
    assert torch.equal(alike[:, :, 0], alike[:, :, 2])
    assert not torch.allclose(unlike[:, :, 0], unlike[:, :, 2])
