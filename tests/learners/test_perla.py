"""PERLA's marginalised critic: theorem 1 in numbers, exact enumeration, who is left out, when samples are drawn."""

import itertools

import pytest
import torch

from emix import ops
from emix.data import Discrete, EnvSpec
from emix.learners.plan import Plan
from emix.learners.ppo import PPO
from emix.learners.ppo_config import PPOConfig
from emix.nn.multi_agent import ActionCritic
from tests.learners.slow_ppo import exact_marginal
from tests.learners.test_ppo_update import make_learner, with_log_probs

N, A = 3, 4
SPEC = EnvSpec("game", n_agents=N, action=Discrete(A), obs_dim=5, state_dim=6, episode_limit=9)


@pytest.fixture
def game():
    """A critic that depends much on actions, one state, and policies of which some actions are not available."""
    torch.manual_seed(0)
    critic = ActionCritic(6, A, N, 16, discrete=True).double()
    with torch.no_grad():
        critic.first.weight[:, 6 + N :] *= 8
        critic.head.weight *= 5
    logits, avail = torch.randn(N, A, dtype=torch.float64), torch.ones(N, A, dtype=torch.bool)
    avail[0, 2] = avail[2, 0] = False
    return critic, torch.randn(6, dtype=torch.float64), logits, avail


def values_of(critic, state, joint, own=None):
    """[..., n] of joint actions [..., n], each for itself."""
    seen = state.expand(*joint.shape[:-1], -1)
    with torch.no_grad():
        return critic(seen, joint.unsqueeze(0), own=own)


def draws(logits, avail, samples, rows, seed):
    """K joint actions for each of so many repetitions: [K, R, n]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, N, A)
    return ops.sample_actions(logits.expand(shape), avail.expand(shape), samples=samples, generator=generator)


def test_the_mean_of_many_samples_is_the_exact_enumeration(game):
    critic, state, logits, avail = game
    pi = ops.masked_policy(logits, avail)
    joint = draws(logits, avail, 20_000, 1, seed=0)
    with torch.no_grad():
        found = critic(state.expand(1, -1), joint)[0]
    for i in range(N):
        exact = exact_marginal(lambda a, i=i: float(values_of(critic, state, torch.tensor(a))[i]), pi, i)
        spread = float(values_of(critic, state, joint[:, 0])[:, i].std())
        assert spread > 0.2
        assert abs(float(found[i]) - exact) < 4 * spread / 20_000**0.5


@pytest.mark.parametrize("samples", [1, 4, 16, 64])
def test_theorem_1(game, samples):
    """Var Qhat_i(a_i) = 1/K Var Q_i(a) + (K-1)/K Var Qtilde_i(a_i), over the draw of all agents' actions.

    Qtilde and its variance by enumeration, Qhat by the critic as the learner calls it.
    """
    critic, state, logits, avail = game
    pi, i, rows = ops.masked_policy(logits, avail), 1, 30_000
    every = torch.cartesian_prod(*[torch.arange(A)] * N)  # [A^n, n]
    weight = torch.stack([pi[j, every[:, j]] for j in range(N)]).prod(0)
    q = values_of(critic, state, every, own=every)[:, i]
    others = [pi[j, every[:, j]] for j in range(N) if j != i]
    marginal = torch.stack([(q * torch.stack(others).prod(0))[every[:, i] == a].sum() for a in range(A)])  # Qtilde
    var_q = (weight * q**2).sum() - (weight * q).sum() ** 2
    var_marginal = (pi[i] * marginal**2).sum() - (pi[i] * marginal).sum() ** 2
    assert var_q > 1.5 * var_marginal
    expected = var_q / samples + (samples - 1) / samples * var_marginal
    own = draws(logits, avail, 1, rows, seed=1)[0].long()  # [R, n]
    joint = draws(logits, avail, samples, rows, seed=2)
    with torch.no_grad():
        found = critic(state.expand(rows, -1), joint, own=own)[:, i]
    assert float(found.var()) == pytest.approx(float(expected), rel=0.06)


def test_the_variance_over_samples_falls_as_one_over_k(game):
    """Of Vbar_i of one state, whose exact value has none."""
    critic, state, logits, avail = game
    spread = {}
    for samples in (1, 10, 100):
        with torch.no_grad():
            found = critic(state.expand(5000, -1), draws(logits, avail, samples, 5000, seed=samples))
        spread[samples] = found.var(0)
    for samples in (10, 100):
        torch.testing.assert_close(spread[samples] * samples, spread[1], rtol=0.12, atol=0)


def test_an_agents_own_action_does_not_reach_its_value(game):
    critic, state, *_ = game
    every = torch.cartesian_prod(*[torch.arange(A)] * N)
    values = values_of(critic, state, every)  # [A^n, n]
    for i in range(N):
        others = [j for j in range(N) if j != i]
        for a, b in itertools.product(range(len(every)), range(len(every))):
            if torch.equal(every[a, others], every[b, others]):
                torch.testing.assert_close(values[a, i], values[b, i])
        assert values[:, i].std() > 0.2


def perla(samples, **values):
    config = PPOConfig(samples=samples, hidden_dim=8, **values, plan=Plan(source="fresh", batch_size=9))
    return PPO(config, SPEC, device="cpu", seed=0)


def test_samples_are_of_the_policies_that_acted_and_the_same_for_all_epochs(random_episodes, monkeypatch):
    calls, original = [], ops.sample_actions

    def recording(logits, avail, **options):
        calls.append((logits.clone(), avail, options["samples"]))
        return original(logits, avail, **options)

    monkeypatch.setattr(ops, "sample_actions", recording)
    for resample in (False, True):
        calls.clear()
        learner, batch = perla(6, epochs=4, resample=resample), random_episodes()
        with torch.no_grad():
            first, _ = learner.networks(batch.obs)
        learner.update(batch)
        assert len(calls) == (4 if resample else 1)
        assert torch.equal(calls[0][0], first)
        assert calls[0][1] is batch.avail
        assert {samples for *_, samples in calls} == {6}


def test_resampling_draws_from_the_policies_that_acted(random_episodes, monkeypatch):
    """Not from those that the epochs before have made."""
    seen, original = [], ops.sample_actions

    def recording(logits, avail, **options):
        seen.append(logits.clone())
        return original(logits, avail, **options)

    monkeypatch.setattr(ops, "sample_actions", recording)
    learner = perla(3, epochs=3, resample=True, lr=0.01)
    learner.update(random_episodes())
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_sampled_action_is_always_available(random_episodes):
    learner, batch = perla(50), random_episodes()
    joint = learner._samples(batch, learner._outputs(batch))["joint"]  # [B, T+1, n, K]
    real = torch.nn.functional.pad(batch.valid, (1, 0), value=True)
    assert batch.avail.gather(-1, joint.long())[real].all()


def test_samples_at_zero_are_the_base(random_episodes):
    """PERLA's recipe without samples is the base by its settings."""
    learner = perla(0)
    metrics = learner.update(random_episodes())
    base = PPO(PPOConfig(hidden_dim=8, plan=Plan(source="fresh", batch_size=9)), SPEC, device="cpu", seed=0)
    assert metrics == base.update(random_episodes())


def test_more_samples_bring_an_update_nearer_to_that_of_the_exact_expectation(spec, random_episodes):
    """The critic's gradient by K samples scatters about that by enumeration, by 1/sqrt(K)."""
    batch = with_log_probs(make_learner(spec, samples=1), random_episodes(dtype=torch.float64))
    every = torch.cartesian_prod(*[torch.arange(spec.n_actions)] * spec.n_agents)  # [A^n, n]

    def gradient(samples, seed, exact=False):
        learner = make_learner(spec, samples=samples, epochs=1, grad_norm_clip=1e9)
        learner.generator.manual_seed(seed)
        if exact:
            outputs, _ = learner.networks(batch.obs)
            pi = ops.masked_policy(outputs.detach(), batch.avail)  # [B, T+1, n, A]
            learner.critic._value = lambda network, rows: enumerated(network, rows, pi[:, : rows["seen"].shape[1]])
        learner.update(batch)
        return torch.cat([each.grad.flatten() for each in learner.critic.network.parameters()])

    def enumerated(network, rows, pi):
        total = 0.0
        for joint in every:
            weight = torch.stack([pi[..., j, joint[j]] for j in range(len(joint))], dim=-1)  # [B, T, n]
            rest = torch.stack([weight[..., [k for k in range(3) if k != i]].prod(-1) for i in range(3)], dim=-1)
            value = network(rows["seen"], joint.expand(1, *pi.shape[:3]))
            total = total + rest * value / spec.n_actions
        return total

    exact = gradient(1, 0, exact=True)
    errors = {k: torch.stack([(gradient(k, seed) - exact).norm() for seed in range(3)]).mean() for k in (4, 400)}
    assert errors[400] < errors[4] / 4
    assert errors[400] < 0.2 * exact.norm()
