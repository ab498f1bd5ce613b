"""Proposition 1 of Ensemble-MIX on games small enough to solve: how far eq. 12 is from the true gradient."""

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from emix.learners.ensemble_mix import actor_terms

STATES, AGENTS, ACTIONS, GAMMA = 3, 2, 3, 0.8
JOINT = torch.tensor(list(itertools.product(range(ACTIONS), repeat=AGENTS)))  # [J, n]


class Game(NamedTuple):
    """A random game in which all agents see the state, policies to play it and to fill the buffer, and a critic."""

    start: Tensor  # [S]
    transition: Tensor  # [S, J, S]
    reward: Tensor  # [S, J]
    logits: Tensor  # [S, n, A], theta_i is logits[:, i]
    behaviour: Tensor  # [S, n, A], the logits of beta
    m: Tensor  # [S, n]
    error: Tensor  # [S, n, A], m_i Q_i - Q_i^pi


def make_game(seed, distance, error):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    logits = normal(STATES, AGENTS, ACTIONS)
    return Game(
        start=normal(STATES).softmax(0),
        transition=(2 * normal(STATES, len(JOINT), STATES)).softmax(-1),
        reward=normal(STATES, len(JOINT)),
        logits=logits,
        behaviour=logits + distance * normal(*logits.shape),
        m=normal(STATES, AGENTS).softmax(-1),
        error=error * normal(*logits.shape),
    )


def joint_policy(logits):
    """[S, J]: eq. 2's product of the agents' policies."""
    pi = logits.softmax(-1)
    return torch.stack([pi[:, i, JOINT[:, i]] for i in range(AGENTS)]).prod(0)


def visits(game, joint):
    """[S]: eq. 30, the discounted sum over time of the distribution of states."""
    step = torch.einsum("sj,sjt->st", joint, game.transition)
    return torch.linalg.solve(torch.eye(STATES, dtype=torch.float64) - GAMMA * step.T, game.start)


def agents_values(game, joint):
    """[S, n, A]: eq. 17 of the exact Q_tot."""
    step = torch.einsum("sj,sjt->st", joint, game.transition)
    eye = torch.eye(STATES, dtype=torch.float64)
    value = torch.linalg.solve(eye - GAMMA * step, (joint * game.reward).sum(1))  # [S]
    q_tot = game.reward + GAMMA * game.transition @ value  # [S, J]
    pi = game.logits.softmax(-1)
    result = torch.zeros(STATES, AGENTS, ACTIONS, dtype=torch.float64)
    for i, a in itertools.product(range(AGENTS), range(ACTIONS)):
        mine = JOINT[:, i] == a
        result[:, i, a] = (joint * q_tot)[:, mine].sum(1) / pi[:, i, a]
    return result


def expected_terms(game, logits, q):
    """Eq. 12's two expectations for each agent, [n] each, as the learner computes what is inside."""
    count = len(JOINT)

    def rows(values):  # [S, ...] -> [S, J, ...]
        return values.unsqueeze(1).expand(-1, count, *values.shape[1:])

    avail = torch.ones(STATES, count, AGENTS, ACTIONS, dtype=torch.bool)
    terms = actor_terms(rows(logits), rows(q), JOINT.expand(STATES, -1, -1), avail, rows(game.m), floor=0.0)
    pi, beta = joint_policy(game.logits), joint_policy(game.behaviour)
    on = (visits(game, pi)[:, None, None] * pi[..., None] * terms.on).sum((0, 1))
    off = (visits(game, beta)[:, None, None] * terms.off).mean(1).sum(0)
    return on, off


def bias_and_bound(game, nu, i):
    """Both sides of eq. 20 for agent i."""
    joint = joint_policy(game.logits)
    true_q = agents_values(game, joint)
    q = (true_q + game.error) / game.m[..., None]
    logits = game.logits.clone().requires_grad_()
    pi = logits.softmax(-1)

    def gradient(value):
        return torch.autograd.grad(value, logits, retain_graph=True)[0][:, i]

    on, off = expected_terms(game, logits, q)
    mixed = gradient((1 - nu) * on[i] + nu * off[i])  # eq. 12
    true = gradient((visits(game, joint)[:, None] * pi[:, i] * true_q[:, i]).sum())  # eq. 18, as eq. 35
    discrepancy = (game.m[..., None] * q - true_q)[:, i]  # minus eq. 19
    omega_1 = max(
        gradient(pi[s, i, a].log() * discrepancy[s, a]).abs().sum()
        for s, a in itertools.product(range(STATES), range(ACTIONS))
    )
    omega_2 = max(gradient(game.m[s, i] * (pi[s, i] * q[s, i]).sum()).abs().sum() for s in range(STATES))
    beta = joint_policy(game.behaviour)
    divergence = (joint * (joint / beta).log()).sum(1).max()
    bound = omega_1 / (1 - GAMMA) + 2 * omega_2 * nu * GAMMA / (1 - GAMMA) ** 2 * divergence.clamp(min=0).sqrt()
    return (true - mixed).abs().sum().item(), bound.item()


@pytest.mark.parametrize("distance", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("error", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
def test_the_bias_is_within_the_bound(distance, error, nu):
    for seed in range(5):
        game = make_game(seed, distance, error)
        for i in range(AGENTS):
            bias, bound = bias_and_bound(game, nu, i)
            assert bias <= bound + 1e-9
            if error == 0 and (distance == 0 or nu == 0):
                assert bias < 1e-9  # an exact critic and on-policy data: eq. 12 is the gradient
            else:
                assert bias > 1e-6
