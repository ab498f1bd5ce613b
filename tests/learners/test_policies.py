"""Policies: densities, entropies and draws against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform, TransformedDistribution

from emix.data import Box, Discrete
from emix.learners.policies import Categorical, Gaussian

BOX = Box(2, low=-1.5, high=0.5)


def gaussian(squash, share=True, log_std=(-0.5, 0.3)):
    policy = Gaussian(BOX, 3, squash=squash, log_std_init=0.0, share=share).double()
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor(log_std).expand_as(policy.log_std))
    return policy


def mean_and_noise(*shape):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(*shape, 3, 2, generator=g, dtype=torch.float64) for _ in range(2))


def distribution(policy, mean):
    """Of the actions."""
    normal = Normal(mean, policy.log_std.exp())
    if not policy.squash:
        return Independent(normal, 1)
    half = (BOX.high - BOX.low) / 2
    transforms = [TanhTransform(cache_size=1), AffineTransform(BOX.low + half, half, cache_size=1)]
    return Independent(TransformedDistribution(normal, transforms), 1)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("squash", [True, False])
def test_log_probabilities(squash, share):
    policy = gaussian(squash, share)
    mean, noise = mean_and_noise(50)
    latent = policy.latent(mean, noise)
    action = policy.to_action(latent) if squash else latent  # what is drawn; the box clips it afterwards
    torch.testing.assert_close(policy.log_prob(mean, latent), distribution(policy, mean).log_prob(action))
    assert ((policy.to_action(latent) >= BOX.low) & (policy.to_action(latent) <= BOX.high)).all()


def test_log_probabilities_of_large_numbers_are_numbers():
    policy = gaussian(squash=True)
    mean = torch.full((3, 2), 60.0, dtype=torch.float64, requires_grad=True)
    found = policy.log_prob(mean, mean.detach() + 1)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(mean.grad).all()


@pytest.mark.parametrize("squash", [True, False])
def test_entropies(squash):
    policy = gaussian(squash)
    mean = torch.tensor([[0.3, -0.2]] * 3, dtype=torch.float64).expand(200_000, 3, 2)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latent = policy.latent(mean, noise)
    terms = policy.terms(mean, policy.to_action(latent), None, {"latent": latent}, noise)
    if squash:  # one draw each: right on average
        expected = -distribution(policy, mean).log_prob(policy.to_action(latent)).mean()
        torch.testing.assert_close(terms.entropy.mean(), expected, rtol=1e-6, atol=1e-6)
        base = sum(each + (1 + math.log(2 * math.pi)) / 2 for each in policy.log_std.tolist())
        assert float(terms.entropy.mean()) < base + 2 * math.log((BOX.high - BOX.low) / 2)
    else:
        torch.testing.assert_close(terms.entropy, distribution(policy, mean).entropy())
    torch.testing.assert_close(terms.log_prob, policy.log_prob(mean, latent))


@pytest.mark.parametrize("squash", [True, False])
def test_draws_are_reparameterised(squash):
    """The gradient of E[f(u)] by draws is the derivative that the mean of a quadratic has."""
    policy = gaussian(squash)
    mean = torch.tensor([0.4, -0.2], dtype=torch.float64, requires_grad=True)
    noise = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    policy.latent(mean, noise).square().sum(-1).mean().backward()  # E u^2 = mean^2 + std^2
    torch.testing.assert_close(mean.grad, 2 * mean.detach(), rtol=0.02, atol=0.01)
    expected = 2 * (2 * policy.log_std.detach()).exp()
    torch.testing.assert_close(policy.log_std.grad, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("squash", [True, False])
def test_what_is_drawn_has_the_policys_moments_and_is_recorded(squash):
    policy = Gaussian(BOX, 3, squash=squash, log_std_init=-1.0)
    mean = torch.full((40_000, 3, 2), 0.25)
    drawn = policy.draw(mean, None, torch.Generator().manual_seed(0))
    assert drawn.record.keys() == {field.name for field in policy.record}
    latent = drawn.record["latent"]
    torch.testing.assert_close(latent.mean((0, 1)), torch.full((2,), 0.25), atol=0.01, rtol=0)
    torch.testing.assert_close(latent.std((0, 1)), torch.full((2,), math.exp(-1.0)), atol=0.01, rtol=0)
    assert torch.equal(drawn.actions, policy.to_action(latent))
    assert torch.equal(drawn.record["log_prob"], policy.log_prob(mean, latent))
    if not squash:
        assert (latent > BOX.high).any()  # out of the box, and back into it
        assert float(drawn.actions.detach().max()) == BOX.high
    quiet = policy.draw(mean, None, None)
    assert torch.equal(quiet.actions, policy.to_action(mean))


def test_joint_actions_of_boxes_are_what_the_environment_takes():
    policy = Gaussian(BOX, 3, squash=False, log_std_init=0.5)
    joint = policy.sample(torch.zeros(4, 3, 2), None, 6, torch.Generator().manual_seed(0))
    assert joint.shape == (6, 4, 3, 2)
    assert ((joint >= BOX.low) & (joint <= BOX.high)).all()
    assert len(joint.flatten().unique()) > 20


def test_categorical_terms_are_those_of_the_masked_softmax():
    policy, g = Categorical(Discrete(5), 3), torch.Generator().manual_seed(0)
    logits, avail = torch.randn(30, 3, 5, generator=g), torch.rand(30, 3, 5, generator=g) < 0.6
    avail[..., 0] = True
    drawn = policy.draw(logits, avail, g)
    expected = torch.distributions.Categorical(logits=logits.masked_fill(~avail, -1e10))
    terms = policy.terms(logits, drawn.actions, avail, {}, None)
    torch.testing.assert_close(terms.log_prob, expected.log_prob(drawn.actions))
    torch.testing.assert_close(terms.entropy, expected.entropy())
    assert torch.equal(drawn.record["log_prob"], terms.log_prob)
    assert torch.equal(policy.draw(logits, avail, None).actions, expected.probs.argmax(-1))
