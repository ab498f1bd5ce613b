"""``prey/macf``: multi-agent car following, on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data import Discrete, EnvSpec
from emix.envs.random import splitmix64, uniform
from emix.envs.tensor import TensorEnv

NAME = "prey/macf"
CARS, ACTIONS, LIMIT = 2, 21, 200
SECONDS = 0.1  # of a step
TARGET, TOLERANCE = 2.5, 0.01
SPEED_LIMIT, TOP_SPEED, CRASH_RATE = 1.0, 1.8, 0.4
SIGHT = 0.3


class CarFollowing(TensorEnv):
    """2 cars on a line drive from 0 to 2.5, together if they can, and risk crashes above the speed limit of 1.

    Action a accelerates by -1 + 2 a / 21 for 0.1 s, up to the top speed of 1.8; there is no least speed. A car that
    ends a step within 0.01 of the target has arrived, and stands there from the next step on. Reward of a step: -1,
    minus each car's distance from the target, +5 for each car that arrives, +1 if the cars are at most 0.3 apart, +10
    when both have arrived, which ends the episode, and -1 for each crash: a car at speed v > 1 has one with
    probability 0.4 (v - 1), and drives on.

    Observation: position and speed of both cars, 0 and 0 for a car more than 0.3 away. State: the same of both cars.
    info: ``arrived`` cars and ``crashes`` so far.

    Source: macf.py of xmu-rl-3dv/RiskQ, map macf_opt. Its 21 steps of 2/21 stop short of +1 and miss 0; it ends the
    episode at the time limit, which is ``truncated`` here. Ensemble-MIX names the task and does not define it: that
    this is the one is an inference from the class that its authors' code imports.
    """

    def __init__(self, *, num_envs: int, device: torch.device, seed: int, first_env: int = 0) -> None:
        spec = EnvSpec(NAME, CARS, Discrete(ACTIONS), obs_dim=2 * CARS, state_dim=2 * CARS, episode_limit=LIMIT)
        super().__init__(spec, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
        self._keys = torch.zeros(num_envs, dtype=torch.int64, device=device)  # [E]
        self._place = torch.zeros(num_envs, CARS, dtype=torch.float32, device=device)  # [E, n]
        self._speed = torch.zeros_like(self._place)  # [E, n]
        self._arrived = torch.zeros_like(self._place, dtype=torch.bool)  # [E, n]
        self._crashes = torch.zeros_like(self._keys)  # [E]
        self._counters = torch.arange(CARS, device=device)  # [n]

    def _start(self, where: Tensor, started: Tensor) -> None:
        self._keys = torch.where(where, self._episode_keys(started), self._keys)
        self._crashes = torch.where(where, 0, self._crashes)
        self._place = torch.where(where[:, None], 0.0, self._place)
        self._speed = torch.where(where[:, None], 0.0, self._speed)
        self._arrived = self._arrived & ~where[:, None]

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        self._drive(actions.float() * (2 / ACTIONS) - 1)
        distance = (self._place - TARGET).abs()  # [E, n]
        arriving = ~self._arrived & (distance < TOLERANCE)  # [E, n]
        self._arrived = self._arrived | arriving
        both = self._arrived.all(1)  # [E]
        crashing = self._crash()  # [E, n]
        self._crashes = self._crashes + crashing.sum(1)
        together = (self._place[:, 0] - self._place[:, 1]).abs() <= SIGHT  # [E]
        paid = 5.0 * arriving.sum(1).float() + together + 10.0 * both.float()  # [E]
        return paid - 1.0 - distance.sum(1) - crashing.sum(1), both

    def _drive(self, acceleration: Tensor) -> None:
        """Accelerate [E, n] until the step or the top speed is reached; a car that arrived stands at the target."""
        place, speed = self._place, self._speed
        speed_after = speed + acceleration * SECONDS
        limited = speed_after >= TOP_SPEED
        spent = torch.where(limited, ((TOP_SPEED - speed) / acceleration * 100).round() / 100, SECONDS)  # as the source
        place = place + speed * spent + 0.5 * acceleration * spent * spent + TOP_SPEED * (SECONDS - spent)
        self._place = torch.where(self._arrived, TARGET, place)
        self._speed = torch.where(self._arrived, 0.0, speed_after.clamp(max=TOP_SPEED))

    def _crash(self) -> Tensor:
        """Which cars [E, n] crash at their speeds."""
        bits = splitmix64(self._keys[:, None], self._time[:, None] * CARS + self._counters)  # [E, n]
        return (self._speed > SPEED_LIMIT) & (uniform(bits) <= (self._speed - SPEED_LIMIT) * CRASH_RATE)

    def _observe(self) -> tuple[Tensor, Tensor, Tensor]:
        cars = torch.stack([self._place, self._speed], dim=2)  # [E, n, 2]
        seen = (self._place[:, :, None] - self._place[:, None]).abs() <= SIGHT  # [E, n, n]
        obs = torch.where(seen[..., None], cars[:, None], 0.0)  # [E, n, n, 2]
        avail = torch.ones(self.num_envs, CARS, ACTIONS, dtype=torch.bool, device=self.device)  # [E, n, A]
        return obs.flatten(2), cars.flatten(1), avail

    def _info(self) -> dict[str, Tensor]:
        return {"arrived": self._arrived.sum(1), "crashes": self._crashes}

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import road

        place, speed = (rows[index].cpu().numpy() for rows in (self._place, self._speed))  # [n] each
        return road(place, speed, TARGET, SPEED_LIMIT, int(self._crashes[index]))


def make_car_following(name: str, options: Mapping[str, Any], **batch: Any) -> CarFollowing:
    """Build ``prey/macf``, which has no options."""
    return CarFollowing(**batch)
