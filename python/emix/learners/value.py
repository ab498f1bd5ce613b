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

from functools import partial

import torch
from torch import Tensor, nn

from emix import ops
from emix._precision import Precision
from emix.data import EnvSpec, Episodes, require_discrete
from emix.learners.learner import BaseLearner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Schedule, Target
from emix.learners.recurrent_actors import EpsilonGreedyActor
from emix.learners.seeded import seeded
from emix.learners.shared import greedy, in_rows, pick, previous_actions
from emix.learners.value_config import ValueConfig
from emix.nn.agent import RecurrentAgent
from emix.nn.mixer import IndependentMixer, MonotonicMixer, SumMixer


class ValueLearner(BaseLearner):
    """Learns Q_tot(s, a) from replayed episodes; each agent acts on its own Q_i (section IV).

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of exploration; torch's global random state is neither used nor changed.
        precision: of the agent networks' matrix products on CUDA, live and target.
    """

    capturable = True

    def __init__(
        self,
        config: ValueConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        require_discrete(spec, "the value learner")
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            networks = nn.ModuleDict(
                {"agent": _make_agent(config, spec, precision), "mixer": _make_mixer(config, spec)}
            )
            exploration_seed = int(torch.randint(2**63 - 1, ()))
        self.networks = networks.to(self.device)  # theta
        self.targets = Target(self.networks, every=config.target_update_episodes)  # theta^-
        self.optimiser = Optimiser(
            self.networks,
            "rmsprop",
            lr=config.lr,
            alpha=config.rms_alpha,
            eps=config.rms_eps,
            clip=config.grad_norm_clip,
        )
        self.epsilon = Schedule(
            config.epsilon_start, config.epsilon_finish, config.epsilon_anneal_time, device=self.device
        )
        generator = torch.Generator(self.device).manual_seed(exploration_seed)
        self.actor = EpsilonGreedyActor(self.networks["agent"], self.epsilon, generator, spec, config.hidden_dim)
        self.parts = Parts(
            networks=self.networks,
            targets=self.targets,
            optimiser=self.optimiser,
            epsilon=self.epsilon,
            generator=generator,
        )

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """One gradient step on B episodes (Algorithm 1, lines 13 and 14).

        Returns:
            ``loss``, ``grad_norm`` (before clipping), and over the valid steps ``td_error_abs``, ``q_taken_mean`` and
            ``target_mean``: 0-dim tensors on the device.
        """
        # R steps; without a mixer q_tot and y are [R, n].
        q_tot, y, valid = in_rows(self._steps(part) for part in batch.by_length())
        valid = valid if q_tot.dim() == 1 else valid.unsqueeze(-1).expand_as(q_tot)
        count = valid.sum().clamp(min=1)
        error = torch.where(valid, y - q_tot, 0.0)
        loss_sum = error.square().sum()  # eq. 11, below as a mean over the valid steps

        grad_norm = self.optimiser.descend(loss_sum, count)
        with torch.no_grad():
            return {
                "loss": loss_sum / count,
                "grad_norm": grad_norm,
                "td_error_abs": error.abs().sum() / count,
                "q_taken_mean": torch.where(valid, q_tot, 0.0).sum() / count,
                "target_mean": torch.where(valid, y, 0.0).sum() / count,
            }

    def _steps(self, batch: Episodes) -> tuple[Tensor, Tensor, Tensor]:
        """Q_tot of what was done and its target y, ``[B, T]``, or ``[B, T, n]`` without a mixer; which are valid."""
        last_actions = previous_actions(batch.actions, self.spec)  # [B, T+1, n]
        q, _ = self.networks["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        q_taken = pick(q, batch.actions)[:, :-1]  # [B, T, n]
        q_tot = self.networks["mixer"](q_taken, batch.state[:, :-1])  # [B, T], or [B, T, n] without a mixer
        return q_tot, self._target(batch, last_actions, q.detach()), batch.valid

    @torch.no_grad()
    def _target(self, batch: Episodes, last_actions: Tensor, q: Tensor) -> Tensor:
        """y of every step, ``[B, T]`` or ``[B, T, n]``, by the targets; q ``[B, T+1, n, A]`` is the live network's."""
        config = self.config
        # The max target evaluates the live network's greedy actions (double Q-learning). The others evaluate the
        # actions that were taken: a sample of eq. 9's expectation, off-policy without correction.
        actions = greedy(q, batch.avail) if config.target == "max" else batch.actions  # [B, T+1, n]
        target_q, _ = self.targets.module["agent"](batch.obs, last_actions)  # [B, T+1, n, A]
        value = self.targets.module["mixer"](
            pick(target_q, actions), batch.state
        )  # [B, T+1], or [B, T+1, n] without a mixer
        if config.target == "lambda":  # eq. 9
            returns = partial(ops.lambda_returns, lam=config.td_lambda)
        else:
            returns = partial(ops.n_step_returns, n=config.n_step if config.target == "n_step" else 1)
        terminated = batch.terminated if config.bootstrap_truncated else batch.terminated | batch.truncated  # [B, T]
        return returns(
            batch.reward, terminated, value, gamma=config.gamma, truncated=batch.truncated, valid=batch.valid
        )

    def advance(self, env_steps: int, episodes: int) -> None:
        """Count what was just played for training: epsilon falls, and the targets are renewed when due (line 15).

        Args:
            env_steps: environment steps since the last call, over all environments.
            episodes: episodes since the last call.
        """
        self.epsilon.advance(env_steps)
        self.targets.follow(episodes)


def _make_agent(config: ValueConfig, spec: EnvSpec, precision: Precision) -> nn.Module:
    return RecurrentAgent(spec.obs_dim, spec.n_actions, spec.n_agents, config.hidden_dim, precision=precision)


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
        positive_weights=config.positive_weights,
    )
