"""Networks of PPO's agents and critics against concatenated one-hot inputs."""

import itertools

import pytest
import torch
from torch import nn

from emix.nn.multi_agent import ActionCritic, FeedForward, GruNetwork, PerAgent, orthogonal_

B, T, N, IN, H, OUT = 3, 5, 4, 6, 8, 2


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_ids(x, n=N):
    """``[B, T, n, I]``, or ``[B, T, I]`` -> ``[B, T, n, I + n]``"""
    x = x.unsqueeze(2).expand(-1, -1, n, -1) if x.dim() == 3 else x
    return torch.cat([x, torch.eye(n, dtype=x.dtype).expand(*x.shape[:2], n, n)], dim=-1)


def torchs(gru):
    """torch.nn.GRU of the same weights."""
    plain = nn.GRU(gru.weight_ih_l0.shape[1], gru.weight_hh_l0.shape[1]).double()
    plain.load_state_dict(gru.state_dict())
    return plain


@pytest.mark.parametrize("x", [draws(B, T, N, IN), draws(B, T, IN)])
def test_feed_forward_is_three_layers_over_input_and_id(x):
    network = FeedForward(IN, OUT, N, H).double()
    plain = nn.Sequential(network.first.linear, nn.ReLU(), network.body[2], nn.ReLU(), network.head)
    found, state = network(x)
    torch.testing.assert_close(found, plain(with_ids(x)))
    assert state is None


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_recurrent_feed_forward_runs_a_gru_before_its_head(layer_norm):
    network, x = FeedForward(IN, OUT, N, H, layer_norm=layer_norm, recurrent=True).double(), draws(B, T, N, IN)
    y = network.body(network.first.linear(with_ids(network.norm(x))))
    rows = y.transpose(1, 2).flatten(0, 1).transpose(0, 1)  # [T, B n, H]
    expected, last = torchs(network.gru)(rows)
    expected = network.head(network.gru_norm(expected)).transpose(0, 1).unflatten(0, (B, N)).transpose(1, 2)
    found, state = network(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(state, last[0].unflatten(0, (B, N)))
    assert isinstance(network.norm, nn.LayerNorm) == isinstance(network.gru_norm, nn.LayerNorm) == layer_norm


@pytest.mark.parametrize("make", [GruNetwork, lambda *sizes: FeedForward(*sizes, layer_norm=True, recurrent=True)])
def test_step_by_step_is_the_whole_episode(make):
    network, x = make(IN, OUT, N, H).double(), draws(B, T, N, IN)
    expected, last = network(x)
    hidden, found = torch.zeros(B, N, H, dtype=torch.float64), []
    for t in range(T):
        out, hidden = network(x[:, t : t + 1], hidden)
        found.append(out)
    torch.testing.assert_close(torch.cat(found, dim=1), expected)
    torch.testing.assert_close(hidden, last)


def test_the_gru_network_is_torchs_layers():
    network, x = GruNetwork(IN, OUT, N, H).double(), draws(B, T, IN)
    y = network.first(with_ids(x)).relu().transpose(1, 2).flatten(0, 1).transpose(0, 1)
    expected = network.head(torchs(network.gru)(y)[0]).transpose(0, 1).unflatten(0, (B, N)).transpose(1, 2)
    torch.testing.assert_close(network(x)[0], expected)


@pytest.mark.parametrize("make", [GruNetwork, FeedForward])
@pytest.mark.parametrize("x", [draws(B, T, N, IN), draws(B, T, IN)])
def test_every_agent_its_own(make, x):
    network = PerAgent(lambda: make(IN, OUT, 1, H), N).double()
    hidden = draws(B, N, H, seed=1) if make is GruNetwork else None
    found, state = network(x, hidden)
    for i, own in enumerate(network.networks):
        given = x if x.dim() == 3 else x[:, :, [i]]
        expected, last = own(given, None if hidden is None else hidden[:, [i]])
        torch.testing.assert_close(found[:, :, [i]], expected)
        assert (state is None) == (make is FeedForward)
        if state is not None:
            torch.testing.assert_close(state[:, [i]], last)
    first, second = (own.head.weight for own in list(network.networks)[:2])
    assert not torch.equal(first, second)


def test_orthogonal_weights():
    network = FeedForward(IN, 4, N, 16, layer_norm=True, recurrent=True)
    orthogonal_(network, 0.01)
    head, hidden = network.head.weight, network.body[2].weight
    torch.testing.assert_close(head @ head.t(), 1e-4 * torch.eye(4))
    torch.testing.assert_close(hidden @ hidden.t(), 2 * torch.eye(16), rtol=1e-4, atol=1e-4)
    assert all(not parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))
    assert all((parameter == 1).all() for name, parameter in network.named_parameters() if name == "norm.weight")


A, D, K = 3, 2, 7


def block(action, n, i, own):
    """The n blocks of a critic's input, agent i's zero unless ``own`` fills it."""
    rows = [torch.nn.functional.one_hot(a, A).double() for a in action] if action.dim() == 1 else list(action)
    rows[i] = torch.zeros_like(rows[i]) if own is None else torch.nn.functional.one_hot(own, A).double()
    return torch.cat(rows)


def slow_value(critic, x, action, i, own=None):
    """One state, agent and joint action at a time."""
    n = critic.n_agents
    inputs = torch.cat([x, torch.eye(n, dtype=x.dtype)[i], block(action, n, i, own)])
    return critic.head(critic.hidden(critic.first(inputs).relu()).relu())[0]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_the_action_critic_is_the_mean_over_joint_actions(shared, discrete):
    critic = ActionCritic(IN, A if discrete else D, N, H, discrete=discrete).double()
    x = draws(2, 3, IN) if shared else draws(2, 3, N, IN)
    g = torch.Generator().manual_seed(5)
    actions = torch.randint(A, (K, 2, 3, N), generator=g).byte() if discrete else draws(K, 2, 3, N, D, seed=5)
    found = critic(x, actions)
    assert found.shape == (2, 3, N)
    for b, t, i in itertools.product(range(2), range(3), range(N)):
        seen = x[b, t] if shared else x[b, t, i]
        each = [
            slow_value(critic, seen, actions[k, b, t].long() if discrete else actions[k, b, t], i) for k in range(K)
        ]
        torch.testing.assert_close(found[b, t, i], torch.stack(each).mean())


def test_the_action_critic_with_own_actions():
    critic, x = ActionCritic(IN, A, N, H, discrete=True).double(), draws(2, 3, N, IN)
    g = torch.Generator().manual_seed(5)
    actions, own = torch.randint(A, (K, 2, 3, N), generator=g), torch.randint(A, (2, 3, N), generator=g)
    every, one = critic.every_own(x, actions), critic(x, actions, own=own)
    assert every.shape == (2, 3, N, A)
    torch.testing.assert_close(one, every.gather(-1, own.unsqueeze(-1)).squeeze(-1))
    for b, t, i, a in itertools.product(range(2), range(3), range(N), range(A)):
        each = [slow_value(critic, x[b, t, i], actions[k, b, t], i, torch.tensor(a)) for k in range(K)]
        torch.testing.assert_close(every[b, t, i, a], torch.stack(each).mean())


@pytest.mark.parametrize("discrete", [False, True])
def test_gradients_reach_every_weight_of_the_action_critic(discrete):
    critic = ActionCritic(IN, A if discrete else D, N, H, discrete=discrete).double()
    actions = torch.randint(A, (K, 2, N)) if discrete else draws(K, 2, N, D)
    critic(draws(2, N, IN), actions).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in critic.parameters())
    own = [slice(IN + N + critic.encoding * i, IN + N + critic.encoding * (i + 1)) for i in range(N)]
    assert all(critic.first.weight.grad[:, columns].any() for columns in own)
