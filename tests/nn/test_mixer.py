"""The mixers."""

import math

import pytest
import torch

from emix.nn.mixer import IndependentMixer, LinearMixer, MonotonicMixer, SumMixer

B, T, N, S, E = 2, 3, 4, 5, 8


@pytest.fixture(params=[1, 2], ids=["one-layer", "two-layers"])
def mixer(request):
    torch.manual_seed(0)
    return MonotonicMixer(N, S, E, hypernet_layers=request.param, hypernet_dim=16).double()


def values():
    torch.manual_seed(1)
    return torch.randn(B, T, N, dtype=torch.float64), torch.randn(B, T, S, dtype=torch.float64)


def test_monotonic_equals_a_plain_loop(mixer):
    q, state = values()
    q_tot = mixer(q, state)
    assert q_tot.shape == (B, T)
    for b in range(B):
        for t in range(T):
            s = state[b, t]
            w1, b1, w2 = mixer.w1(s), mixer.b1(s), mixer.w2(s)
            expected = mixer.v(s).item()
            for e in range(E):
                x = sum(abs(w1[i * E + e].item()) * q[b, t, i].item() for i in range(N)) + b1[e].item()
                expected += abs(w2[e].item()) * (x if x > 0 else math.exp(x) - 1)
            assert q_tot[b, t].item() == pytest.approx(expected)


def test_monotonic_rises_with_every_agent(mixer):
    q, state = values()
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(mixer(q, state).sum(), q)
    assert (gradient > 0).all()


def test_without_positive_weights_the_signs_stay(mixer):
    q, state = values()
    mixer.positive_weights = False
    q_tot = mixer(q, state)
    for b in range(B):
        for t in range(T):
            s = state[b, t]
            x = q[b, t] @ mixer.w1(s).view(N, E) + mixer.b1(s)
            expected = torch.nn.functional.elu(x) @ mixer.w2(s) + mixer.v(s)
            torch.testing.assert_close(q_tot[b, t], expected.squeeze())
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(mixer(q, state).sum(), q)
    assert (gradient < 0).any()


def test_monotonic_permutes_with_its_agents(mixer):
    q, state = values()
    q_tot = mixer(q, state)
    order = torch.tensor([2, 0, 3, 1])
    last = mixer.w1 if isinstance(mixer.w1, torch.nn.Linear) else mixer.w1[-1]
    with torch.no_grad():  # E rows belong to each agent
        last.weight.copy_(last.weight.unflatten(0, (N, E))[order].flatten(0, 1))
        last.bias.copy_(last.bias.unflatten(0, (N, E))[order].flatten(0, 1))
    torch.testing.assert_close(mixer(q[..., order], state), q_tot)


def test_the_number_of_layers_is_the_number_of_layers():
    one, two = (MonotonicMixer(N, S, E, hypernet_layers=layers, hypernet_dim=16) for layers in (1, 2))
    assert sum(isinstance(m, torch.nn.Linear) for m in one.w1.modules()) == 1
    assert [m.out_features for m in two.w1.modules() if isinstance(m, torch.nn.Linear)] == [16, N * E]


def test_sum_and_independent():
    q, state = values()
    torch.testing.assert_close(SumMixer()(q, state), q[..., 0] + q[..., 1] + q[..., 2] + q[..., 3])
    assert IndependentMixer()(q, state) is q


@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_a_plain_loop(bias):
    torch.manual_seed(0)
    mixer = LinearMixer(N, S, E, bias=bias).double()
    q, state = values()
    q_tot = mixer(q, state)
    m, b = mixer.weights(state)
    assert (b is None) == (not bias)
    assert (m >= 0).all()
    torch.testing.assert_close(m.sum(-1), torch.ones(B, T, dtype=torch.float64))
    for index in [(i, j) for i in range(B) for j in range(T)]:
        s = state[index]
        w1, w2 = mixer.w1(s).tolist(), mixer.w2(s).tolist()
        u = [sum(abs(w1[i * E + e]) * abs(w2[e]) for e in range(E)) for i in range(N)]
        expected = sum(u[i] / sum(u) * q[index][i].item() for i in range(N))
        expected += mixer.v(s).item() if bias else 0.0
        assert q_tot[index].item() == pytest.approx(expected)
