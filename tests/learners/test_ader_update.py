"""ADER's update against its equations written out in loops."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emix import ops
from emix.data import Box, Discrete, EnvSpec, Episodes
from emix.learners.ader import Ader
from emix.learners.ader_config import AderConfig
from tests.learners import slow_ader as slow
from tests.learners.test_ensemble_mix_update import gradients, slow_gradients

METHODS = {
    "ader": {},
    "reversed": {"allocation": "reversed"},
    "ser-marl": {"allocation": "fixed"},
    "ser-dce": {"allocation": "fixed", "shares": (0.3, 0.7)},
    "no ema": {"ema": 0.0},
    "single": {"critics": "single"},
    "one step": {"td_lambda": 0.0, "bootstrap_truncated": True, "hypernet_layers": 1},
    "alpha in critic": {"alpha_in_critic": True, "budget": -1.0, "average": "slopes"},
}
LENGTHS, ENDINGS = [4, 1, 2, 4], ["terminated", "truncated", "cut", "truncated"]
SMALL = {
    "hidden_dim": 4,
    "second_dim": 5,
    "critic_dim": 5,
    "mixing_embed_dim": 3,
    "hypernet_dim": 4,
    "grad_norm_clip": 1e9,
    "gamma": 0.9,
    "td_lambda": 0.7,
    "share_scale": 0.7,
    "alpha_max": 0.9,
    "epsilon_start": 0.3,
}


@pytest.fixture(params=["discrete", "recurrent", "mlp"])
def kind(request):
    return request.param


def spec_of(kind):
    action = Discrete(3) if kind == "discrete" else Box(2, low=-1.0, high=3.0)
    return EnvSpec(name="small", n_agents=2, action=action, obs_dim=2, state_dim=3, episode_limit=4)


def make_learner(kind, **values):
    """A small learner in float64 whose targets differ from its live networks, and whose temperatures differ."""
    own = {} if kind == "discrete" else {"recurrent": kind == "recurrent", "critic_second_dim": 4}
    config = AderConfig(**(SMALL | ({"critic_second_dim": 5} | own) | values))
    one, other = (Ader(config, spec_of(kind), device="cpu", seed=seed) for seed in range(2))
    one.targets.module.load_state_dict(other.critics.state_dict())
    for module in (one.policies.agent, one.critics, one.targets.module, one.temperatures):
        module.double()
    with torch.no_grad():
        one.temperatures.log_alpha.copy_(torch.tensor([0.6, 0.2]).log())
        for critics in (one.critics, one.targets.module):
            for critic in critics.named().values():  # far from 0, so that the lower of two is not always the same
                for parameter in critic.utilities.parameters():
                    parameter *= 2
    one.budget.shares = one.parts.parts["shares"] = one.budget.shares.double()
    return one


@pytest.fixture
def batch(kind, random_episodes):
    spec = spec_of("discrete")
    episodes = random_episodes(4, dtype=torch.float64, spec=spec, lengths=LENGTHS, endings=ENDINGS)
    return episodes if kind == "discrete" else as_boxes(episodes, spec_of(kind))


def as_boxes(episodes, spec):
    """With actions that are vectors, in place of discrete ones."""
    values = {name: value for name, value in episodes.by_name().items() if name != "avail"}
    g = torch.Generator().manual_seed(3)
    low, high = spec.action.low, spec.action.high
    shape = (*episodes.actions.shape, spec.action.dim)
    values["actions"] = low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)
    return Episodes.of(values, episodes.valid)


def views_of(learner, kind, batch, agent):
    """The policies, step by step; the learner's generator is left alone."""
    noise = None
    if kind != "discrete":
        generator = learner.parts.parts["generator"].clone_state()
        zeros = torch.zeros(batch.actions.shape, dtype=torch.float64)
        noise = ops.gaussian_sample(zeros, zeros, generator=generator).action  # mean 0, deviation 1
    views = []
    for b, (episode, length) in enumerate(zip(batch, batch.lengths.tolist(), strict=True)):
        if kind == "discrete":
            views.append(slow.Discrete(agent, episode, length, learner.actor.epsilon.value))
        else:
            views.append(slow.Gaussian(agent, episode, length, noise[b], learner.spec.action))
    return views


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("method", METHODS)
def test_every_equation(kind, batch, method):
    learner = make_learner(kind, **METHODS[method])
    config, before = learner.config, copy.deepcopy(learner.critics)
    agent, alpha = copy.deepcopy(learner.policies.agent), learner.temperatures.alpha.clone()
    shares = learner.budget.shares.clone()
    views = views_of(learner, kind, batch, agent)
    lengths = batch.lengths.tolist()
    with torch.no_grad():
        ys = [slow.targets(config, learner.targets.module, v, n, alpha) for v, n in zip(views, lengths, strict=True)]
    metrics = learner.update(batch)

    # The critics, by targets of the target networks: eq. 10 with lambda.
    names = {"reward": ""} if config.critics == "single" else {"reward": "", "entropy": "entropy_"}
    assert list(learner.critics.named()) == list(names)
    for name, prefix in names.items():
        loss = slow.critic_loss(before.named()[name], name, views, ys)
        torch.testing.assert_close(metrics[f"{prefix}loss"], loss.detach())
        expected = slow_gradients(loss, before.named()[name])
        torch.testing.assert_close(gradients(learner.critics.named()[name]), expected, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(metrics["target_mean"], torch.stack([y[0] for each in ys for y in each]).mean())

    # The policies, eq. 12, by the critics as they are after that step.
    loss = slow.policy_loss(learner.critics, views, lengths, alpha)
    torch.testing.assert_close(metrics["policy_loss"], loss.detach())
    expected = slow_gradients(loss, agent)
    torch.testing.assert_close(gradients(learner.policies.agent), expected, atol=1e-9, rtol=1e-6)

    # The target entropies, eq. 14 and 15.
    total = config.entropy_budget(learner.spec)
    if config.allocation != "fixed":
        sign = -1 if (total >= 0) == (config.allocation == "adaptive") else 1
        every = [slow.slopes(learner.critics, v, t) for v, n in zip(views, lengths, strict=True) for t in range(n)]
        if config.average == "slopes":
            new = slow.shares(torch.stack(every).mean(0), config.share_scale, sign)
        else:
            new = torch.stack([slow.shares(each, config.share_scale, sign) for each in every]).mean(0)
        shares = config.ema * shares + (1 - config.ema) * new
    torch.testing.assert_close(learner.budget.shares, shares)
    torch.testing.assert_close(torch.stack([metrics[f"target_entropy_{i}"] for i in range(2)]), shares * total)

    # The temperatures, eq. 13.
    expected = slow.temperature_gradient(alpha, views, lengths, (shares * total).tolist())
    torch.testing.assert_close(learner.temperatures.log_alpha.grad, expected)


def test_the_published_codes_metric(random_episodes):
    spec = spec_of("discrete")
    batch = random_episodes(4, dtype=torch.float64, spec=spec, lengths=LENGTHS, endings=ENDINGS)
    learner = make_learner("discrete", metric="entropy", ema=0.0)
    views = views_of(learner, "discrete", batch, copy.deepcopy(learner.policies.agent))
    learner.update(batch)
    new = []
    for view, length in zip(views, batch.lengths.tolist(), strict=True):
        for t in range(length):
            slope = slow.slopes(learner.critics, view, t) * slow.value_by_entropy(learner.critics, view, t)
            new.append(slow.shares(slope, learner.config.share_scale, -1))
    torch.testing.assert_close(learner.budget.shares, torch.stack(new).mean(0), atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("method", ["ader", "single", "alpha in critic"])
def test_padding_changes_nothing(kind, batch, random_episodes, method):
    learners = [make_learner(kind, **METHODS[method]) for _ in range(2)]
    spec = spec_of("discrete")
    noise = random_episodes(4, seed=7, dtype=torch.float64, spec=spec, lengths=[4] * 4, endings=["cut"] * 4)
    noise = noise if kind == "discrete" else as_boxes(noise, spec_of(kind))
    filled = batch.clone()
    for b, length in enumerate(batch.lengths.tolist()):
        for name in ("obs", "state", "avail", "actions") if kind == "discrete" else ("obs", "state", "actions"):
            filled.by_name()[name][b, length + 1 :] = noise.by_name()[name][b, length + 1 :]
        filled.reward[b, length:] = 7.0
        filled.terminated[b, length + 1 :: 2] = True
    metrics = [learner.update(each) for learner, each in zip(learners, (batch, filled), strict=True)]
    torch.testing.assert_close(metrics[1], metrics[0])
    torch.testing.assert_close(learners[1].parts.state_dict(), learners[0].parts.state_dict())


def test_dead_agents_do_not_push_their_temperature_up(random_episodes):
    """The published code counts them, whose entropy is 0 for good."""
    spec = spec_of("discrete")
    batch = random_episodes(4, dtype=torch.float64, spec=spec, lengths=[4] * 4, endings=["terminated"] * 4)
    batch.avail[:, 1:, 0] = torch.tensor([True, False, False])
    batch.actions[:, 1:, 0] = 0
    gradient = {}
    for mask in ("active", "all"):
        learner = make_learner("discrete", temperature_mask=mask)
        learner.update(batch)
        gradient[mask] = learner.temperatures.log_alpha.grad[0]
    assert gradient["all"] < gradient["active"]


@pytest.mark.parametrize("method", METHODS)
def test_update_never_waits_for_the_device(kind, batch, method):
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    learner = make_learner(kind, **METHODS[method])
    learner.update(batch)
    with Record():
        learner.update(batch)
    assert {"monotonic_mix", "monotonic_mix_grad", "trace_returns"} <= called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"}


def test_the_gradient_passes_the_critics_and_leaves_them(batch, kind):
    """After an update every network can be trained again, and the policies' step gave the critics no gradient."""
    learner = make_learner(kind)
    learner.update(batch)
    expected = gradients(learner.critics)
    policies = learner.policies.policies(batch)
    improvement = learner.policies.improve(learner.critics, batch, policies, learner.temperatures.alpha)
    improvement.gain.sum().backward()
    torch.testing.assert_close(gradients(learner.critics), expected, atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in learner.critics.parameters())
