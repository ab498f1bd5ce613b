"""ADER by its equations: one episode, one step, one agent, one member at a time, in float64.

Nothing here is shared with the learner but the weights of its networks. Team values are differentiated by autograd.
"""

import math

import torch
from torch import distributions

from tests.learners.slow_ensemble_mix import policies as discrete_policies


def one_hot(i, n, like):
    return torch.eye(n, dtype=like.dtype)[i]


def utility(critic, k, obs, i, action=None):
    """Member k's values of agent i: [A], or of an action that is a vector []."""
    net = critic.utilities
    if action is None:
        x = torch.cat([obs, one_hot(i, net.w_encode.shape[1] - len(obs), obs)])
        x = torch.relu(x @ net.w_encode[k] + net.b_encode[k])
        x = torch.relu(x @ net.w_hidden[k] + net.b_hidden[k])
        return x @ net.w_head[k] + net.b_head[k]
    x = torch.cat([obs, action, *([one_hot(i, net.n_agents, obs)] if net.agent_id else [])])
    for layer in (net.first, net.second):
        x = torch.relu(x @ layer.weight[k] + layer.bias[k, 0])
    return (x @ net.head.weight[k] + net.head.bias[k, 0])[0]


def mix(mixers, k, u, state):
    """Member k's team value of u [n]: [], or [m]."""
    width, n, m = mixers.embed_dim, mixers.n_agents, mixers.outputs or 1
    rows = mixers.first.out_features // mixers.members
    x = (mixers.first(state))[k * rows : (k + 1) * rows]
    b1, v, rest = x[:width], x[width : 2 * width], x[2 * width :]
    to_w1, to_w2 = rest[: mixers.hidden[0]], rest[mixers.hidden[0] :]
    if mixers.w1 is not None:
        to_w1 = torch.relu(to_w1) @ mixers.w1.weight[k] + mixers.w1.bias[k, 0]
        to_w2 = torch.relu(to_w2) @ mixers.w2.weight[k] + mixers.w2.bias[k, 0]
    v = torch.relu(v) @ mixers.v.weight[k] + mixers.v.bias[k, 0]
    totals = []
    for j in range(m):
        total = v[j]
        for e in range(width):
            h = b1[e] + sum(u[i] * abs(to_w1[i * width + e]) for i in range(n))
            total = total + (h if h > 0 else torch.exp(h) - 1) * abs(to_w2[e * m + j])
        totals.append(total)
    return torch.stack(totals) if mixers.outputs else totals[0]


class Discrete:
    """Expectations over each agent's own actions."""

    def __init__(self, agent, episode, length, floor):
        self.episode = episode
        self.pi = discrete_policies(agent, episode, length, floor)
        self.entropy = [torch.stack([-(p[p > 0] * p[p > 0].log()).sum() for p in step]) for step in self.pi]

    def values(self, critic, k, t):
        """[n], V_i under the policies."""
        obs = self.episode.obs[t]
        return torch.stack([(p * utility(critic, k, obs[i], i)).sum() for i, p in enumerate(self.pi[t])])

    def taken(self, critic, k, t):
        obs, actions = self.episode.obs[t], self.episode.actions[t].tolist()
        return torch.stack([utility(critic, k, obs[i], i)[a] for i, a in enumerate(actions)])

    def active(self, t, i):
        return int(self.episode.avail[t, i].sum()) > 1


class Gaussian:
    """A draw of each agent's action; noise [T+1, n, D]."""

    def __init__(self, agent, episode, length, noise, action):
        self.episode, self.middle, self.half = episode, (action.low + action.high) / 2, (action.high - action.low) / 2
        hidden, last = None, torch.zeros(1, 1, *noise.shape[1:], dtype=noise.dtype)
        self.unit, self.entropy = [], []
        for t in range(length + 1):
            numbers, hidden = agent(episode.obs[t][None, None], last, hidden)
            mean, log_std = numbers[0, 0].chunk(2, dim=-1)
            last = episode.actions[t][None, None]
            normal = distributions.Normal(mean, log_std.exp())
            policy = distributions.TransformedDistribution(normal, distributions.TanhTransform())
            unit = torch.tanh(mean + log_std.exp() * noise[t])
            self.unit.append(unit)
            self.entropy.append(-policy.log_prob(unit).sum(-1))

    def values(self, critic, k, t):
        return self.all(critic, k, t, self.unit[t])

    def taken(self, critic, k, t):
        actions = (self.episode.actions[t] - self.middle) / self.half
        return self.all(critic, k, t, actions)

    def all(self, critic, k, t, actions):
        return torch.stack([utility(critic, k, self.episode.obs[t, i], i, a) for i, a in enumerate(actions)])

    def active(self, t, i):
        return True


def lower(critic, view, t):
    """min of both members' team values under the policies: [], or [n]."""
    state = view.episode.state[t]
    return torch.minimum(*(mix(critic.mixers, k, view.values(critic, k, t), state) for k in range(2)))


def targets(config, critics, view, length, alpha):
    """[(y of the reward, [n] of the entropies or None)] of every step, from the last one backward."""
    episode, results = view.episode, [None] * length
    for t in reversed(range(length)):
        cut = bool(episode.terminated[t]) or (bool(episode.truncated[t]) and not config.bootstrap_truncated)
        follows, last = 0.0 if cut else config.gamma, t == length - 1
        share = 1.0 if last else 1 - config.td_lambda
        later = (0.0, 0.0) if last else results[t + 1]
        entropy, value = view.entropy[t + 1], lower(critics.reward, view, t + 1)
        if config.critics == "single":
            paid = episode.reward[t] + follows * (alpha * entropy).sum()
            results[t] = (paid + follows * (share * value + (1 - share) * later[0]), None)
            continue
        if config.alpha_in_critic:
            entropy = alpha * entropy
        reward = episode.reward[t] + follows * (share * value + (1 - share) * later[0])
        ahead = lower(critics.entropy, view, t + 1)
        results[t] = (reward, follows * (entropy + share * ahead + (1 - share) * later[1]))
    return results


def critic_loss(critic, name, views, ys):
    """Both members' squared errors, of entropies summed over agents, and their mean over the steps."""
    total, count = 0.0, 0
    for view, y in zip(views, ys, strict=True):
        for t, both in enumerate(y):
            for k in range(2):
                q = mix(critic.mixers, k, view.taken(critic, k, t), view.episode.state[t])
                total = total + (both[name == "entropy"] - q).square().sum()
            count += 1
    return total / count


def policy_loss(critics, views, lengths, alpha):
    """Eq. 12, negated."""
    total = 0.0
    for view, length in zip(views, lengths, strict=True):
        for t in range(length):
            total = total + lower(critics.reward, view, t) + (alpha * view.entropy[t]).sum()
            if critics.entropy is not None:
                total = total + (alpha * lower(critics.entropy, view, t)).sum()
    return -total / sum(lengths)


def slopes(critics, view, t):
    """dV_tot/dV_i of the lower value, [n], by autograd."""
    critic, state = critics.reward, view.episode.state[t]
    u = [view.values(critic, k, t).detach().requires_grad_() for k in range(2)]
    values = [mix(critic.mixers, k, u[k], state) for k in range(2)]
    k = 0 if values[0] <= values[1] else 1
    return torch.autograd.grad(values[k], u[k])[0]


def value_by_entropy(critics, view, t, step=1e-6):
    """dV_i/dH_i [n] by a small step along dH/dpi, as the published code takes it."""
    critic, state = critics.reward, view.episode.state[t]
    values = [mix(critic.mixers, k, view.values(critic, k, t), state) for k in range(2)]
    k = 0 if values[0] <= values[1] else 1
    results = []
    for i, p in enumerate(view.pi[t]):
        q, chosen = utility(critic, k, view.episode.obs[t, i], i), p > 0
        p, q = p[chosen], q[chosen]
        moved = p - step * (p.log() + 1)
        entropies = [-(each * each.log()).sum() for each in (p, moved)]
        results.append((((moved - p) * q).sum() / (entropies[1] - entropies[0])).detach())
    return torch.stack(results)


def shares(slope, scale, sign):
    """Eq. 14 of [n]."""
    largest = max(abs(float(d)) for d in slope)
    weights = [math.exp(sign * float(d) / (scale * largest + 1e-5)) for d in slope]
    return torch.tensor([w / sum(weights) for w in weights], dtype=torch.float64)


def temperature_gradient(alpha, views, lengths, goals):
    """dL/d log alpha_i of eq. 13, a mean over the steps at which agent i can choose: [n]."""
    result = []
    for i, goal in enumerate(goals):
        excess = [
            float(view.entropy[t][i].detach() - goal)
            for view, length in zip(views, lengths, strict=True)
            for t in range(length)
            if view.active(t, i)
        ]
        result.append(float(alpha[i]) * sum(excess) / max(1, len(excess)))
    return torch.tensor(result, dtype=torch.float64)
