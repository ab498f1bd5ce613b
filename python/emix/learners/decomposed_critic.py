"""The decomposed critic of DOP and Ensemble-MIX: its targets, its loss, and its update.

The numbers of equations and algorithms are those of the paper that ``emix.learners.ensemble_mix`` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from emix import ops
from emix.data import EnvSpec, Episodes
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.loop import Loop, run_loop
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Target
from emix.learners.shared import masked_mean, pick
from emix.nn.critic import EnsembleCritic
from emix.nn.mixer import LinearMixer


class CriticNetworks(nn.Module):
    """phi: the members and the mixer."""

    def __init__(self, config: EnsembleMixConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.critic = EnsembleCritic(
            config.members, spec.state_dim, spec.obs_dim, spec.n_actions, spec.n_agents, config.critic_dim
        )
        self.mixer = LinearMixer(spec.n_agents, spec.state_dim, config.mixing_embed_dim, bias=config.mixer_bias)


class Steps(NamedTuple):
    """What an optimiser step of the critics learns from: R time steps, of any episodes."""

    state: Tensor  # [R, S]
    obs: Tensor  # [R, n, O]
    avail: Tensor  # [R, n, A]
    actions: Tensor  # [R, n]
    valid: Tensor  # [R]; all are where padding is skipped
    on: Tensor  # [R], whether on policy
    y: Tensor  # [R], the target


class DecomposedCritic:
    """Q_tot = sum_i m_i(s) Q_i(s, o_i, a_i), each Q_i the mean of N members, all learned from one loss on Q_tot.

    Args:
        config: hyperparameters.
        spec: sizes of the environment.
        device: where the networks live; their initial weights are drawn from torch's global generator of the CPU.
    """

    def __init__(self, config: EnsembleMixConfig, spec: EnvSpec, device: torch.device) -> None:
        self.config = config
        self.spec = spec
        self.device = device
        self.networks = CriticNetworks(config, spec).to(device)  # phi
        self.target = Target(self.networks, every=config.target_update_interval)  # phi', by time steps learned from
        self.optimiser = make_optimiser(config, self.networks, config.critic_lr)
        # A GPU runs through the padding: it would have to wait for it to be counted. A CPU spends half its time there.
        self.skips_padding = device.type == "cpu"
        # What is measured at each optimiser step.
        diversity = ["diversity"] if config.c2 > 0 else []
        self.measured = ["td_error_abs", "q_taken_mean", "target_mean", *diversity, "loss", "critic_grad_norm"]

    def members(self, state: Tensor, obs: Tensor) -> Tensor:
        """Every member's value of every action: state ``[..., S]``, obs ``[..., n, O]`` -> ``[N, ..., n, A]``."""
        return self.networks.critic(state, obs)

    @torch.no_grad()
    def agents_values(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Q_i of eq. 9 ``[B, T, n, A]`` and the mixer's m_i ``[B, T, n]`` at every step but the last observation."""
        state, obs = episodes.state[:, :-1], episodes.obs[:, :-1]
        q = self._values(self.networks.critic, state, obs, episodes.valid).mean(0)
        return q, self.networks.mixer.weights(state)[0]

    def update(
        self, rows: Episodes, count: int, off_pi: Tensor, on_pi: Tensor | None, loop: Loop = run_loop
    ) -> dict[str, Tensor]:
        """Algorithm 2's critics: all targets first, then an optimiser step for each time step, or one for all of them.

        Args:
            rows: ``count`` on-policy episodes, then the off-policy ones; B in all, of as many steps T in all processes.
            count: see rows.
            off_pi: the present policies in the off-policy ones, ``[B - count, T+1, n, A]``.
            on_pi: in the on-policy ones, where ``on_target`` is Retrace's.
            loop: runs the optimiser's steps.

        Returns:
            See ``EnsembleMix.update``.
        """
        y, metrics = self._make_targets(rows, count, off_pi, on_pi)
        # All steps of the longest episode of any process, from the first one on; what all of them follow alike.
        real = self.optimiser.everywhere(rows.valid.sum(0)) > 0  # [T]
        steps_at, times = self._steps(rows, count, y), self._times(real)
        # A counter on the device: a step that was recorded once finds there which one it is.
        t = torch.zeros(1, dtype=torch.int64, device=self.device)
        numbers = torch.arange(times, device=self.device)
        results = y.new_zeros(len(self.measured), times)

        def learn() -> None:
            loss, result = self._loss(steps_at(t))
            if times == 1 or self.skips_padding:
                norm = self.optimiser.descend(loss)
            else:
                norm = self.optimiser.descend_where(real.index_select(0, t).squeeze(0), loss)
            result |= {"loss": loss.detach(), "critic_grad_norm": norm}
            column = torch.stack([result[name] for name in self.measured]).unsqueeze(-1)
            torch.where(numbers == t, column, results, out=results)
            t.add_(1)

        loop(learn, times)
        self.target.follow(real.sum())
        # Which of the optimiser's steps were of real time steps of this process.
        learned = rows.valid.any(0)[:times]
        return metrics | {
            name: masked_mean(result, learned) for name, result in zip(self.measured, results, strict=True)
        }

    @torch.no_grad()
    def _make_targets(
        self, rows: Episodes, count: int, off_pi: Tensor, on_pi: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """y ``[B, T]`` of the on-policy episodes, then of the off-policy ones, by the target networks."""
        config = self.config
        scale = config.c1 if config.c1 > 0 else None
        real = nn.functional.pad(rows.valid, (1, 0), value=True)  # [B, T+1]: up to the last observation
        q = self._values(self.target.module.critic, rows.state, rows.obs, real)  # [N, B, T+1, n, A]
        m, b = self.target.module.mixer.weights(rows.state)  # [B, T+1, n], [B, T+1] or None

        def inputs(part: slice) -> dict[str, Any]:
            mixer = {"weight": m[part], "bias": None if b is None else b[part]}
            return self._ends(rows[part]) | mixer | {"q": q[:, part], "actions": rows.actions[part]}

        on, off = inputs(slice(count)), inputs(slice(count, None))
        if on_pi is None:  # eq. 3, with eq. 10 for the next value
            y_on = ops.td_lambda_target(**on, lam=config.td_lambda, uncertainty_scale=scale)
        else:
            y_on = self._retrace(**on, pi=on_pi, mu=rows.record["probability"][:count], scale=scale)
        y_off = ops.tree_backup_target(  # eq. 2, with eq. 10 for the next value
            **off, pi=off_pi, lam=config.tb_lambda, horizon=config.tb_steps, uncertainty_scale=scale
        )
        metrics = {}
        if scale is not None:
            weight = ops.uncertainty_weight(_taken(q, rows.actions)[:, :, :-1], scale)  # [B, T, n], eq. 11
            metrics["uncertainty_weight_mean"] = masked_mean(weight.mean(-1), rows.valid)
        return torch.cat([y_on, y_off]), metrics

    def _retrace(
        self,
        *,
        q: Tensor,
        actions: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pi: Tensor,
        mu: Tensor,
        scale: float | None,
        **ends: Any,
    ) -> Tensor:
        """Retrace(lambda) in place of eq. 3, ``[B, T]``; mu ``[B, T+1, n]``: of the policies that acted."""
        mean = q.mean(0)  # [B, T+1, n, A], eq. 9
        k = None if scale is None else ops.uncertainty_weight(q, scale)  # [B, T+1, n, A], eq. 11
        log_ratio = pick(pi, actions).log().sum(-1) - mu.log().sum(-1)  # [B, T+1]; NaN on padding
        return ops.retrace_returns(
            **ends,
            q=ops.linear_mix(pick(mean, actions), weight, bias),
            v=ops.expected_linear_mix(mean, pi, weight, bias, k),
            ratio=log_ratio.exp(),
            lam=self.config.td_lambda,
        )

    def _ends(self, episodes: Episodes) -> dict[str, Any]:
        """What every target needs of the episodes."""
        ended = episodes.terminated if self.config.bootstrap_truncated else episodes.terminated | episodes.truncated
        return {
            "reward": episodes.reward,
            "terminated": ended,
            "truncated": episodes.truncated,
            "valid": episodes.valid,
            "gamma": self.config.gamma,
        }

    def _times(self, real: Tensor) -> int:
        """How many steps the optimiser takes, the same in all processes; real ``[T]``."""
        if self.config.critic_update != "per_step":
            return 1
        return int(real.sum()) if self.skips_padding else len(real)

    def _steps(self, rows: Episodes, count: int, y: Tensor) -> Callable[[Tensor], Steps]:
        """Time step t ``[1]`` of all episodes, or all of them at once; y ``[B, T]``."""
        per_step = self.config.critic_update == "per_step"
        on = (torch.arange(len(rows), device=self.device) < count).unsqueeze(-1).expand_as(y)  # [B, T]
        fields = (rows.state, rows.obs, cast("Tensor", rows.avail), rows.actions, rows.valid, on, y)
        if self.skips_padding:
            time, episode = rows.valid.t().nonzero(as_tuple=True)  # [R] each, in the order of time
            sizes = rows.valid.sum(0) if per_step else rows.valid.sum().unsqueeze(0)
            own = [*sizes[sizes > 0].tolist(), 0]  # the last one, of nothing, is for where another process has more
            parts = [field[episode, time].split(own) for field in fields]
            return lambda t: Steps(*(part[min(int(t), len(own) - 1)] for part in parts))
        if per_step:
            return lambda t: Steps(*(field.index_select(1, t).squeeze(1) for field in fields))
        return lambda t: Steps(*(field[:, : y.shape[1]].flatten(0, 1) for field in fields))

    def _loss(self, steps: Steps) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 16."""
        config = self.config
        state, obs, avail, actions, valid, on, y = steps
        q = self.members(state, obs)  # [N, R, n, A]
        q_taken = _taken(q, actions).mean(0)  # [R, n], eq. 9
        q_tot = self.networks.mixer(q_taken, state)  # [R], eq. 10 without k, which weighs next values only
        error = torch.where(valid, y - q_tot, 0.0)
        if config.c is None:
            loss = self.optimiser.mean(error.square(), valid)
        else:  # eq. 1
            on_loss = self.optimiser.mean(error.square(), valid & on)
            off_loss = self.optimiser.mean(error.square(), valid & ~on)
            loss = config.c * on_loss + (1 - config.c) * off_loss
        metrics = {
            "td_error_abs": masked_mean(error.detach().abs(), valid),
            "q_taken_mean": masked_mean(q_tot.detach(), valid),
            "target_mean": masked_mean(y, valid),
        }
        if config.c2 > 0:
            distance = ops.bhattacharyya(q, avail)  # [R, n], eq. 15
            diversity = self.optimiser.mean(distance.sum(-1), valid)
            gain = config.c2 * diversity
            loss = loss - (gain if config.diversity_limit is None else gain.clamp(max=config.diversity_limit))  # eq. 16
            metrics["diversity"] = diversity.detach()
        return loss, metrics

    def _values(self, critic: nn.Module, state: Tensor, obs: Tensor, real: Tensor) -> Tensor:
        """Every member's values ``[N, B, T, n, A]`` where ``real`` [B, T], without gradient."""
        if not self.skips_padding:
            return critic(state, obs)
        some = critic(state[real], obs[real])  # [N, R, n, A]
        q = some.new_zeros(len(some), *real.shape, *some.shape[2:])
        q[:, real] = some
        return q


def make_optimiser(config: EnsembleMixConfig, networks: nn.Module, lr: float) -> Optimiser:
    """The optimiser that ``config`` names, with its clipping."""
    options: dict[str, Any] = (
        {"alpha": config.rms_alpha, "eps": config.rms_eps} if config.optimizer == "rmsprop" else {}
    )
    return Optimiser(networks, config.optimizer, lr=lr, clip=config.grad_norm_clip, **options)


def _taken(q: Tensor, actions: Tensor) -> Tensor:
    """The members' values of the actions taken: ``[N, ..., A], [...] -> [N, ...]``."""
    return pick(q, actions.expand(len(q), *actions.shape))
