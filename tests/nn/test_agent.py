"""The recurrent agent network."""

import copy

import pytest
import torch
from torch.nn import functional

from emix import ops
from emix.nn.agent import RecurrentAgent

B, T, N, OBS, A, H = 3, 7, 4, 5, 6, 16


@pytest.fixture
def agent():
    torch.manual_seed(0)
    return RecurrentAgent(OBS, A, N, H).double()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    obs = torch.randn(B, T, N, OBS, dtype=torch.float64)
    actions = torch.randint(A, (B, T, N))
    actions[:, 0] = A  # no action yet
    return obs, actions


def test_equals_the_network_on_one_hot_inputs(agent, inputs):
    obs, actions = inputs
    last_action = functional.one_hot(actions, A + 1)[..., :A].double()  # zeros where there is none
    agent_id = torch.eye(N, dtype=torch.float64).expand(B, T, N, N)
    x = functional.relu(agent.encode(torch.cat([obs, last_action, agent_id], dim=-1)))
    cell = torch.nn.GRUCell(H, H).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in agent.gru.state_dict().items()})
    hidden = torch.zeros(B * N, H, dtype=torch.float64)
    expected = []
    for t in range(T):
        hidden = cell(x[:, t].reshape(B * N, H), hidden)
        expected.append(agent.head(hidden).view(B, N, A))
    q, last_hidden = agent(obs, actions)
    torch.testing.assert_close(q, torch.stack(expected, dim=1))
    torch.testing.assert_close(last_hidden, hidden.view(B, N, H))


def test_whole_episode_equals_step_by_step(agent, inputs):
    obs, actions = inputs
    q, last_hidden = agent(obs, actions)
    assert q.shape == (B, T, N, A)
    hidden = torch.zeros(B, N, H, dtype=torch.float64)
    for t in range(T):
        q_t, hidden = agent(obs[:, t : t + 1], actions[:, t : t + 1], hidden)
        torch.testing.assert_close(q_t[:, 0], q[:, t])
    torch.testing.assert_close(hidden, last_hidden)


def test_agents_differ_by_their_id_alone(agent, inputs):
    obs, actions = inputs
    q, _ = agent(obs, actions)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():  # the one-hot ids are the last n columns
        agent.encode.weight[:, -N:] = agent.encode.weight[:, -N:][:, order]
    permuted, _ = agent(obs[:, :, order], actions[:, :, order])
    torch.testing.assert_close(permuted, q[:, :, order])


def test_the_past_does_not_see_the_future(agent, inputs):
    obs, actions = inputs
    q, _ = agent(obs, actions)
    changed = obs.clone()
    changed[:, 4:] += 1.0
    q_changed, _ = agent(changed, actions)
    torch.testing.assert_close(q_changed[:, :4], q[:, :4])
    assert not torch.allclose(q_changed[:, 4:], q[:, 4:])


def test_precision_is_that_of_the_op(monkeypatch, inputs):
    """Only a GPU computes differently; tests/ops has what it computes."""
    asked = []
    monkeypatch.setattr(ops, "agent_sequence", lambda *inputs, precision: asked.append(precision) or (None, None))
    RecurrentAgent(OBS, A, N, H)(*inputs)
    copy.deepcopy(RecurrentAgent(OBS, A, N, H, precision="bf16"))(*inputs)
    assert asked == ["float32", "bf16"]
