"""MAPPO, IPPO and PERLA by their equations: one episode, one step, one agent at a time, in plain torch.

Nothing here is shared with the learner but the forward passes of its networks, which tests/nn compares.
"""

import copy
import math

import torch


def unpadded(episodes):
    """Each episode with its own length: ``(episode b, L_b)``."""
    return [(episodes[b], int(length)) for b, length in enumerate(episodes.lengths)]


def seen(config, episode, length):
    """What the critic sees at steps 0 to L: ``[1, L+1, S]`` or ``[1, L+1, n, ...]``."""
    state, obs = episode.state[None, : length + 1], episode.obs[None, : length + 1]
    if config.critic_input == "state_obs":
        return torch.cat([state.unsqueeze(2).expand(-1, -1, obs.shape[2], -1), obs], dim=-1)
    return state if config.critic_input == "state" else obs


def n_step_return(config, episode, value, t, length):
    """r_t + gamma r_{t+1} + ... + gamma^n V(t+n); the episode's end cuts it short. value [L+1] of one agent."""
    n = min(config.n_step, length - t)
    total = sum(config.gamma**k * episode.reward[t + k] for k in range(n))
    return total if ends(config, episode, t + n - 1) else total + config.gamma**n * value[t + n]


def ends(config, episode, t):
    """Whether nothing is bootstrapped after step t."""
    return bool(episode.terminated[t] or (episode.truncated[t] and not config.bootstrap_truncated))


def advantages(config, episode, value, length):
    """Generalised advantages by their sum: A_t = sum_l (gamma lambda)^l delta_{t+l}; value [L+1]."""
    delta = []
    for t in range(length):
        following = 0.0 if ends(config, episode, t) else value[t + 1]
        delta.append(episode.reward[t] + config.gamma * following - value[t])
    decay = config.gamma * config.gae_lambda
    return torch.stack([sum(decay**k * delta[t + k] for k in range(length - t)) for t in range(length)])


def huber_or_square(config, error):
    size = error.abs()
    if config.huber_delta is None:
        return error**2
    return error**2 / 2 if size <= config.huber_delta else config.huber_delta * (size - config.huber_delta / 2)


def log_softmax(logits, avail, action):
    """log pi(action) and the entropy of one agent."""
    log_pi = (logits - logits[avail].logsumexp(0))[avail]
    index = int(avail[: action + 1].sum()) - 1
    return log_pi[index], -(log_pi.exp() * log_pi).sum()


class SlowPPO:
    """Copies of a learner's networks, and one update of them; there is no normalising of values or rewards.

    Args:
        learner: in float64.
        joint: PERLA's samples ``[K, B, T+1, n]``.
    """

    def __init__(self, learner, joint=None):
        self.config, self.joint = learner.config, joint
        self.actor, self.critic, self.target = map(
            copy.deepcopy,
            (learner.networks, learner.critic.network, learner.critic.target and learner.critic.target.module),
        )
        c = self.config
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=lr, eps=c.optimizer_eps)
            for net, lr in ((self.actor, c.lr), (self.critic, c.critic_lr))
        ]

    def values(self, network, b, episode, length):
        """Of steps 0 to L: [L+1, n]."""
        x = seen(self.config, episode, length)
        if self.joint is None:
            return network(x)[0][0, :, :, 0]
        return network(x, self.joint[:, [b], : length + 1])[0]

    def policies(self, b, episode, length):
        """[L+1][n] probabilities of every action."""
        outputs = self.actor(episode.obs[None, : length + 1])[0][0]
        masked = outputs.masked_fill(~episode.avail[: length + 1], -torch.inf)
        return masked.softmax(-1)

    def q_values(self, network, b, episode, length):
        """Eq. 2, one action x at a time: [L+1, n, A]."""
        x, joint = seen(self.config, episode, length), self.joint[:, [b], : length + 1]
        own = torch.zeros_like(joint[0])
        each = [network(x, joint, own=own + a)[0] for a in range(episode.avail.shape[-1])]
        return torch.stack(each, dim=-1)

    def update(self, episodes):
        """All epochs on the whole batch; the mean of the losses."""
        config, losses = self.config, []
        with torch.no_grad():
            fixed = [self.fixed(b, episode, length) for b, (episode, length) in enumerate(unpadded(episodes))]
        for _ in range(config.epochs):
            critic_terms, actor_terms = [], []
            for b, (episode, length) in enumerate(unpadded(episodes)):
                y, advantage, old_value, pi = fixed[b]
                fitted, advantage = self.estimate(b, episode, length, y, advantage, pi)
                outputs = self.actor(episode.obs[None, :length])[0][0]
                for t in range(length):
                    for i in range(outputs.shape[1]):
                        loss = huber_or_square(config, y[t, i] - fitted[t, i])
                        if config.value_clip:
                            step = (fitted[t, i] - old_value[t, i]).clamp(-config.clip, config.clip)
                            loss = torch.maximum(loss, huber_or_square(config, y[t, i] - old_value[t, i] - step))
                        critic_terms.append(loss)
                        avail, action = episode.avail[t, i], int(episode.actions[t, i])
                        if config.active_only and avail.sum() < 2:
                            continue
                        log_pi, entropy = log_softmax(outputs[t, i], avail, action)
                        ratio = (log_pi - episode.record["log_prob"][t, i]).exp()
                        kept = ratio.clamp(1 - config.clip, 1 + config.clip)
                        gain = torch.minimum(ratio * advantage[t, i], kept * advantage[t, i])
                        actor_terms.append(gain + config.entropy * entropy)
            critic_loss, actor_loss = torch.stack(critic_terms).mean(), -torch.stack(actor_terms).mean()
            for network, optimizer, loss in zip(
                (self.critic, self.actor), reversed(self.optimizers), (critic_loss, actor_loss), strict=True
            ):
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.grad_norm_clip)
                optimizer.step()
            losses.append((critic_loss.item(), actor_loss.item()))
        if self.target is not None:
            with torch.no_grad():
                for ours, live in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                    ours.add_(config.target_tau * (live - ours))
        return [sum(each) / len(losses) for each in zip(*losses, strict=True)]

    def fixed(self, b, episode, length):
        """y [L, n], advantages [L, n] or None where they follow the critic, old values [L, n], pi."""
        config = self.config
        network = self.target if config.returns == "n_step" and self.target is not None else self.critic
        pi = self.policies(b, episode, length)
        q = config.critic == "q"
        value = (
            (pi * self.q_values(network, b, episode, length)).sum(-1) if q else self.values(network, b, episode, length)
        )
        agents = range(value.shape[1])
        if config.returns == "n_step":
            steps = range(length)
            y = [torch.stack([n_step_return(config, episode, value[:, i], t, length) for i in agents]) for t in steps]
            return torch.stack(y), None, self.old(b, episode, length), pi
        advantage = torch.stack([advantages(config, episode, value[:, i], length) for i in agents], dim=1)
        y = advantage + value[:length]
        if q:
            own = self.q_values(network, b, episode, length)[:length]
            taken = episode.actions[:length].unsqueeze(-1)
            advantage = own.gather(-1, taken).squeeze(-1) - value[:length]
        return y, advantage, self.old(b, episode, length), pi

    def old(self, b, episode, length):
        return self.estimate(b, episode, length, None, torch.zeros(()), None)[0] if self.config.value_clip else None

    def estimate(self, b, episode, length, y, advantage, pi):
        """What is fitted [L, n], and the advantage."""
        config = self.config
        if config.critic == "q" or config.fit == "executed":
            x, taken = seen(config, episode, length)[:, :length], episode.actions[:length]
            own = taken[None] if config.critic == "q" else None
            fitted = self.critic(x, taken[None, None], own=own)[0]
        else:
            fitted = self.values(self.critic, b, episode, length)[:length]
        if advantage is not None:
            return fitted, advantage
        with torch.no_grad():
            if config.critic == "q":
                q = self.q_values(self.critic, b, episode, length)[:length]
                taken = q.gather(-1, episode.actions[:length].unsqueeze(-1)).squeeze(-1)
                return fitted, taken - (pi[:length] * q).sum(-1)
            return fitted, y - self.values(self.critic, b, episode, length)[:length]


def exact_marginal(value, pi, i):
    """E over the others' joint actions of value(actions), by enumeration; pi [n, A], actions a list of n."""
    n, n_actions = pi.shape
    total = 0.0
    for joint in torch.cartesian_prod(*[torch.arange(n_actions)] * n).reshape(-1, n).tolist():
        if joint[i] == 0:  # agent i's own is not looked at: once
            weight = math.prod(float(pi[j, a]) for j, a in enumerate(joint) if j != i)
            total += weight * value(joint)
    return total
