"""``prey/continuous-<n>a`` and ``prey/heterogeneous``: predators with continuous actions hunt scripted prey."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from emix.data import Box, EnvSpec
from emix.envs.random import splitmix64, uniform
from emix.envs.registry import unknown_name
from emix.envs.tensor import TensorEnv

PREDATOR_SIZE, PREY_SIZE, LANDMARK_SIZE = 0.075, 0.05, 0.2
PREDATOR_ACCELERATION = 3.0
TIME_STEP, DAMPING, CONTACT_FORCE, CONTACT_MARGIN = 0.1, 0.25, 100.0, 1e-3
SIGHT = 1.5
REWARD = 10.0
CHOICES = 100


@dataclass(frozen=True)
class Chase:
    """Who is on the plane, and for how long."""

    predator_speeds: tuple[float, ...]  # the highest, of each predator
    prey_speeds: tuple[float, ...]
    landmarks: int
    limit: int  # steps


CHASES = {
    **{f"prey/continuous-{3 * k}a": Chase((1.0,) * 3 * k, (1.3,) * k, 2 * k, 25) for k in (1, 2, 3)},
    "prey/heterogeneous": Chase((1.0, 0.75, 0.75), (1.25,) * 3, 2, 50),
}


class ContinuousPrey(TensorEnv):
    """Predators push themselves over a plane without bounds; each touch of a prey pays the team 10, as often as it is.

    A step: (1) every prey looks at 100 random points of the unit disc around it, leaves out those at which it would
    touch a predator, and chooses the one that is farthest from the predator that is now nearest to it; its force is the
    vector there, or none where all are left out. A predator's is 3 times its action, two numbers from -1 to 1. (2)
    Bodies, landmarks too, that overlap push each other away, by ``100 * penetration`` along the line between them, with
    ``penetration = 0.001 log(1 + exp(-(distance - sum of radii) / 0.001))``. (3) The velocity becomes 0.75 of itself
    plus 0.1 times the force, is cut down to the body's highest speed, and moves the body for 0.1. (4) Each pair of a
    predator and a prey that overlap pays 10.

    Radii: 0.075 (predators), 0.05 (prey), 0.2 (landmarks, which stay). Bodies start at random in [-1, 1]^2, landmarks
    in [-0.9, 0.9]^2, at rest, and may overlap. The time limit alone ends an episode.

    Observation: the predator's velocity and position, the landmarks, the other predators and the prey relative to it,
    and the preys' velocities; two numbers each, zeros for what is farther than 1.5. State: all observations.

    Source: simple_tag_coop.py and its particle world in oxwhirl/facmac (Peng et al. 2021) with its score "min"; ADER
    (Kim and Sung 2023), appendix C1, for ``prey/heterogeneous``: three predators whose highest speeds are 1, 0.75 and
    0.75, three prey of 1.25, 50 steps. ADER does not say how many landmarks: two are FACMAC's for three predators.
    """

    def __init__(
        self, name: str, chase: Chase, *, num_envs: int, device: torch.device, seed: int, first_env: int
    ) -> None:
        n, m, marks = len(chase.predator_speeds), len(chase.prey_speeds), chase.landmarks
        obs_dim = 4 + 2 * (marks + n - 1 + m) + 2 * m
        spec = EnvSpec(name, n, Box(2), obs_dim=obs_dim, state_dim=n * obs_dim, episode_limit=chase.limit)
        super().__init__(spec, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
        self.predators, self.movable, self.bodies = n, n + m, n + m + marks

        def numbers(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self._speeds = numbers(chase.predator_speeds + chase.prey_speeds)[:, None]  # [M, 1], M bodies that move
        sizes = numbers((PREDATOR_SIZE,) * n + (PREY_SIZE,) * m + (LANDMARK_SIZE,) * marks)  # [K], all bodies
        self._reach = sizes[: self.movable, None] + sizes  # [M, K]: at less the two overlap
        self._start_range = numbers((1.0,) * self.movable + (0.9,) * marks)[:, None]  # [K, 1]
        self._itself = torch.eye(self.movable, self.bodies, dtype=torch.bool, device=device)  # [M, K]
        self._others = (~torch.eye(n, dtype=torch.bool, device="cpu")).nonzero()[:, 1].view(n, n - 1).to(device)
        self._start_draws, self._step_draws = 2 * self.bodies, 2 * CHOICES * m
        self._counters = torch.arange(max(self._start_draws, self._step_draws), device=device)
        self._keys = torch.zeros(num_envs, dtype=torch.int64, device=device)  # [E]
        self._position = torch.zeros(num_envs, self.bodies, 2, dtype=torch.float32, device=device)  # [E, K, 2]
        self._velocity = torch.zeros_like(self._position[:, : self.movable])  # [E, M, 2]

    def _start(self, where: Tensor, started: Tensor) -> None:
        self._keys = torch.where(where, self._episode_keys(started), self._keys)
        unit = uniform(splitmix64(self._keys[:, None], self._counters[: self._start_draws]))  # [E, 2 K]
        position = self._start_range * (2 * unit.unflatten(1, (self.bodies, 2)) - 1)  # [E, K, 2]
        where = where[:, None, None]
        self._position = torch.where(where, position, self._position)
        self._velocity = torch.where(where, 0.0, self._velocity)

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        force = torch.cat([PREDATOR_ACCELERATION * actions, self._flee()], dim=1) + self._contact()  # [E, M, 2]
        velocity = (1 - DAMPING) * self._velocity + TIME_STEP * force
        speed = _length(velocity).unsqueeze(-1)  # [E, M, 1]
        self._velocity = torch.where(speed > self._speeds, velocity / speed * self._speeds, velocity)
        moved = self._position[:, : self.movable] + TIME_STEP * self._velocity
        self._position = torch.cat([moved, self._position[:, self.movable :]], dim=1)
        n = self.predators
        touching = _length(self._between(moved[:, n:], moved[:, :n])) < PREY_SIZE + PREDATOR_SIZE  # [E, m, n]
        reward = REWARD * touching.sum((1, 2)).float()
        return reward, torch.zeros_like(reward, dtype=torch.bool)

    def _flee(self) -> Tensor:
        """The preys' forces [E, m, 2]."""
        n = self.predators
        first = self._start_draws + self._time[:, None] * self._step_draws
        draws = uniform(splitmix64(self._keys[:, None], first + self._counters[: self._step_draws]))
        radius, angle = draws.unflatten(1, (2, -1, CHOICES)).unbind(1)  # [E, m, 100] each
        radius, angle = radius.sqrt(), 2 * math.pi * angle
        choice = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)  # [E, m, 100, 2]
        prey, predators = self._position[:, n : self.movable], self._position[:, :n]
        nearest = _length(self._between(prey, predators)).argmin(-1)  # [E, m]
        there = self._between((prey[:, :, None] + choice).flatten(1, 2), predators)  # [E, m 100, n, 2]
        distance = _length(there).unflatten(1, choice.shape[1:3])  # [E, m, 100, n]
        barred = (distance < PREDATOR_SIZE + PREY_SIZE).any(-1)  # [E, m, 100]
        score = distance.gather(-1, nearest[:, :, None, None].expand(-1, -1, CHOICES, 1)).squeeze(-1)
        best, index = score.masked_fill(barred, -1.0).max(-1)  # [E, m]
        chosen = choice.gather(2, index[:, :, None, None].expand(-1, -1, 1, 2)).squeeze(2)  # [E, m, 2]
        return torch.where(best.unsqueeze(-1) < 0, 0.0, chosen)

    def _contact(self) -> Tensor:
        """The forces of overlapping bodies on those that move [E, M, 2]."""
        apart = -self._between(self._position[:, : self.movable], self._position)  # [E, M, K, 2], away from the other
        distance = _length(apart)  # [E, M, K]
        penetration = CONTACT_MARGIN * softplus((self._reach - distance) / CONTACT_MARGIN)
        strength = CONTACT_FORCE * penetration / distance.clamp(min=1e-12)
        return (strength.masked_fill(self._itself, 0.0).unsqueeze(-1) * apart).sum(2)

    def _observe(self) -> tuple[Tensor, Tensor, None]:
        n, prey = self.predators, slice(self.predators, self.movable)
        mine = self._position[:, :n]  # [E, n, 2]
        relative = self._between(mine, self._position)  # [E, n, K, 2]
        seen = (_length(relative) <= SIGHT).unsqueeze(-1)  # [E, n, K, 1]
        relative = torch.where(seen, relative, 0.0)
        others = relative[:, :, :n].gather(2, self._others[None, :, :, None].expand(len(mine), -1, -1, 2))
        velocity = torch.where(seen[:, :, prey], self._velocity[:, None, prey], 0.0)  # [E, n, m, 2]
        shown = (relative[:, :, self.movable :], others, relative[:, :, prey], velocity)
        obs = torch.cat([self._velocity[:, :n], mine, *(each.flatten(2) for each in shown)], dim=2)  # [E, n, O]
        return obs, obs.flatten(1), None

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import plane

        bodies = self._position[index].cpu().numpy()  # [K, 2]
        parts = np.split(bodies, [self.predators, self.movable])
        return plane(parts[0], parts[1], parts[2], (PREDATOR_SIZE, PREY_SIZE, LANDMARK_SIZE), around=1.6)

    @staticmethod
    def _between(here: Tensor, there: Tensor) -> Tensor:
        """From each of one to each of the other: ``[E, a, 2], [E, b, 2] -> [E, a, b, 2]``."""
        return there[:, None] - here[:, :, None]


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).sqrt()


def make_continuous_prey(name: str, options: Mapping[str, Any], **batch: Any) -> ContinuousPrey:
    """Build ``prey/continuous-3a``, ``-6a``, ``-9a`` or ``prey/heterogeneous``, which have no options."""
    if name not in CHASES:
        raise unknown_name(name)
    return ContinuousPrey(name, CHASES[name], **batch)
