"""Ensemble-MIX's update in plain PyTorch, as the public code of DOP and its ensembles goes about it.

Members are networks in a list and run in a loop, inputs are concatenated with one-hot actions and ids, the agents are
unrolled over time in Python, targets are loops over time, and the critics take an optimiser step for each time step.
What is computed is emix's: the paper's uncertainty weights, diversity and mixed actors with their gradients.
"""

from __future__ import annotations

import copy

import torch
from plain_qmix import UnrolledAgent
from torch import Tensor, nn
from torch.nn import functional

from emix.data import EnvSpec, Episodes
from emix.learners.ensemble_mix import Batch, EnsembleMix

EMBED = 32


class Member(nn.Module):
    """One critic of DOP."""

    def __init__(self, inputs: int, hidden: int, n_actions: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.a, self.v = nn.Linear(hidden, n_actions), nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        x = torch.relu(self.fc2(torch.relu(self.fc1(inputs))))
        return self.a(x) + self.v(x)


class Mixer(nn.Module):
    """DOP's linear mixer."""

    def __init__(self, n_agents: int, state_dim: int) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.hyper_w_1, self.hyper_w_final = nn.Linear(state_dim, n_agents * EMBED), nn.Linear(state_dim, EMBED)

    def weights(self, state: Tensor) -> Tensor:
        w1 = self.hyper_w_1(state).abs().view(*state.shape[:-1], self.n_agents, EMBED)
        u = (w1 * self.hyper_w_final(state).abs().unsqueeze(-2)).sum(-1)
        return u / (u.sum(-1, keepdim=True) + 1e-10)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        return (self.weights(state) * q).sum(-1)


class Critics(nn.Module):
    """N members and a mixer."""

    def __init__(self, spec: EnvSpec, members: int, hidden: int) -> None:
        super().__init__()
        inputs = spec.state_dim + spec.obs_dim + spec.n_agents
        self.members = nn.ModuleList(Member(inputs, hidden, spec.n_actions) for _ in range(members))
        self.mixer = Mixer(spec.n_agents, spec.state_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] -> [N, ..., A]"""
        return torch.stack([member(inputs) for member in self.members])


class PlainEnsembleMix:
    """Has the weights and the hyperparameters of a learner; ``update(batch)`` returns the critics' mean loss."""

    def __init__(self, learner: EnsembleMix) -> None:
        config, spec = learner.config, learner.spec
        self.config, self.spec, self.floor = config, spec, learner.epsilon.value
        self.agent = UnrolledAgent(spec.obs_dim + spec.n_actions + spec.n_agents, spec.n_actions)
        self.critics = Critics(spec, config.members, config.critic_dim)
        self._load(learner)
        self.agent.to(learner.device)
        self.critics.to(learner.device)
        self.targets = copy.deepcopy(self.critics)
        rms = {"alpha": config.rms_alpha, "eps": config.rms_eps}
        self.agent_optimizer = torch.optim.RMSprop(self.agent.parameters(), lr=config.lr, **rms)
        self.critic_optimizer = torch.optim.RMSprop(self.critics.parameters(), lr=config.critic_lr, **rms)

    def _load(self, learner: EnsembleMix) -> None:
        networks = learner.critic.networks
        agent, critic, mixer = learner.agent, networks.critic, networks.mixer
        pairs: list[tuple[Tensor, Tensor]] = []
        for ours, theirs in ((self.agent.fc1, agent.encode), (self.agent.fc2, agent.head)):
            pairs += [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            pairs.append((getattr(self.agent.rnn, name), getattr(agent.gru, f"{name}_l0")))
        for ours, theirs in ((self.critics.mixer.hyper_w_1, mixer.w1), (self.critics.mixer.hyper_w_final, mixer.w2)):
            pairs += [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]
        for j, member in enumerate(self.critics.members):
            head, bias = critic.w_head[j].t(), critic.b_head[j]
            pairs += [(member.fc1.weight, critic.w_encode[j].t()), (member.fc1.bias, critic.b_encode[j])]
            pairs += [(member.fc2.weight, critic.w_hidden[j].t()), (member.fc2.bias, critic.b_hidden[j])]
            pairs += [(member.a.weight, head[:-1]), (member.a.bias, bias[:-1])]
            pairs += [(member.v.weight, head[-1:]), (member.v.bias, bias[-1:])]
        with torch.no_grad():
            for ours, theirs in pairs:
                ours.copy_(theirs)

    def update(self, batch: Batch) -> Tensor:
        """The critics, a time step after the other, then the actors."""
        config, rows, count = self.config, batch.critics, len(batch.actors)
        off = rows[count:]
        off_pi = self._policy(off)
        with torch.no_grad():
            inputs = self._inputs(rows)
            q = self.targets(inputs)
            weights = self.targets.mixer.weights(rows.state)
            y = torch.cat(
                [self._on_target(rows[:count], q[:, :count], weights[:count]),
                 self._off_target(off, q[:, count:], weights[count:], off_pi.detach())]
            )  # fmt: skip
        losses = []
        for t in range(y.shape[1]):
            mask = rows.valid[:, t].float()
            if mask.sum() < 0.5:
                continue
            q = self.critics(inputs[:, t])  # [N, B, n, A]
            taken = q.mean(0).gather(-1, rows.actions[:, t].unsqueeze(-1)).squeeze(-1)
            error = (self.critics.mixer(taken, rows.state[:, t]) - y[:, t]) * mask
            distance = self._distance(q, rows.avail[:, t])
            loss = ((error**2).sum() - config.c2 * (distance * mask).sum()) / mask.sum()
            self._step(self.critic_optimizer, self.critics, loss)
            losses.append(loss.item())
        self._update_actors(batch.actors, off, off_pi)
        return torch.tensor(sum(losses) / len(losses))

    def _update_actors(self, newest: Episodes, off: Episodes, off_pi: Tensor) -> None:
        pi = self._policy(newest)[:, :-1]
        q, m = self._values(newest)
        actions = newest.actions[:, :-1].unsqueeze(-1)
        advantage = m * (q.gather(-1, actions).squeeze(-1) - (pi * q).sum(-1)).detach()
        log_pi = torch.log(pi.gather(-1, actions).squeeze(-1).masked_fill(~newest.valid.unsqueeze(-1), 1.0))
        on_term = (advantage * log_pi).sum() / newest.valid.sum()
        q, m = self._values(off)
        off_term = ((m * (off_pi[:, :-1] * q).sum(-1)).sum(-1) * off.valid).sum() / off.valid.sum()
        loss = -(1 - self.config.nu) * on_term - self.config.nu * off_term
        self._step(self.agent_optimizer, self.agent, loss)

    @torch.no_grad()
    def _values(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        q = self.critics(self._inputs(episodes)[:, :-1]).mean(0)
        return q, self.critics.mixer.weights(episodes.state[:, :-1])

    def _step(self, optimizer: torch.optim.Optimizer, networks: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), self.config.grad_norm_clip)
        optimizer.step()

    def _inputs(self, episodes: Episodes) -> Tensor:
        b, steps, n, _ = episodes.obs.shape
        state = episodes.state.unsqueeze(2).expand(-1, -1, n, -1)
        ids = torch.eye(n, device=state.device).expand(b, steps, n, n)
        return torch.cat([state, episodes.obs, ids], dim=-1)  # [B, T+1, n, S + O + n]

    def _policy(self, episodes: Episodes) -> Tensor:
        b, steps, n, _ = episodes.obs.shape
        one_hot = functional.one_hot(episodes.actions, self.spec.n_actions).float()
        last = torch.cat([torch.zeros_like(one_hot[:, :1]), one_hot[:, :-1]], dim=1)
        ids = torch.eye(n, device=last.device).expand(b, steps, n, n)
        inputs = torch.cat([episodes.obs, last, ids], dim=-1).transpose(1, 2).flatten(0, 1)  # [B n, T+1, I]
        logits = self.agent.run(inputs).view(b, n, steps, -1).transpose(1, 2)
        pi = (1 - self.floor) * torch.softmax(logits, dim=-1) + self.floor / self.spec.n_actions
        pi = pi * episodes.avail
        return pi / pi.sum(-1, keepdim=True).clamp(min=1e-10)  # [B, T+1, n, A]

    def _next_weight(self, q: Tensor) -> Tensor:
        centred = q - q.mean(0)
        second = (centred**2).mean(0)
        same = second <= 1e-12 + 1e-10 * q.mean(0) ** 2
        kurtosis = torch.where(same, 3.0, (centred**4).mean(0) / second.masked_fill(same, 1.0) ** 2)
        return 0.5 + torch.sigmoid(-self.config.c1 * kurtosis)

    def _on_target(self, episodes: Episodes, q: Tensor, weights: Tensor) -> Tensor:
        actions = episodes.actions.unsqueeze(-1)
        taken = q.mean(0).gather(-1, actions).squeeze(-1)
        value = (weights * taken).sum(-1)
        following = (weights * taken * self._next_weight(q).gather(-1, actions).squeeze(-1)).sum(-1)
        return self._sum(episodes, value, following, torch.full_like(value, self.config.td_lambda), None)

    def _off_target(self, episodes: Episodes, q: Tensor, weights: Tensor, pi: Tensor) -> Tensor:
        actions = episodes.actions.unsqueeze(-1)
        value = (weights * q.mean(0).gather(-1, actions).squeeze(-1)).sum(-1)
        following = (weights * (pi * q.mean(0) * self._next_weight(q)).sum(-1)).sum(-1)
        trace = self.config.tb_lambda * pi.gather(-1, actions).squeeze(-1).prod(-1)
        return self._sum(episodes, value, following, trace, self.config.tb_steps)

    def _sum(self, episodes: Episodes, value: Tensor, following: Tensor, trace: Tensor, terms: int | None) -> Tensor:
        """Q_t and the sum of the weighted errors that follow, a loop over both."""
        gamma, steps = self.config.gamma, episodes.reward.shape[1]
        going = 1 - (episodes.terminated | episodes.truncated).float()
        mask = episodes.valid.float()
        error = (episodes.reward + gamma * going * following[:, 1:] - value[:, :-1]) * mask
        y = value[:, :-1].clone()
        if terms is None:
            carry = torch.zeros_like(y[:, 0])
            for t in range(steps - 1, -1, -1):
                follows = gamma * going[:, t] * trace[:, t + 1] * carry
                carry = error[:, t] + follows
                y[:, t] += carry
        else:
            for t in range(steps):
                factor = torch.ones_like(y[:, 0])
                for k in range(t, min(steps, t + terms)):
                    y[:, t] += factor * error[:, k]
                    factor = factor * gamma * going[:, k] * trace[:, k + 1]
        return y * mask

    def _distance(self, q: Tensor, avail: Tensor) -> Tensor:
        """Eq. 15 summed over the agents, [B]."""
        q = q.masked_fill(~avail, -1e10)
        mean = torch.softmax(q.detach().mean(0), dim=-1)
        total = torch.zeros(q.shape[1], device=q.device)
        for member in q:
            product = (mean * torch.softmax(member, dim=-1)).clamp(min=1e-30)
            total = total - torch.log(product.sqrt().sum(-1)).sum(-1)
        return total
