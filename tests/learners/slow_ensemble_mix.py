"""Ensemble-MIX by its equations: one episode, one step, one agent, one member, one action at a time, in float64.

Nothing here is shared with the learner but the weights of its networks.
"""

import math

import torch


def member_value(critic, j, state, obs, agent):
    """Member j's Q of every action, [A]: FC, ReLU, FC, ReLU, heads a and v, Q = a + v."""
    agents = critic.w_encode.shape[1] - len(state) - len(obs)
    x = torch.cat([state, obs, torch.eye(agents, dtype=state.dtype)[agent]])
    x = torch.relu(x @ critic.w_encode[j] + critic.b_encode[j])
    x = torch.relu(x @ critic.w_hidden[j] + critic.b_hidden[j])
    heads = x @ critic.w_head[j] + critic.b_head[j]
    return heads[:-1] + heads[-1]


def members_values(critic, episode, t):
    """[n][N] of [A] at step t."""
    members, n = len(critic.w_encode), episode.obs.shape[1]
    state, obs = episode.state[t], episode.obs[t]
    return [[member_value(critic, j, state, obs[i], i) for j in range(members)] for i in range(n)]


def mean_value(values):
    """Eq. 9: [N] of [A] -> [A]."""
    return sum(values) / len(values)


def kurtosis(samples):
    """Eq. 6 of a list of numbers; eq. 7 is 3 less."""
    mean = sum(samples) / len(samples)
    second = sum((x - mean) ** 2 for x in samples) / len(samples)
    fourth = sum((x - mean) ** 4 for x in samples) / len(samples)
    return fourth / second**2


def uncertainty_weight(values, action, c1):
    """Eq. 11: [N] of [A]; 1 without c1."""
    if c1 == 0:
        return 1.0
    return 0.5 + 1 / (1 + math.exp(c1 * kurtosis([float(q[action]) for q in values])))


def mixer_weights(mixer, state):
    """m_i, which sum to 1, and b."""
    width, n = mixer.w2.out_features, mixer.n_agents
    w1, w2 = mixer.w1(state).abs(), mixer.w2(state).abs()
    u = [sum(w1[i * width + e] * w2[e] for e in range(width)) for i in range(n)]
    return [each / sum(u) for each in u], 0.0 if mixer.v is None else mixer.v(state)[0]


def q_tot(networks, episode, t, c1=0.0):
    """Eq. 10 of the actions taken at step t."""
    m, b = mixer_weights(networks.mixer, episode.state[t])
    total = b
    for i, values in enumerate(members_values(networks.critic, episode, t)):
        action = int(episode.actions[t, i])
        total = total + m[i] * uncertainty_weight(values, action, c1) * mean_value(values)[action]
    return total


def expected_q_tot(networks, episode, t, pi, c1):
    """Eq. 10's mean over all joint actions, one at a time; pi [n][A]."""
    m, b = mixer_weights(networks.mixer, episode.state[t])
    n, n_actions = episode.avail.shape[1:]
    values = members_values(networks.critic, episode, t)
    total = 0.0
    for joint in torch.cartesian_prod(*[torch.arange(n_actions)] * n).tolist():
        probability = math.prod(float(pi[i][a]) for i, a in enumerate(joint))
        if probability > 0:
            parts = (
                m[i] * uncertainty_weight(values[i], a, c1) * mean_value(values[i])[a] for i, a in enumerate(joint)
            )
            total = total + probability * (b + sum(parts))
    return total


def policies(agent, episode, length, floor):
    """[L+1][n] of [A]: softmax over all actions, the floor, the mask."""
    n, n_actions = episode.avail.shape[1:]
    hidden, last, result = None, torch.full((1, 1, n), n_actions), []
    for t in range(length + 1):
        logits, hidden = agent(episode.obs[t][None, None], last, hidden)
        result.append([floored(logits[0, 0, i], episode.avail[t, i], floor) for i in range(n)])
        last = episode.actions[t][None, None]
    return result


def floored(logits, avail, floor):
    p = logits.exp() / logits.exp().sum()
    p = ((1 - floor) * p + floor / len(p)) * avail
    return p / p.sum()


def joint_probability(pi, episode, t):
    return math.prod(float(pi[t][i][a]) for i, a in enumerate(episode.actions[t].tolist()))


def sum_of_errors(config, episode, length, t, value, next_value, trace, lam, terms):
    """y = Q_t + sum_l (gamma lam)^l (prod_{j=1..l} trace_{t+j}) delta_{t+l}: eq. 2 and 3, as DOP's code reads them."""
    y, factor = value(t), 1.0
    for k in range(t, min(length, t + terms)):
        if k > t:
            factor *= config.gamma * lam * trace(k)
        ended = bool(episode.terminated[k]) or (bool(episode.truncated[k]) and not config.bootstrap_truncated)
        bootstrap = 0.0 if ended else config.gamma * next_value(k + 1)
        y = y + factor * (episode.reward[k] + bootstrap - value(k))
        if episode.terminated[k] or episode.truncated[k]:
            break
    return float(y)


def on_target(config, targets, episode, length, t, pi):
    """Eq. 3, or Retrace(lambda)."""

    def value(k):
        return q_tot(targets, episode, k)

    if config.on_target == "td_lambda":

        def taken(k):
            return q_tot(targets, episode, k, config.c1)

        return sum_of_errors(config, episode, length, t, value, taken, lambda k: 1.0, config.td_lambda, length)

    def ratio(k):
        return min(1.0, joint_probability(pi, episode, k) / math.prod(episode.record["probability"][k].tolist()))

    def expected(k):
        return expected_q_tot(targets, episode, k, pi[k], config.c1)

    return sum_of_errors(config, episode, length, t, value, expected, ratio, config.td_lambda, length)


def off_target(config, targets, episode, length, t, pi):
    """Eq. 2 with the product from the next action on, and at most m terms."""
    return sum_of_errors(
        config,
        episode,
        length,
        t,
        lambda k: q_tot(targets, episode, k),
        lambda k: expected_q_tot(targets, episode, k, pi[k], config.c1),
        lambda k: joint_probability(pi, episode, k),
        config.tb_lambda,
        config.tb_steps,
    )


def bhattacharyya(values, avail):
    """Eq. 15 of one agent: [N] of [A]; the mean is not learned from."""
    allowed = avail.nonzero()[:, 0]

    def softmax(q):
        return q[allowed].exp() / q[allowed].exp().sum()

    mean = softmax(mean_value(values).detach())
    return sum(-torch.log((mean * softmax(q)).sqrt().sum()) for q in values)


def critic_loss(config, networks, episodes, ys, steps):
    """Eq. 16 over the given time steps; ys {(b, t): y}, the first ``on_batch`` episodes are on-policy."""
    errors, distances = {True: [], False: []}, []
    for b, t in ys:
        if t in steps:
            episode = episodes[b]
            errors[b < config.on_batch].append((ys[b, t] - q_tot(networks, episode, t)) ** 2)
            values = members_values(networks.critic, episode, t)
            distances.append(sum(bhattacharyya(values[i], episode.avail[t, i]) for i in range(len(values))))
    if config.c is None:
        both = errors[True] + errors[False]
        loss = sum(both) / len(both)
    else:
        on, off = (sum(part) / max(1, len(part)) for part in (errors[True], errors[False]))
        loss = config.c * on + (1 - config.c) * off
    return loss - config.c2 * sum(distances) / len(distances) if config.c2 > 0 else loss


def actor_loss(config, networks, agent, floor, newest, off, advantage_of=None):
    """Minus eq. 12, the two terms as means over the valid steps. Its gradient by ``agent`` is that of eq. 12, as the
    advantage of eq. 5 is held: it is that of the policies of ``advantage_of``, by default the same."""
    fixed = advantage_of or agent

    def mean(episodes, term, norm=config.norm):
        total, count = 0.0, 0
        for episode, length in zip(episodes, episodes.lengths.tolist(), strict=True):
            pi, held = (policies(each, episode, length, floor) for each in (agent, fixed))
            for t in range(length):
                m, _ = mixer_weights(networks.mixer, episode.state[t])
                values = members_values(networks.critic, episode, t)
                for i in range(len(m)):
                    q = mean_value(values[i]).detach()
                    total = total + term(
                        pi[t][i], held[t][i].detach(), q, float(m[i].detach()), int(episode.actions[t, i])
                    )
                count += 1
        return total / {"bt": count, "bti": count * newest.avail.shape[2], "sum": 1}[norm]

    def on_term(pi, held, q, m, action):
        advantage = m * (q[action] - sum(held * q))  # eq. 5
        return advantage * pi[action].log()

    def off_term(pi, held, q, m, action):
        return m * sum(pi * q)

    share = {"mixed": config.nu, "on_policy": 0.0, "off_policy": 1.0}[config.actor]
    off_norm = "sum" if config.off_norm == "sum" else config.norm
    return -(1 - share) * mean(newest, on_term) - share * mean(off, off_term, off_norm)
