"""Policies over the numbers that a network gives for each agent: categorical for ``Discrete``, Gaussian for ``Box``.

Both draw actions, say what an actor must record of them to be learned from later, give log-probability and entropy, and
draw K joint actions for PERLA's critic. ``outputs`` ``[..., n, O]`` are the network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from emix import ops
from emix.data import Box, Discrete, Field
from emix.learners.shared import greedy


class Drawn(NamedTuple):
    """What an actor does."""

    actions: Tensor  # [..., n], or [..., n, D]
    record: dict[str, Tensor]  # by the names of ``record``; its log_prob is [..., n]


class Terms(NamedTuple):
    """What losses take of a policy, ``[..., n]`` each, with a gradient."""

    log_prob: Tensor
    entropy: Tensor


class Categorical(nn.Module):
    """The softmax of the available actions' logits.

    Args:
        action: an agent's choices.
        n_agents: n.
    """

    def __init__(self, action: Discrete, n_agents: int) -> None:
        super().__init__()
        self.outputs = action.n
        self.record = (Field("log_prob", (n_agents,), "float32", "observation"),)

    def draw(self, outputs: Tensor, avail: Tensor | None, generator: torch.Generator | None) -> Drawn:
        """Drawn actions, or without a generator the likeliest; 0 where an agent has none."""
        if generator is None:
            actions = greedy(outputs, avail)
        else:
            actions = ops.sample_actions(outputs, avail, generator=generator)
        return Drawn(actions, {"log_prob": ops.policy_terms(outputs, actions, avail).log_prob})

    def terms(
        self, outputs: Tensor, actions: Tensor, avail: Tensor | None, record: Mapping[str, Tensor], noise: Tensor | None
    ) -> Terms:
        """Of the actions taken; log(1e-10) for one that was not available."""
        log_prob, entropy, _ = ops.policy_terms(outputs, actions, avail)
        return Terms(log_prob, entropy)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> None:
        """The entropy needs none."""

    def sample(self, outputs: Tensor, avail: Tensor | None, samples: int, generator: torch.Generator) -> Tensor:
        """K joint actions of every state: uint8 ``[K, ..., n]``."""
        return ops.sample_actions(outputs, avail, samples=samples, generator=generator)


class Gaussian(nn.Module):
    """u ~ N(outputs, diag exp(log_std)^2), and the action is u, put back into the box, or low + (high - low)
    (tanh(u) + 1) / 2.

    ``log_std`` is learned and the same in every state. What is recorded is u ("latent"), so that log-probabilities are
    those of what was drawn, however much of it was out of the box. Padding, where agents have fewer than D numbers, is
    in neither log-probabilities nor entropies. The gradient of log-probabilities with respect to u is that of a
    reparameterised draw.

    Args:
        action: the box.
        n_agents: n.
        squash: by tanh.
        log_std_init: at the start.
        share: whether all agents have one log_std.
    """

    def __init__(self, action: Box, n_agents: int, *, squash: bool, log_std_init: float, share: bool = True) -> None:
        super().__init__()
        self.action, self.outputs, self.squash = action, action.dim, squash
        size = (action.dim,) if share else (n_agents, action.dim)
        self.log_std = nn.Parameter(torch.full(size, float(log_std_init)))
        self.record = (
            Field("log_prob", (n_agents,), "float32", "observation"),
            Field("latent", (n_agents, action.dim), "float32", "observation"),
        )

    def draw(self, outputs: Tensor, avail: Tensor | None, generator: torch.Generator | None) -> Drawn:
        """Drawn actions, or without a generator those of the mean."""
        noise = None if generator is None else self.noise(tuple(outputs.shape[:-1]), generator)
        latent = self.latent(outputs, noise)
        return Drawn(self.to_action(latent), {"log_prob": self.log_prob(outputs, latent), "latent": latent})

    def latent(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """u = mean + deviation noise, with gradients to both: ``[..., n, D]``; the mean without noise."""
        return outputs if noise is None else outputs + self.log_std.exp() * noise

    def to_action(self, latent: Tensor) -> Tensor:
        """The action of u, ``[..., n, D]``."""
        if not self.squash:
            return self.action.nearest(latent)
        unit = (latent.tanh() + 1) / 2
        return self.action.nearest(self.action.low + (self.action.high - self.action.low) * unit)

    def log_prob(self, outputs: Tensor, latent: Tensor) -> Tensor:
        """log N(u; outputs, deviation), less log |d action / d u| where u is squashed: ``[..., n]``."""
        density = self._normal(outputs, latent).log_prob
        return density - self.action.without_padding(self._log_slope(latent)).sum(-1) if self.squash else density

    def terms(
        self, outputs: Tensor, actions: Tensor, avail: Tensor | None, record: Mapping[str, Tensor], noise: Tensor | None
    ) -> Terms:
        """Of the recorded u. The entropy is exact, or where u is squashed estimated by one reparameterised draw."""
        if self.squash:
            entropy = -self.log_prob(outputs, self.latent(outputs, noise))
            return Terms(self.log_prob(outputs, record["latent"]), entropy)
        return Terms(*self._normal(outputs, record["latent"]))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal numbers for the agents ``[..., n]``: ``[..., n, D]``."""
        return torch.randn(*shape, self.outputs, generator=generator, dtype=torch.float32, device=generator.device)

    def sample(self, outputs: Tensor, avail: Tensor | None, samples: int, generator: torch.Generator) -> Tensor:
        """K joint actions of every state, as the environment would take them: ``[K, ..., n, D]``."""
        noise = self.noise((samples, *outputs.shape[:-1]), generator)
        return self.to_action(self.latent(outputs, noise))

    def _normal(self, outputs: Tensor, latent: Tensor) -> ops.GaussianTerms:
        inputs = outputs, self.log_std.expand_as(outputs), latent
        if not self.action.sizes:
            return ops.gaussian_terms(*inputs)
        each = ops.gaussian_terms(*(value.unsqueeze(-1) for value in inputs))  # [..., n, D] each
        return ops.GaussianTerms(*(self.action.without_padding(terms).sum(-1) for terms in each))

    def _log_slope(self, latent: Tensor) -> Tensor:
        """log d(action)/du = log((high - low) / 2 (1 - tanh(u)^2)), which does not run out of numbers for large u."""
        scale = math.log((self.action.high - self.action.low) / 2)
        return scale + 2 * (math.log(2) - latent - functional.softplus(-2 * latent))


Policy: TypeAlias = Categorical | Gaussian
