"""IQL, VDN, QMIX and SMIX(lambda): one value learner, a mixer times a target.

============  =====  ===========  ==========================================================================
method        mixer  target       source
============  =====  ===========  ==========================================================================
SMIX(lambda)  qmix   lambda       Yao et al., "SMIX(lambda): Enhancing Centralized Value Functions for
                                  Cooperative Multi-Agent Reinforcement Learning"; the numbers of equations,
                                  sections and lines of Algorithm 1 below are this paper's
SMIX(n)       qmix   n_step       the same, section VI-F
QMIX          qmix   max          Rashid et al. 2018, as in oxwhirl/pymarl
VDN, VDN-R    vdn    max, lambda  Sunehag et al. 2018; with SMIX's target
IQL, IQL-R    none   max, lambda  Tan 1993, as in oxwhirl/pymarl; with SMIX's target
============  =====  ===========  ==========================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from emix import ops
from emix.errors import UsageError
from emix.learners.episodes import Episodes
from emix.nn.agent import RecurrentAgent
from emix.nn.mixer import IndependentMixer, MonotonicMixer, SumMixer

if TYPE_CHECKING:
    from emix.envs.core import EnvSpec, Step

Mixer = Literal["none", "vdn", "qmix"]
Target = Literal["max", "lambda", "n_step"]

_CHOICES = {"mixer": get_args(Mixer), "target": get_args(Target), "hypernet_layers": (1, 2)}
_FRACTIONS = {"td_lambda", "gamma", "rms_alpha", "epsilon_start", "epsilon_finish"}


@dataclass(frozen=True)
class ValueConfig:
    """Hyperparameters; the defaults are SMIX(lambda)'s on SMAC.

    Sources: [P] the paper, section VI-B; [C] its code, chaovven/SMIX@69a0867.
    """

    mixer: Mixer = "qmix"
    """How Q_tot is made of the agents' values: "none" (IQL), "vdn" (their sum), "qmix" (monotonic). [P]"""
    target: Target = "lambda"
    """"lambda": lambda-return of taken actions, eq. 9 [P]; "n_step": their n-step return; "max": double Q-learning."""
    td_lambda: float = 0.8
    """Weight of the longer returns in the target "lambda": 0 is one step, 1 Monte Carlo. [P]"""
    n_step: int = 4
    """Steps of the target "n_step": the paper's best on 3s5z (16 on 2s_vs_1sc). [P, Fig. 7]"""
    gamma: float = 0.99
    """Discount. [P]"""
    hidden_dim: int = 64
    """Units of the agent's first layer and of its GRU. [P]"""
    mixing_embed_dim: int = 32
    """Width of the monotonic mixer's hidden layer. [C]"""
    hypernet_layers: int = 1
    """1: the mixer's weights are linear in the state [C]; 2: through a hidden layer (PyMARL's QMIX now)."""
    hypernet_dim: int = 64
    """Units of that hidden layer. (PyMARL)"""
    mixer_init_scale: float = 1.0
    """The monotonic mixer's weights are multiplied by this at the start; 1 in [C], less where states are large."""
    lr: float = 5e-4
    """Learning rate of RMSprop. [P]"""
    rms_alpha: float = 0.99
    """Smoothing of RMSprop's mean square. [P]"""
    rms_eps: float = 1e-5
    """Added to the root of RMSprop's mean square. [C]"""
    grad_norm_clip: float = 10.0
    """The gradient's norm over all parameters is scaled down to this. [C]"""
    target_update_episodes: int = 200
    """The target networks become the live ones every so many training episodes. [P]"""
    epsilon_start: float = 1.0
    """Probability that an agent acts at random, at the start. [P]"""
    epsilon_finish: float = 0.05
    """The same at the end of the annealing and ever after. [P]"""
    epsilon_anneal_time: int = 50_000
    """Environment steps over which epsilon falls linearly. [P]"""

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value, default = field.name, getattr(self, field.name), getattr(ValueConfig, field.name)
            numbers = (int, float) if isinstance(default, float) else type(default)
            if isinstance(value, bool) or not isinstance(value, numbers):
                raise UsageError(f"{name}: expected a value like {default!r}, got {value!r}")
            if name in _CHOICES and value not in _CHOICES[name]:
                raise UsageError(f"{name}: expected one of {', '.join(map(str, _CHOICES[name]))}, got {value!r}")
            if name in _FRACTIONS and not 0 <= value <= 1:
                raise UsageError(f"{name}: expected a number from 0 to 1, got {value!r}")
            if not isinstance(default, str) and name not in _FRACTIONS and not value > 0:
                raise UsageError(f"{name}: expected a number above 0, got {value!r}")


class Memory(NamedTuple):
    """What agents carry from one step of an episode to the next, for E environments."""

    hidden: Tensor  # [E, n, H], the GRU's state
    last_actions: Tensor  # [E, n] int64; A before the first step


class ValueLearner:
    """Learns Q_tot(s, a) from replayed episodes; each agent acts on its own Q_i (section IV).

    ``update`` reads fixed-shape tensors and never waits for the device, so that it can be captured in a CUDA graph.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of exploration; torch's global random state is neither used nor changed.
    """

    def __init__(self, config: ValueConfig, spec: EnvSpec, *, device: torch.device | str, seed: int) -> None:
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            networks = nn.ModuleDict({"agent": _make_agent(config, spec), "mixer": _make_mixer(config, spec)})
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.networks = networks.to(self.device)  # theta
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)  # theta^-
        self.generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.optimizer = torch.optim.RMSprop(
            self.networks.parameters(),
            lr=config.lr,
            alpha=config.rms_alpha,
            eps=config.rms_eps,
            capturable=self.device.type == "cuda",
        )
        self.env_steps = 0
        self.episodes = 0
        self.target_updated_at = 0  # episodes

    @property
    def epsilon(self) -> float:
        """Probability that an agent acts at random while exploring."""
        config = self.config
        progress = min(1.0, self.env_steps / config.epsilon_anneal_time)
        return config.epsilon_start + progress * (config.epsilon_finish - config.epsilon_start)

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode in each of E environments."""
        n_agents, n_actions = self.spec.n_agents, self.spec.n_actions
        hidden = torch.zeros(num_envs, n_agents, self.config.hidden_dim, device=self.device)
        return Memory(hidden, torch.full((num_envs, n_agents), n_actions, device=self.device))

    @torch.no_grad()
    def act(self, step: Step, memory: Memory, *, explore: bool) -> tuple[Tensor, Memory]:
        """Choose every agent's action: epsilon-greedy while exploring (Algorithm 1, line 6), else greedy.

        Args:
            step: what E environments returned last.
            memory: what this method returned last, or ``initial_memory`` at the start of the environments' episodes.
            explore: draw from ``generator``; without it nothing random is used.

        Returns:
            Actions int64 ``[E, n]``, each available (0 where an agent has none), and the next memory.
        """
        q, hidden = self.networks["agent"](step.obs.unsqueeze(1), memory.last_actions.unsqueeze(1), memory.hidden)
        actions = _greedy(q.squeeze(1), step.avail)  # [E, n]
        if explore:
            scores = torch.rand(step.avail.shape, generator=self.generator, device=self.device)  # [E, n, A]
            coins = torch.rand(actions.shape, generator=self.generator, device=self.device)  # [E, n]
            actions = torch.where(coins < self.epsilon, _greedy(scores, step.avail), actions)
        return actions, Memory(hidden, actions)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One gradient step on B episodes (Algorithm 1, lines 13 and 14).

        Returns:
            ``loss``, ``grad_norm`` (before clipping), and over the valid steps ``td_error_abs``, ``q_taken_mean`` and
            ``target_mean``: 0-dim tensors on the device.
        """
        none_yet = torch.full_like(batch.actions[:, :1], self.spec.n_actions)
        last_actions = torch.cat([none_yet, batch.actions[:, :-1]], dim=1)  # [B, T+1, n]
        q, _ = self.networks["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        q_taken = _pick(q, batch.actions)[:, :-1]  # [B, T, n]
        q_tot = self.networks["mixer"](q_taken, batch.state[:, :-1])  # [B, T], or [B, T, n] without a mixer
        y = self._target(batch, last_actions, q.detach())  # as q_tot

        valid = batch.valid if q_tot.dim() == 2 else batch.valid.unsqueeze(-1).expand_as(q_tot)
        count = valid.sum().clamp(min=1)
        error = torch.where(valid, y - q_tot, 0.0)
        loss = error.square().sum() / count  # eq. 11, as a mean over the valid steps

        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.grad_norm_clip)
        self.optimizer.step()
        with torch.no_grad():
            return {
                "loss": loss.detach(),
                "grad_norm": grad_norm,
                "td_error_abs": error.abs().sum() / count,
                "q_taken_mean": torch.where(valid, q_tot, 0.0).sum() / count,
                "target_mean": torch.where(valid, y, 0.0).sum() / count,
            }

    @torch.no_grad()
    def _target(self, batch: Episodes, last_actions: Tensor, q: Tensor) -> Tensor:
        """y of every step, ``[B, T]`` or ``[B, T, n]``, by the targets; q ``[B, T+1, n, A]`` is the live network's."""
        config = self.config
        # The max target evaluates the live network's greedy actions (double Q-learning). The others evaluate the
        # actions that were taken: a sample of eq. 9's expectation, off-policy without correction.
        actions = _greedy(q, batch.avail) if config.target == "max" else batch.actions  # [B, T+1, n]
        target_q, _ = self.targets["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        value = self.targets["mixer"](_pick(target_q, actions), batch.state)  # [B, T+1], or [B, T+1, n] without a mixer
        if config.target == "lambda":  # eq. 9
            returns = partial(ops.lambda_returns, lam=config.td_lambda)
        else:
            returns = partial(ops.n_step_returns, n=config.n_step if config.target == "n_step" else 1)
        return returns(
            batch.reward, batch.terminated, value, gamma=config.gamma, truncated=batch.truncated, valid=batch.valid
        )

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: epsilon falls, and the targets are renewed when due (line 15).

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self.env_steps += env_steps
        self.episodes += episodes
        if self.episodes - self.target_updated_at >= self.config.target_update_episodes:
            self.targets.load_state_dict(self.networks.state_dict())  # copies into the tensors that a CUDA graph knows
            self.target_updated_at = self.episodes

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides what comes next, flat: after ``load_state_dict`` training goes on bit for bit.

        As in torch, the networks' tensors are the live ones: save or copy them before the next update.
        """
        state = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        state |= {f"targets.{name}": value for name, value in self.targets.state_dict().items()}
        for name, parameter in self.networks.named_parameters():
            state |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        state["counters"] = torch.tensor([self.env_steps, self.episodes, self.target_updated_at])
        state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a ``state_dict`` of a learner with the same config and environment.

        Raises:
            UsageError: a tensor is missing, unknown or of another shape; nothing is changed then.
        """
        own = self.state_dict()
        # A learner that was never updated has no optimiser state yet.
        wrong = [name for name in own.keys() ^ state.keys() if not name.startswith("optimizer.")]
        wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
        if wrong:
            raise UsageError(
                f"learner state: {min(wrong)} does not fit; expected the state of a learner with the same algorithm, "
                f"recipe and environment ({self.spec.name}), got another's; load the checkpoint with its own settings"
            )
        self.networks.load_state_dict(_section(state, "networks."))
        self.targets.load_state_dict(_section(state, "targets."))
        moments = [_section(state, f"optimizer.{name}.") for name, _ in self.networks.named_parameters()]
        self.optimizer.load_state_dict(
            {"state": dict(enumerate(moments)), "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        self.env_steps, self.episodes, self.target_updated_at = state["counters"].tolist()
        self.generator.set_state(state["generator"].cpu())


def _make_agent(config: ValueConfig, spec: EnvSpec) -> nn.Module:
    return RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim)


def _make_mixer(config: ValueConfig, spec: EnvSpec) -> nn.Module:
    if config.mixer == "none":
        return IndependentMixer()
    if config.mixer == "vdn":
        return SumMixer()
    return MonotonicMixer(
        spec.n_agents,
        spec.state_dim,
        embed_dim=config.mixing_embed_dim,
        hypernet_layers=config.hypernet_layers,
        hypernet_dim=config.hypernet_dim,
        init_scale=config.mixer_init_scale,
    )


def _greedy(scores: Tensor, avail: Tensor) -> Tensor:
    """The available action with the highest score, 0 where there is none: ``[..., A] -> [...]``."""
    return scores.masked_fill(~avail, -torch.inf).argmax(-1)


def _pick(q: Tensor, actions: Tensor) -> Tensor:
    """The values of the given actions: ``[..., A], [...] -> [...]``."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def _section(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies of the tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}
