"""COMA's update: what critic and policies regress on, step by step, and that padding does not matter."""

import copy

import pytest
import torch
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from emix.distributed import Alone
from emix.learners.coma import Coma, ComaConfig

GAMMA, LAM, FLOOR = 0.9, 0.7, 0.3


def make_learner(spec, **values):
    """A learner in float64 whose target differs from its live critic."""
    values = {"bootstrap_truncated": True, "critic_dim": 12, "hidden_dim": 8, "critic_lr": 0.01} | values
    config = ComaConfig(gamma=GAMMA, td_lambda=LAM, epsilon_start=FLOOR, **values)
    learner, other = (Coma(config, spec, device="cpu", seed=seed) for seed in (0, 1))
    learner.target.module.load_state_dict(other.critic.state_dict())
    for module in (learner.agent, learner.critic, learner.target.module):
        module.double()
    return learner


def slow_critic(weights, episode, t, n_actions):
    """Values of every agent's actions [n, A] at step t of one episode, from inputs that are built."""
    n = len(episode.actions[t])
    last = one_hot(episode.actions[t - 1], n_actions) if t > 0 else torch.zeros(n, n_actions)
    rows = []
    for i in range(n):
        others = one_hot(episode.actions[t], n_actions).clone()
        others[i] = 0
        own = [episode.state[t], episode.obs[t, i], others.flatten(), last.flatten(), torch.eye(n)[i]]
        x = torch.cat([each.double() for each in own])
        for layer in ("first", "hidden"):
            x = (weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]).relu()
        rows.append(weights["head.weight"] @ x + weights["head.bias"])
    return torch.stack(rows)


def slow_policies(agent, episode, length, n_actions):
    """pi of every step [L, n, A] of one episode, with the floor."""
    hidden, last, pi = None, torch.full((1, 1, episode.avail.shape[1]), n_actions), []
    for t in range(length):
        logits, hidden = agent(episode.obs[t][None, None], last, hidden)
        p = (1 - FLOOR) * logits[0, 0].softmax(-1) + FLOOR / n_actions
        p = p * episode.avail[t]
        pi.append(p / p.sum(-1, keepdim=True))
        last = episode.actions[t][None, None]
    return torch.stack(pi)


def slow_targets(config, episode, q, length):
    """G_t = r + gamma ((1 - lam) Q_{t+1} + lam G_{t+1}) from the end, [L, n]; q [L+1, n] of the actions taken."""
    returns = [None] * length
    for t in reversed(range(length)):
        ended = episode.terminated[t] or (episode.truncated[t] and not config.bootstrap_truncated)
        later = q[t + 1] if t == length - 1 else (1 - LAM) * q[t + 1] + LAM * returns[t + 1]
        returns[t] = episode.reward[t] + (0.0 if ended else GAMMA) * later
    return torch.stack(returns)


def taken(values, actions):
    return torch.stack([values[i, a] for i, a in enumerate(actions.tolist())])


def slow_update(learner, episodes, n_actions):
    """The policies' loss and gradient, the critic's parameters afterwards and its losses, an episode at a time."""
    critic = copy.deepcopy(learner.critic)
    parameters, target = dict(critic.named_parameters()), learner.target.module.state_dict()
    lengths = episodes.lengths.tolist()
    ys = []
    with torch.no_grad():
        for episode, length in zip(episodes, lengths, strict=True):
            steps = range(length + 1)
            q = torch.stack([taken(slow_critic(target, episode, t, n_actions), episode.actions[t]) for t in steps])
            ys.append(slow_targets(learner.config, episode, q, length))
    pis = [slow_policies(learner.agent, e, length, n_actions) for e, length in zip(episodes, lengths, strict=True)]
    config, losses, terms = learner.config, [], []
    step = torch.optim.RMSprop(
        critic.parameters(), lr=config.critic_lr, alpha=config.rms_alpha, eps=config.rms_eps
    ).step
    for t in reversed(range(max(lengths))):
        errors = []
        for b, length in enumerate(lengths):
            if t >= length:
                continue
            q = slow_critic(parameters, episodes[b], t, n_actions)
            q_taken = taken(q, episodes.actions[b, t])
            errors.append(ys[b][t] - q_taken)
            advantage = (q_taken - (pis[b][t] * q).sum(-1)).detach()
            terms.append(advantage * taken(pis[b][t], episodes.actions[b, t]).log())
        loss = torch.stack(errors).square().mean()
        critic.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters(), config.grad_norm_clip)
        step()
        losses.append(loss.detach())
    actor_loss = -torch.stack(terms).mean()
    gradient = torch.autograd.grad(actor_loss, list(learner.agent.parameters()))
    return actor_loss.detach(), gradient, critic.state_dict(), torch.stack(losses).mean()


@pytest.mark.parametrize("clip", [0.05, 1e9])
@pytest.mark.parametrize("bootstrap_truncated", [False, True])
def test_an_update_equals_a_slow_reference(spec, random_episodes, bootstrap_truncated, clip):
    episodes = random_episodes(dtype=torch.float64)
    learner = make_learner(spec, bootstrap_truncated=bootstrap_truncated, grad_norm_clip=clip)
    actor_loss, gradient, critic, loss = slow_update(learner, episodes, spec.n_actions)
    metrics = learner.update(episodes)
    torch.testing.assert_close(metrics["loss"], loss)
    torch.testing.assert_close(metrics["actor_loss"], actor_loss)
    norm = torch.cat([each.flatten() for each in gradient]).norm()
    torch.testing.assert_close(metrics["actor_grad_norm"], norm)
    torch.testing.assert_close(dict(learner.critic.state_dict()), dict(critic))
    if norm < clip:
        torch.testing.assert_close([each.grad for each in learner.agent.parameters()], list(gradient))


def test_padding_changes_nothing(spec, random_episodes):
    """Nor the time steps of nothing but padding, at which the optimiser's moments stay as they are."""
    short = random_episodes(dtype=torch.float64)[:6]  # at most 6 of 9 steps
    noise, filled = random_episodes(seed=5, dtype=torch.float64), short.clone()
    for b, length in enumerate(short.lengths.tolist()):  # what lies beyond an episode's end is not read at all
        for name in ("obs", "state", "avail", "actions"):
            getattr(filled, name)[b, length + 1 :] = getattr(noise, name)[8, length + 1 :]
        filled.reward[b, length:] = 7.0
    learners = [make_learner(spec) for _ in range(3)]
    for _ in range(2):
        metrics = [one.update(batch) for one, batch in zip(learners, (short.trim(6), short, filled), strict=True)]
    for other in (1, 2):
        torch.testing.assert_close(metrics[other], metrics[0])
        assert learners[other].target.units == learners[0].target.units == 12
        ours, theirs = learners[other].parts.state_dict(), learners[0].parts.state_dict()
        for name, value in theirs.items():
            if not name.endswith(".step"):  # which RMSprop counts and does not use
                torch.testing.assert_close(ours[name], value, msg=name)


class Longer(Alone):
    """Another process has episodes that are 3 steps longer, and learns nothing there."""

    def agree(self, value):
        return value + 3


def test_all_processes_take_as_many_steps(spec, random_episodes):
    alone, together = (make_learner(spec) for _ in range(2))
    together.parts.join(Longer())
    metrics = [one.update(random_episodes(dtype=torch.float64)) for one in (alone, together)]
    torch.testing.assert_close(*metrics)
    torch.testing.assert_close(dict(together.critic.state_dict()), dict(alone.critic.state_dict()))


def test_the_target_follows_the_critics_steps(spec, random_episodes):
    learner = Coma(ComaConfig(target_update_interval=20), spec, device="cpu", seed=0)
    renewed = []
    for seed in range(6):  # 9 steps each
        learner.update(random_episodes(seed=seed))
        live, target = learner.critic.state_dict(), learner.target.module.state_dict()
        renewed.append(all(torch.equal(live[name], target[name]) for name in live))
    assert renewed == [False, False, True, False, False, True]


def test_update_never_waits_for_the_device(spec, random_episodes):
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    learner = Coma(ComaConfig(), spec, device="cpu", seed=0)
    episodes = random_episodes()
    learner.update(episodes)
    with Record():
        learner.update(episodes)
    assert {"agent_sequence", "policy_terms"} <= called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"}
