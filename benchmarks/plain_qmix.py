"""A QMIX update in plain PyTorch, as PyMARL and EPyMARL write it: what emix's is measured against.

Inputs are concatenated with one-hot actions and ids, the agents are unrolled over time in Python (``unrolled``) or run
by ``torch.nn.GRU`` (``gru``), the mixer is two batched products, and the targets are a loop over time: lambda-returns
of the taken actions (SMIX), or one step of double Q-learning (QMIX).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emix.data import EnvSpec, Episodes

GAMMA, LAMBDA, CLIP, EMBED, HIDDEN = 0.99, 0.8, 10.0, 32, 64


class UnrolledAgent(nn.Module):
    """PyMARL's RNNAgent: one call per step."""

    def __init__(self, inputs: int, n_actions: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, HIDDEN)
        self.rnn = nn.GRUCell(HIDDEN, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, n_actions)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.rnn(torch.relu(self.fc1(inputs)), hidden)
        return self.fc2(hidden), hidden

    def run(self, inputs: Tensor) -> Tensor:
        """[B n, T+1, I] -> [B n, T+1, A]"""
        hidden = inputs.new_zeros(len(inputs), HIDDEN)
        values = []
        for t in range(inputs.shape[1]):
            q, hidden = self(inputs[:, t], hidden)
            values.append(q)
        return torch.stack(values, dim=1)


class GruAgent(nn.Module):
    """The same over whole episodes."""

    def __init__(self, inputs: int, n_actions: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, HIDDEN)
        self.rnn = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.fc2 = nn.Linear(HIDDEN, n_actions)

    def run(self, inputs: Tensor) -> Tensor:
        """[B n, T+1, I] -> [B n, T+1, A]"""
        return self.fc2(self.rnn(torch.relu(self.fc1(inputs)))[0])


class PlainMixer(nn.Module):
    """PyMARL's QMixer with one-layer hypernetworks."""

    def __init__(self, n_agents: int, state_dim: int) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.hyper_w_1 = nn.Linear(state_dim, n_agents * EMBED)
        self.hyper_b_1 = nn.Linear(state_dim, EMBED)
        self.hyper_w_final = nn.Linear(state_dim, EMBED)
        self.v = nn.Sequential(nn.Linear(state_dim, EMBED), nn.ReLU(), nn.Linear(EMBED, 1))

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """[B, T, n], [B, T, S] -> [B, T]"""
        shape, state, q = q.shape[:2], state.flatten(0, 1), q.flatten(0, 1).unsqueeze(1)
        w1 = self.hyper_w_1(state).abs().view(-1, self.n_agents, EMBED)
        hidden = functional.elu(torch.bmm(q, w1) + self.hyper_b_1(state).unsqueeze(1))
        w_final = self.hyper_w_final(state).abs().unsqueeze(-1)
        return (torch.bmm(hidden, w_final) + self.v(state).unsqueeze(1)).view(shape)


class PlainQmix:
    """One learner: ``update(batch)`` returns the loss.

    Args:
        spec: sizes of the environment.
        agent: how time is walked.
        target: "lambda" for SMIX, "max" for QMIX.
        compiled: with torch.compile: one step of the unrolled agent, or all up to the loss where the agent is ``gru``.
    """

    def __init__(
        self, spec: EnvSpec, agent: Literal["unrolled", "gru"], target: str, *, device: str, compiled: bool = False
    ) -> None:
        make = UnrolledAgent if agent == "unrolled" else GruAgent
        inputs = spec.obs_dim + spec.n_actions + spec.n_agents
        self.agent = make(inputs, spec.n_actions).to(device)
        self.mixer = PlainMixer(spec.n_agents, spec.state_dim).to(device)
        self.target_agent, self.target_mixer = copy.deepcopy(self.agent), copy.deepcopy(self.mixer)
        self.target = target
        self.parameters = [*self.agent.parameters(), *self.mixer.parameters()]
        self.optimizer = torch.optim.RMSprop(self.parameters, lr=5e-4, alpha=0.99, eps=1e-5)
        self.loss = self._loss
        if compiled and agent == "unrolled":
            self.agent.compile(dynamic=False)
            self.target_agent.compile(dynamic=False)
        elif compiled:
            self.loss = torch.compile(self._loss, dynamic=False)

    def load(self, networks: Mapping[str, Tensor]) -> None:
        """Take over the weights of emix's networks, for both the live and the target networks."""
        ours = {
            "encode": "fc1", "head": "fc2", "gru": "rnn",
            "w1": "hyper_w_1", "b1": "hyper_b_1", "w2": "hyper_w_final", "v": "v",
        }  # fmt: skip
        cell = isinstance(self.agent, UnrolledAgent)
        states: dict[str, dict[str, Tensor]] = {"agent": {}, "mixer": {}}
        for name, value in networks.items():
            module, layer, *rest = name.split(".")
            key = ".".join([ours[layer], *rest])
            states[module][key.removesuffix("_l0") if cell else key] = value
        for agent, mixer in ((self.agent, self.mixer), (self.target_agent, self.target_mixer)):
            agent.load_state_dict(states["agent"])
            mixer.load_state_dict(states["mixer"])

    def update(self, batch: Episodes) -> Tensor:
        """One gradient step."""
        loss = self.loss(
            batch.obs, batch.state, batch.avail, batch.actions, batch.reward, batch.terminated, batch.valid
        )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        return loss.detach()

    def _loss(
        self,
        obs: Tensor,
        state: Tensor,
        avail: Tensor,
        actions: Tensor,
        reward: Tensor,
        terminated: Tensor,
        valid: Tensor,
    ) -> Tensor:
        b, steps, n, _ = obs.shape
        one_hot = functional.one_hot(actions, avail.shape[-1]).float()
        last = torch.cat([torch.zeros_like(one_hot[:, :1]), one_hot[:, :-1]], dim=1)
        ids = torch.eye(n, device=obs.device).expand(b, steps, n, n)
        inputs = torch.cat([obs, last, ids], dim=-1).transpose(1, 2).flatten(0, 1)  # [B n, T+1, I]

        def values(agent: UnrolledAgent | GruAgent) -> Tensor:
            return agent.run(inputs).view(b, n, steps, -1).transpose(1, 2)  # [B, T+1, n, A]

        q = values(self.agent)
        taken = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        q_tot = self.mixer(taken[:, :-1], state[:, :-1])
        with torch.no_grad():
            chosen = actions
            if self.target == "max":
                chosen = q.masked_fill(~avail, -9999999).argmax(-1)
            target_q = values(self.target_agent).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            y = self._targets(self.target_mixer(target_q, state), reward, terminated.float(), valid.float())
        error = (q_tot - y) * valid
        return (error**2).sum() / valid.sum()

    def _targets(self, value: Tensor, reward: Tensor, terminated: Tensor, mask: Tensor) -> Tensor:
        """PyMARL's ``build_td_lambda_targets``; one step for QMIX."""
        lam = LAMBDA if self.target == "lambda" else 0.0
        returns = [value[:, -1] * (1 - terminated.sum(1))]
        for t in range(reward.shape[1] - 1, -1, -1):
            one_step = reward[:, t] + (1 - lam) * GAMMA * value[:, t + 1] * (1 - terminated[:, t])
            returns.append(lam * GAMMA * returns[-1] + mask[:, t] * one_step)
        return torch.stack(returns[:0:-1], dim=1)
