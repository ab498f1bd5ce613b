"""MAPPO and IPPO, and PERLA upon them: one learner.

============  ============  =======  ===========================================================================
method        critic_input  samples  source
============  ============  =======  ===========================================================================
MAPPO         state         0        Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative
                                     Multi-Agent Games"; as in EPyMARL or in on-policy, by recipe
IPPO          obs           0        de Witt et al. 2020, "Is Independent Learning All You Need in the StarCraft
                                     Multi-Agent Challenge?"; the same
PERLA_MAPPO   state         K        Jafferjee et al., "Semi-Centralised Multi-Agent Reinforcement Learning with
PERLA_IPPO    obs           K        Policy-Embedded Training"; numbers of equations and of lines of algorithm 1
                                     below are this paper's
============  ============  =======  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from emix import ops
from emix._precision import Precision
from emix.data import Box, EnvSpec, Episodes
from emix.errors import UsageError
from emix.learners.learner import BaseLearner, EpisodeData
from emix.learners.loop import Loop, run_loop
from emix.learners.normalise import CumulativeNorm
from emix.learners.parts import Part, Parts
from emix.learners.ppo_actor import ActorNetworks, PPOActor
from emix.learners.ppo_config import PPOConfig
from emix.learners.ppo_critic import Critic, make_optimiser
from emix.learners.ppo_loss import clipped_objective, normalised_advantage, value_loss
from emix.learners.seeded import seeded

Rows = dict[str, Tensor]

# What is measured at each optimiser step.
_CRITIC = ("loss", "critic_grad_norm", "td_error_abs", "value_mean", "target_mean")
_MEASURED = (*_CRITIC, "actor_loss", "actor_grad_norm", "entropy", "clip_fraction", "kl")


class PPO(BaseLearner):
    """Clipped policy gradients by a critic of the state, or by PERLA's, averaged over what the others may do.

    ``update`` reads fixed-shape tensors and never waits for the device, nor does ``act``: CUDA graphs can capture both.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where networks and batches live.
        seed: of the initial weights and of all draws; torch's global random state is neither used nor changed.
        precision: of the GRUs' matrix products on CUDA.

    Raises:
        UsageError: a q critic in an environment of continuous actions.
    """

    capturable = True

    def __init__(
        self,
        config: PPOConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        if config.critic == "q" and isinstance(spec.action, Box):
            raise UsageError(
                f"critic q expects discrete actions, over each of which it takes the policy's mean, {spec.name} has "
                f"{spec.action}: choose critic v"
            )
        self.config, self.spec, self.plan = config, spec, config.plan
        self.device = torch.device(device)
        with seeded(seed):
            self.networks = ActorNetworks(config, spec, precision).to(self.device)  # theta
            self.critic = Critic(config, spec, self.device, precision)
            acting, testing, learning = torch.randint(2**63 - 1, (3,)).tolist()
        self.optimiser = make_optimiser(config, self.networks, config.lr)
        self.actor = PPOActor(self.networks, config, spec, self.device, seeds=(acting, testing))
        self.generator = torch.Generator(self.device).manual_seed(learning)  # of joint actions, minibatches, entropies
        self.rewards = CumulativeNorm().to(self.device) if config.standardise_rewards else None
        optional: dict[str, Part | None] = {
            "target": self.critic.target,
            "value_norm": self.critic.norm,
            "rewards": self.rewards,
        }
        self.parts = Parts(
            networks=self.networks,
            critic=self.critic.network,
            optimiser=self.optimiser,
            critic_optimiser=self.critic.optimiser,
            generator=self.generator,
            acting_generator=self.actor.generator,
            test_generator=self.actor.test_generator,
            **{name: part for name, part in optional.items() if part is not None},
        )

    def draw(self, data: EpisodeData) -> Episodes:
        """The next fresh episodes.

        Raises:
            UsageError: joint actions are to be sampled, and an agent has no available action.
        """
        batch = super().draw(data)
        if self.config.samples and batch.avail is not None:
            lost = (~batch.avail[:, :-1].any(-1) & batch.valid.unsqueeze(-1)).nonzero()  # [.., 3]
            if len(lost):  # this waits for the device: here, not in what is captured
                episode, step, agent = lost[0].tolist()
                raise UsageError(
                    f"samples={self.config.samples}: agent {agent} of {self.spec.name} has no available action at step "
                    f"{step} of an episode (number {episode} of its batch), so that none can be sampled for the "
                    f"others' critics: expected at least one, such as a no-op; train with samples 0"
                )
        return batch

    def update(self, batch: Episodes, *, loop: Loop = run_loop) -> dict[str, Tensor]:
        """``epochs`` times through the batch, each minibatch a step of critic and actors (algorithm 1, lines 3 to 10).

        Args:
            batch: B fresh episodes.
            loop: runs the epochs; what captures an update records one of them.

        Returns:
            0-dim tensors on the device, means over the optimiser steps. The critic's: ``loss``, ``critic_grad_norm``
            (before clipping), ``td_error_abs`` (of Vbar_i), ``value_mean``, ``target_mean``, in the critic's scale. The
            actors': ``actor_loss``, ``actor_grad_norm``, ``entropy``, ``clip_fraction`` and ``kl``, an estimate of the
            divergence from the policies that acted.
        """
        reward = batch.reward
        if self.rewards is not None:
            self.rewards.update(reward, batch.valid, self.optimiser.group)
            reward = self.rewards.normalise(reward)
        make_rows = partial(self._rows, batch, reward, self._outputs(batch))
        rows = None if self.config.resample else make_rows()
        totals = torch.zeros(len(_MEASURED), dtype=torch.float32, device=self.device)

        def epoch() -> None:
            for part in self._minibatches(rows or make_rows()):
                measured = self._learn(part)
                totals.add_(torch.stack([measured[name] for name in _MEASURED]))

        loop(epoch, self.config.epochs)
        self.critic.follow()
        return dict(zip(_MEASURED, totals / (self.config.epochs * self.config.minibatches), strict=True))

    @torch.no_grad()
    def _outputs(self, batch: Episodes) -> Tensor | None:
        """What PERLA's samples are drawn from: the policies that acted, at every state ``[B, T+1, n, outputs]``."""
        return self.networks(batch.obs)[0] if self.config.samples else None

    @torch.no_grad()
    def _rows(self, batch: Episodes, reward: Tensor, outputs: Tensor | None) -> Rows:
        """All that the steps are learned from, ``[B, T, ...]`` each, targets among it."""
        config, critic = self.config, self.critic
        states = {"seen": critic.sees(batch)} | self._samples(batch, outputs)  # [B, T+1, ...]
        valid = batch.valid.unsqueeze(-1).expand(-1, -1, self.spec.n_agents)  # [B, T, n]
        rows = {name: value[:, :-1] for name, value in (states | dict(batch.record.items())).items()}
        rows |= {"obs": batch.obs[:, :-1], "actions": batch.actions[:, :-1], "valid": valid, "counts": valid}
        if batch.avail is not None:
            rows["avail"] = batch.avail[:, :-1]
            if config.active_only:
                rows["counts"] = valid & (rows["avail"].sum(-1) > 1)
        ended = batch.terminated if config.bootstrap_truncated else batch.terminated | batch.truncated
        ends: dict[str, Any] = {"truncated": batch.truncated, "valid": batch.valid, "gamma": config.gamma}
        if config.value_clip:
            rows["old_value"] = critic.estimate(rows).fitted
        value = critic.values(states, target=config.returns == "n_step")  # [B, T+1, n]
        if config.returns == "n_step":
            return rows | {"y": ops.n_step_returns(reward, ended, value, n=config.n_step, **ends)}
        advantage = ops.gae(reward, ended, value, lam=config.gae_lambda, **ends)  # [B, T, n]
        y = advantage + value[:, :-1]
        action_value = critic.estimate(rows).action_value if config.critic == "q" else None
        if action_value is not None:
            advantage = self._raw(action_value) - value[:, :-1]
        if config.normalise_advantage:
            advantage = normalised_advantage(advantage, rows["counts"], self.optimiser.group)
        return rows | {"y": y, "advantage": advantage}

    def _samples(self, batch: Episodes, outputs: Tensor | None) -> Rows:
        """K joint actions at every state (algorithm 1, line 5), one draw for all agents: agent i leaves out its own.
        ``joint`` ``[B, T+1, n, K]`` or ``[B, T+1, n, D, K]``, and for a q critic ``pi``."""
        config = self.config
        if outputs is None:
            return {}
        joint = self.networks.policy.sample(outputs, batch.avail, config.samples, self.generator)
        pi = {"pi": ops.masked_policy(outputs, batch.avail)} if config.critic == "q" else {}
        return {"joint": joint.movedim(0, -1)} | pi

    def _minibatches(self, rows: Rows) -> Iterator[Rows]:
        """Parts of the rows in random order: of episodes, or, where no network has a GRU, of single steps."""
        if self.config.minibatches == 1:
            yield rows
            return
        if "gru" not in (self.config.network, self.config.critic_network):
            rows = {name: value.flatten(0, 1).unsqueeze(1) for name, value in rows.items()}  # [B T, 1, ...]
        count = len(rows["valid"])
        order = torch.rand(count, generator=self.generator, dtype=torch.float32, device=self.device).argsort()
        for part in order.tensor_split(self.config.minibatches):
            yield {name: value.index_select(0, part) for name, value in rows.items()}

    def _learn(self, rows: Rows) -> dict[str, Tensor]:
        """A step of the critic, and one of the actors by the critic as it was."""
        config, valid, norm = self.config, rows["valid"], self.critic.norm
        y = rows["y"]
        if norm is not None:
            norm.update(y, valid, self.optimiser.group)
            y = norm.normalise(y)
        estimate = self.critic.estimate(rows)
        advantage = rows.get("advantage")
        if advantage is None:
            advantage = (y if estimate.action_value is None else estimate.action_value) - estimate.value
            if config.normalise_advantage:
                advantage = normalised_advantage(advantage, rows["counts"], self.optimiser.group)
        metrics = self._learn_critic(estimate.fitted, y, rows) | self._learn_actors(advantage, rows)
        means = {"td_error_abs": (y - estimate.value).abs(), "value_mean": estimate.value, "target_mean": y}
        return metrics | {name: self.optimiser.mean(value, valid) for name, value in means.items()}

    def _learn_critic(self, fitted: Tensor, y: Tensor, rows: Rows) -> dict[str, Tensor]:
        """Line 9: down the error of what the critic says, ``[R, T, n]``."""
        config = self.config
        losses = value_loss(
            fitted, y, huber_delta=config.huber_delta, old_value=rows.get("old_value"), clip=config.clip
        )
        loss = self.critic.optimiser.mean(losses, rows["valid"])
        return {"loss": loss.detach(), "critic_grad_norm": self.critic.optimiser.descend(loss)}

    def _learn_actors(self, advantage: Tensor, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Line 10: up the clipped objective and the entropy."""
        policy, counts, mean = self.networks.policy, rows["counts"], self.optimiser.mean
        outputs, _ = self.networks(rows["obs"])
        noise = policy.noise(tuple(counts.shape), self.generator)
        log_prob, entropies = policy.terms(outputs, rows["actions"], rows.get("avail"), rows, noise)
        surrogate = clipped_objective(log_prob, rows["log_prob"], advantage, self.config.clip)
        entropy = mean(entropies, counts)
        loss = -mean(surrogate.objective, counts) - self.config.entropy * entropy
        norm = self.optimiser.descend(loss)
        return {
            "actor_loss": loss.detach(),
            "actor_grad_norm": norm,
            "entropy": entropy.detach(),
            "clip_fraction": mean(surrogate.clipped.float(), counts),
            "kl": mean(surrogate.kl, counts),
        }

    def _raw(self, value: Tensor) -> Tensor:
        """A value of the critic's in the rewards' scale."""
        return value if self.critic.norm is None else self.critic.norm.denormalise(value)
