"""``matrix/continuous``: ADER's continuous cooperative matrix game, on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data import Box, EnvSpec
from emix.envs.options import ContinuousOptions, read_options
from emix.envs.tensor import TensorEnv


class ContinuousGame(TensorEnv):
    """One step in which two agents with one number each, x and y, choose a position in the plane.

    A narrow path leads from (0, 0) to (0.6, 0) and on to (0.6, 0.55), and ends at a disc around (0.6, 0.6), the goal.
    The reward at (x, y): in the disc, at the distance d from its centre, 5 (1 - c d / 0.05); else, within 0.05 of the
    path, 5 l / 1.2, where l is the length of the path up to its point nearest to (x, y) (the later of two); elsewhere
    -|(x, y)|. c is such that the goal pays at its rim what the path pays at its end, 115/24: the reward never falls on
    the way to the centre. So one agent must keep still while the other explores, and then the other way round.

    Observations and state are the position, (0, 0) before the step: a constant where the agents choose. info:
    ``goal_reached``, whether the position is in the disc.

    Source: ADER (Kim and Sung 2023), section 3.1 and fig. 1, which give path, disc, the maximum of 5, bounds of 1, and
    a penalty that grows with the distance from (0, 0). This is a reconstruction: how wide the path is, how the reward
    grows and how large the penalty is have no source; ``ContinuousOptions`` has every number.
    """

    def __init__(self, name: str, options: ContinuousOptions, *, num_envs: int, device: torch.device) -> None:
        action = Box(1, low=-options.bound, high=options.bound)
        spec = EnvSpec(name, n_agents=2, action=action, obs_dim=2, state_dim=2, episode_limit=1)
        super().__init__(spec, num_envs=num_envs, device=device)
        self.options = options
        self._position = torch.zeros(num_envs, 2, dtype=torch.float32, device=device)  # [E, 2]
        self._reached = torch.zeros(num_envs, dtype=torch.bool, device=device)  # [E]

    def _start(self, where: Tensor, started: Tensor) -> None:
        self._position = torch.where(where[:, None], 0.0, self._position)
        self._reached = self._reached & ~where

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        self._position = actions[:, :, 0]  # [E, 2], of the agents' numbers
        reward, self._reached = _payoff(self.options, *self._position.unbind(1))
        return reward, torch.ones_like(self._reached)

    def _observe(self) -> tuple[Tensor, Tensor, None]:
        return self._position[:, None].repeat(1, 2, 1), self._position.clone(), None  # [E, n, 2], [E, 2]

    def _info(self) -> dict[str, Tensor]:
        return {"goal_reached": self._reached}

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import BLUE, GREEN, GREY, LINE, YELLOW, Canvas

        o = self.options
        canvas = Canvas((-o.bound, -o.bound), (o.bound, o.bound))
        canvas.line([(0, 0), (o.corner, 0), (o.corner, o.path_end)], LINE, 2 * o.half_width)
        canvas.disc(o.corner, o.goal, o.goal_radius, GREEN)
        x, y = self._position[index].tolist()
        canvas.disc(x, y, 0.03 * o.bound, BLUE, YELLOW if self._reached[index] else None)
        canvas.text(0, -0.92 * o.bound, f"x {x:.3f}, y {y:.3f}", 0.09 * o.bound, GREY)
        return canvas.done()


def _payoff(o: ContinuousOptions, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The reward at each position [E], and whether it is in the goal."""
    from_goal = _length(x - o.corner, y - o.goal)  # [E]
    along, up = x.clamp(0, o.corner), y.clamp(0, o.path_end)  # [E]: the nearest points of the path's two parts
    from_first, from_second = _length(x - along, y), _length(x - o.corner, y - up)  # [E]
    walked = torch.where(from_second <= from_first, o.corner + up, along)  # [E]
    on_path = torch.minimum(from_first, from_second) <= o.half_width  # [E]
    in_goal = from_goal <= o.goal_radius  # [E]
    path = o.goal_reward / (o.corner + o.goal) * walked
    rim = (o.corner + o.path_end) / (o.corner + o.goal) if o.rim is None else o.rim
    goal = o.goal_reward * (1 - (1 - rim) * from_goal / o.goal_radius)
    return torch.where(in_goal, goal, torch.where(on_path, path, -o.penalty * _length(x, y))), in_goal


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def make_continuous_game(
    name: str, options: Mapping[str, Any], *, num_envs: int, device: torch.device, seed: int, first_env: int
) -> ContinuousGame:
    """Build ``matrix/continuous``, in which nothing is random: ``seed`` and ``first_env`` change nothing."""
    return ContinuousGame(name, read_options(name, ContinuousOptions, options), num_envs=num_envs, device=device)
