"""ADER's update for discrete actions in plain PyTorch, as PyMARL's forks write theirs: what emix's is measured against.

The agents are unrolled over time in Python, inputs are concatenated with one-hot actions and ids, every critic and
mixer is a module of its own, the policies' loss and the metric are differentiated through the mixers, and the targets
are a loop over time. It has ``AderConfig``'s defaults.
"""

from __future__ import annotations

import copy

import torch
from plain_qmix import UnrolledAgent
from torch import Tensor, nn
from torch.nn import functional

from emix.data import Episodes
from emix.learners.ader import Ader
from emix.learners.ader_critics import TwinCritic


class PlainMixer(nn.Module):
    """QMixer with hypernetworks of two layers and m outputs."""

    def __init__(self, n_agents: int, state_dim: int, outputs: int, embed: int, hidden: int) -> None:
        super().__init__()

        def hypernet(width: int, size: int) -> nn.Module:
            return nn.Sequential(nn.Linear(state_dim, width), nn.ReLU(), nn.Linear(width, size))

        self.n_agents, self.embed, self.outputs = n_agents, embed, outputs
        self.w1, self.w2 = hypernet(hidden, n_agents * embed), hypernet(hidden, embed * outputs)
        self.b1, self.v = nn.Linear(state_dim, embed), hypernet(embed, outputs)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """[B, T, n], [B, T, S] -> [B, T, m]"""
        shape, state, q = q.shape[:2], state.flatten(0, 1), q.flatten(0, 1).unsqueeze(1)
        w1 = self.w1(state).abs().view(-1, self.n_agents, self.embed)
        hidden = functional.elu(torch.bmm(q, w1) + self.b1(state).unsqueeze(1))
        w2 = self.w2(state).abs().view(-1, self.embed, self.outputs)
        return (torch.bmm(hidden, w2) + self.v(state).unsqueeze(1)).view(*shape, self.outputs)


class PlainAder:
    """``update(batch)`` returns the losses of reward and entropy critics and of the policies.

    Args:
        learner: whose weights it starts with.
    """

    def __init__(self, learner: Ader) -> None:
        self.config, self.spec = learner.config, learner.spec
        spec, device = learner.spec, learner.device
        inputs = spec.obs_dim + spec.n_actions + spec.n_agents
        self.agent = UnrolledAgent(inputs, spec.n_actions).to(device)
        ours = {"encode": "fc1", "head": "fc2", "gru": "rnn"}
        state = learner.policies.agent.state_dict()
        renamed = {".".join([ours[key.split(".")[0]], key.split(".")[1]]): value for key, value in state.items()}
        self.agent.load_state_dict({key.removesuffix("_l0"): value for key, value in renamed.items()})
        self.epsilon = float(learner.parts.values()["epsilon"])
        self.critics, self.targets = (
            {name: [self._member(critic, k) for k in range(2)] for name, critic in critics.named().items()}
            for critics in (learner.critics, learner.targets.module)
        )
        self.log_alpha = nn.Parameter(learner.temperatures.log_alpha.detach().clone())
        self.shares, self.total = learner.budget.shares.clone(), learner.budget.total
        config = learner.config

        def optimizer(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
            return torch.optim.RMSprop(parameters, lr=lr, alpha=config.rms_alpha, eps=config.optimizer_eps)

        self.parameters = {
            name: [p for pair in members for module in pair for p in module.parameters()]
            for name, members in self.critics.items()
        }
        self.parameters["agent"] = list(self.agent.parameters())
        self.optimizers = {
            name: optimizer(parameters, config.lr if name == "agent" else config.critic_lr)
            for name, parameters in self.parameters.items()
        }
        self.alpha_optimizer = optimizer([self.log_alpha], config.alpha_lr)

    def _member(self, critic: TwinCritic, k: int) -> tuple[nn.Module, nn.Module]:
        """Utilities and mixer of one member, with its weights."""
        spec, config, net, mixers = self.spec, self.config, critic.utilities, critic.mixers
        h = config.critic_dim
        utilities = nn.Sequential(
            nn.Linear(spec.obs_dim + spec.n_agents, h),
            nn.ReLU(),
            nn.Linear(h, h),
            nn.ReLU(),
            nn.Linear(h, spec.n_actions),
        )
        names = ("encode", "hidden", "head")
        with torch.no_grad():
            for layer, name in zip(utilities[::2], names, strict=True):
                layer.weight.copy_(getattr(net, f"w_{name}")[k].T)
                layer.bias.copy_(getattr(net, f"b_{name}")[k])
            mixer = PlainMixer(
                spec.n_agents, spec.state_dim, mixers.outputs or 1, config.mixing_embed_dim, config.hypernet_dim
            )
            rows = mixers.first.weight.chunk(2)[k], mixers.first.bias.chunk(2)[k]
            sizes = (config.mixing_embed_dim, config.mixing_embed_dim, config.hypernet_dim, config.hypernet_dim)
            first = zip(*(each.split(sizes) for each in rows), strict=True)
            for layer, (weight, bias) in zip((mixer.b1, mixer.v[0], mixer.w1[0], mixer.w2[0]), first, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            for layer, ours in ((mixer.v[2], mixers.v), (mixer.w1[2], mixers.w1), (mixer.w2[2], mixers.w2)):
                layer.weight.copy_(ours.weight[k].T)
                layer.bias.copy_(ours.bias[k, 0])
        device = net.w_head.device
        return copy.deepcopy(utilities).to(device), mixer.to(device)

    def update(self, batch: Episodes) -> tuple[Tensor, Tensor, Tensor]:
        """One step of everything."""
        b, steps, n, _ = batch.obs.shape
        mask, count = batch.valid.float(), batch.valid.sum()
        one_hot = functional.one_hot(batch.actions, self.spec.n_actions).float()
        last = torch.cat([torch.zeros_like(one_hot[:, :1]), one_hot[:, :-1]], dim=1)
        ids = torch.eye(n, device=batch.obs.device).expand(b, steps, n, n)
        seen = torch.cat([batch.obs, ids], dim=-1)
        inputs = torch.cat([batch.obs, last, ids], dim=-1).transpose(1, 2).flatten(0, 1)
        logits = self.agent.run(inputs).view(b, n, steps, -1).transpose(1, 2)  # [B, T+1, n, A]
        pi = torch.softmax(logits, dim=-1)
        pi = ((1 - self.epsilon) * pi + self.epsilon / pi.shape[-1]) * batch.avail
        pi = pi / pi.sum(-1, keepdim=True).clamp(min=1e-10)
        entropy = -(pi * (pi + 1e-10).log()).sum(-1)  # [B, T+1, n]
        held, alpha = pi.detach(), self.log_alpha.detach().exp()
        with torch.no_grad():
            value = {
                name: torch.minimum(*(mixer((held * net(seen)).sum(-1), batch.state) for net, mixer in members))
                for name, members in self.targets.items()
            }
            y = self._targets(batch, value["reward"].squeeze(-1), value["entropy"], entropy.detach())
        losses = []
        for name, members in self.critics.items():
            loss = torch.zeros((), device=mask.device)
            for net, mixer in members:
                taken = net(seen[:, :-1]).gather(-1, batch.actions[:, :-1].unsqueeze(-1)).squeeze(-1)
                error = (mixer(taken, batch.state[:, :-1]) - y[name]) * mask.unsqueeze(-1)
                loss = loss + error.square().sum() / count
            self._step(name, loss)
            losses.append(loss.detach())

        def lower(name: str) -> tuple[Tensor, Tensor]:
            """The lower of both team values, and of the reward the derivative by the agents' values."""
            values, slopes = [], []
            for net, mixer in self.critics[name]:
                with torch.no_grad():
                    q = net(seen[:, :-1])
                utility = (pi[:, :-1] * q).sum(-1)
                total = mixer(utility, batch.state[:, :-1])
                values.append(total)
                if name == "reward":
                    slopes.append(torch.autograd.grad(total.sum(), utility, retain_graph=True)[0])
            slope = torch.where(values[0] <= values[1], *slopes) if slopes else mask
            return torch.minimum(*values), slope

        total, slope = lower("reward")
        gain = total.squeeze(-1) + (alpha * (lower("entropy")[0] + entropy[:, :-1])).sum(-1)
        policy_loss = -(gain * mask).sum() / count
        scaled = slope / (self.config.share_scale * slope.abs().amax(-1, keepdim=True) + 1e-5)
        share = (torch.softmax(-scaled, dim=-1) * mask.unsqueeze(-1)).sum((0, 1)) / count
        self.shares = self.config.ema * self.shares + (1 - self.config.ema) * share
        self._step("agent", policy_loss)
        active = (batch.avail[:, :-1].sum(-1) > 1).float() * mask.unsqueeze(-1)
        excess = ((entropy[:, :-1].detach() - self.shares * self.total) * active).sum((0, 1))
        self.alpha_optimizer.zero_grad()
        (self.log_alpha.exp() * excess / active.sum((0, 1)).clamp(min=1)).sum().backward()
        self.alpha_optimizer.step()
        return losses[0], losses[1], policy_loss.detach()

    def _step(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters[name], self.config.grad_norm_clip)
        self.optimizers[name].step()

    def _targets(self, batch: Episodes, value: Tensor, ahead: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        gamma, lam = self.config.gamma, self.config.td_lambda
        follows = gamma * (1 - batch.terminated.float())  # [B, T]
        reward, rest = value[:, -1], ahead[:, -1]
        results: list[tuple[Tensor, Tensor]] = []
        for t in range(batch.reward.shape[1] - 1, -1, -1):
            f = follows[:, t]
            reward = batch.reward[:, t] + f * ((1 - lam) * value[:, t + 1] + lam * reward)
            rest = f.unsqueeze(-1) * (entropy[:, t + 1] + (1 - lam) * ahead[:, t + 1] + lam * rest)
            results.append((reward, rest))
        rewards, entropies = (torch.stack(each[::-1], dim=1) for each in zip(*results, strict=True))
        return {"reward": rewards.unsqueeze(-1), "entropy": entropies}
