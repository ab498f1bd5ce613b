"""MAPPO's update in plain PyTorch, as EPyMARL goes about it: what emix's is measured against.

Inputs are concatenated with one-hot ids, the state once for each agent, the actors are unrolled over time in Python
(``unrolled``) or run by ``torch.nn.GRU`` (``gru``), and n-step targets are loops over time, by the target critic, anew
at every epoch. The policies that acted are computed again, as there. What is computed is emix's, with its ends of
episodes.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from emix.data import Episodes
from emix.learners.ppo import PPO


class Actor(nn.Module):
    """EPyMARL's RNNAgent."""

    def __init__(self, inputs: int, n_actions: int, hidden: int, time: Literal["unrolled", "gru"]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, n_actions)
        self.unrolled = time == "unrolled"
        self.rnn = nn.GRUCell(hidden, hidden) if self.unrolled else nn.GRU(hidden, hidden, batch_first=True)

    def run(self, inputs: Tensor) -> Tensor:
        """[B n, T, I] -> [B n, T, A]"""
        if not self.unrolled:
            return self.fc2(self.rnn(torch.relu(self.fc1(inputs)))[0])
        hidden, outputs = inputs.new_zeros(len(inputs), self.fc2.in_features), []
        for t in range(inputs.shape[1]):
            hidden = self.rnn(torch.relu(self.fc1(inputs[:, t])), hidden)
            outputs.append(self.fc2(hidden))
        return torch.stack(outputs, dim=1)


class PlainMappo:
    """Has the weights and the hyperparameters of a learner, ``mappo@epymarl``; ``update(batch)`` returns the critic's
    mean loss."""

    def __init__(self, learner: PPO, time: Literal["unrolled", "gru"]) -> None:
        self.config, self.spec = learner.config, learner.spec
        spec, hidden = learner.spec, learner.config.hidden_dim
        self.actor = Actor(spec.obs_dim + spec.n_agents, spec.n_actions, hidden, time)
        self.critic = nn.Sequential(
            nn.Linear(spec.state_dim + spec.n_agents, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        self._load(learner)
        self.actor.to(learner.device)
        self.critic.to(learner.device)
        self.target = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=self.config.lr)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=self.config.critic_lr)
        self.mean, self.var, self.count = 0.0, 1.0, 1e-4

    def _load(self, learner: PPO) -> None:
        actor, critic = learner.networks.network, learner.critic.network
        pairs = [(self.actor.fc1, actor.first), (self.actor.fc2, actor.head)]
        pairs += [
            (self.critic[0], critic.first.linear),
            (self.critic[2], critic.body[2]),
            (self.critic[4], critic.head),
        ]
        with torch.no_grad():
            for ours, theirs in pairs:
                ours.weight.copy_(theirs.weight)
                ours.bias.copy_(theirs.bias)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                own = getattr(self.actor.rnn, name if self.actor.unrolled else f"{name}_l0")
                own.copy_(getattr(actor.gru, f"{name}_l0"))

    def update(self, batch: Episodes) -> Tensor:
        """All epochs."""
        config = self.config
        n, valid = self.spec.n_agents, batch.valid.unsqueeze(-1).expand(-1, -1, self.spec.n_agents).float()
        reward = self._standardised(batch.reward)
        ids = torch.eye(n, device=valid.device).expand(*batch.obs.shape[:2], n, n)
        obs = torch.cat([batch.obs, ids], dim=-1).transpose(1, 2).flatten(0, 1)  # [B n, T+1, O + n]
        state = torch.cat([batch.state.unsqueeze(2).expand(-1, -1, n, -1), ids], dim=-1)  # [B, T+1, n, S + n]
        with torch.no_grad():
            self._log_policy(obs, batch)  # the policies that acted; emix has recorded their log-probabilities
        losses = []
        for _ in range(config.epochs):
            log_pi = self._log_policy(obs, batch)[:, :-1]  # [B, T, n, A]
            with torch.no_grad():
                y = self._targets(batch, reward, self.target(state).squeeze(-1))
            error = (y - self.critic(state[:, :-1]).squeeze(-1)) * valid
            loss = (error**2).sum() / valid.sum()
            self._step(self.critic_optimizer, self.critic, loss)
            advantage = error.detach()
            taken = log_pi.gather(-1, batch.actions[:, :-1].unsqueeze(-1)).squeeze(-1)
            ratio = torch.exp(taken - batch.record["log_prob"][:, :-1])
            clipped = torch.clamp(ratio, 1 - config.clip, 1 + config.clip)
            entropy = -(log_pi.exp() * log_pi.clamp(min=-1e10)).sum(-1)
            gain = torch.min(ratio * advantage, clipped * advantage) + config.entropy * entropy
            self._step(self.actor_optimizer, self.actor, -(gain * valid).sum() / valid.sum())
            losses.append(loss.detach())
        with torch.no_grad():
            for ours, live in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                ours.copy_(ours * (1 - config.target_tau) + live * config.target_tau)
        return torch.stack(losses).mean()

    def _log_policy(self, obs: Tensor, batch: Episodes) -> Tensor:
        logits = self.actor.run(obs).unflatten(0, (len(batch), -1)).transpose(1, 2)
        return torch.log_softmax(logits.masked_fill(~batch.avail, -1e10), dim=-1)

    def _standardised(self, reward: Tensor) -> Tensor:
        count = reward.numel()
        delta, total = reward.mean() - self.mean, self.count + count
        spread = self.var * self.count + reward.var() * count + delta**2 * self.count * count / total
        self.mean, self.var, self.count = self.mean + delta * count / total, spread / total, total
        return (reward - self.mean) / torch.sqrt(self.var)

    def _targets(self, batch: Episodes, reward: Tensor, value: Tensor) -> Tensor:
        """EPyMARL's nstep_returns, without what it adds after a terminal state; value [B, T+1, n] -> [B, T, n]."""
        gamma, steps = self.config.gamma, reward.shape[1]
        going = (1 - batch.terminated.float()).unsqueeze(-1)
        returns = torch.zeros_like(value[:, :-1])
        for start in range(steps):
            weight, total = torch.ones_like(value[:, 0]), torch.zeros_like(value[:, 0])
            for t in range(start, min(start + self.config.n_step, steps)):
                total = total + weight * reward[:, t].unsqueeze(-1)
                weight = weight * gamma * going[:, t]
            returns[:, start] = total + weight * value[:, min(start + self.config.n_step, steps)]
        return returns

    def _step(self, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.config.grad_norm_clip)
        optimizer.step()
