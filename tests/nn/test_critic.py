"""The ensemble of critics: N networks in a loop give the same."""

import pytest
import torch
from torch.nn import functional

from emix.nn.critic import EnsembleCritic

B, T, S, OBS, A, N_AGENTS, H = 2, 3, 5, 4, 6, 3, 16


def make(members, seed=0):
    torch.manual_seed(seed)
    critic = EnsembleCritic(members, S, OBS, A, N_AGENTS, H).double()
    state, obs = torch.randn(B, T, S, dtype=torch.float64), torch.randn(B, T, N_AGENTS, OBS, dtype=torch.float64)
    return critic, state, obs


def one_member(critic, j, state, obs):
    """Member j on the input as DOP builds it: [state, obs, one-hot id]."""
    ids = torch.eye(N_AGENTS, dtype=state.dtype).expand(B, T, -1, -1)
    x = torch.cat([state.unsqueeze(2).expand(-1, -1, N_AGENTS, -1), obs, ids], dim=-1)
    x = functional.relu(x @ critic.w_encode[j] + critic.b_encode[j])
    x = functional.relu(x @ critic.w_hidden[j] + critic.b_hidden[j])
    a, v = (x @ critic.w_head[j] + critic.b_head[j]).split([A, 1], dim=-1)
    return a + v


@pytest.mark.parametrize("members", [1, 4])
def test_members_equal_a_loop_with_one_hot_inputs(members):
    critic, state, obs = make(members)
    q = critic(state, obs)
    assert q.shape == (members, B, T, N_AGENTS, A)
    expected = torch.stack([one_member(critic, j, state, obs) for j in range(members)])
    torch.testing.assert_close(q, expected)
    upstream = torch.randn_like(q)
    got, want = (torch.autograd.grad((each * upstream).sum(), critic.parameters()) for each in (q, expected))
    torch.testing.assert_close(got, want)


def test_a_single_step_is_what_it_is_in_a_batch():
    critic, state, obs = make(4)
    torch.testing.assert_close(critic(state[1, 2], obs[1, 2]), critic(state, obs)[:, 1, 2])


def test_members_start_as_linear_layers_do_and_differ():
    torch.manual_seed(0)
    critic = EnsembleCritic(8, 20, 30, A, N_AGENTS, 64)
    for weight, inputs in ((critic.w_encode, 53), (critic.w_hidden, 64), (critic.w_head, 64)):
        bound = inputs**-0.5
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)  # uniform
    state, obs = torch.randn(20), torch.randn(N_AGENTS, 30)
    assert (critic(state, obs).std(0) > 0.01).all()
