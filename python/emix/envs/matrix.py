"""Matrix games on tensors: the m-step game of MAVEN (SMIX, fig. 3) and the penalty game of PERLA (table 1)."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data import Discrete, EnvSpec
from emix.envs.options import PenaltyOptions, read_options
from emix.envs.registry import unknown_name
from emix.envs.tensor import TensorEnv
from emix.errors import UsageError


class MatrixGame(TensorEnv):
    """A game in which all agents see the state, every action is always available, and nothing is random."""

    def _observe(self) -> tuple[Tensor, Tensor, Tensor]:
        state = self._state()  # [E, S]
        shape = (self.num_envs, self.spec.n_agents, self.spec.n_actions)
        obs = state[:, None].repeat(1, self.spec.n_agents, 1)  # [E, n, O]
        return obs, state, torch.ones(shape, dtype=torch.bool, device=self.device)

    @abstractmethod
    def _state(self) -> Tensor:
        """What every agent sees, which is the state: a new [E, S] tensor."""


class StepsGame(MatrixGame):
    """``matrix/msteps-<m>``: two agents with two actions must stay on the branch that their first joint action chose.

    The first joint action 00, 01, 10, 11 chooses branch 0, 1, 2, 3. A step on branch 0 or 3 pays 1 while the joint
    action repeats the branch; branches 1 and 2 pay 0. A reward of 0 ends the game, and so does step m. In branch 0
    the last step pays [[1, 1], [1, 4]] instead: the best return is m + 3, that of branch 3 is m. Every agent sees the
    state: one-hot step (m + 1) and one-hot branch (4).

    Source: nstep_matrix_game.py of AnujMahajanOxf/MAVEN with good_branches=2; SMIX(lambda), fig. 3.
    """

    def __init__(self, steps: int, *, num_envs: int, device: torch.device) -> None:
        name = f"matrix/msteps-{steps}"
        if steps < 2:
            raise UsageError(f"{name}: the game needs at least 2 steps (the first chooses the branch), got {steps}")
        size = steps + 1 + 4
        spec = EnvSpec(name, n_agents=2, action=Discrete(2), obs_dim=size, state_dim=size, episode_limit=steps)
        super().__init__(spec, num_envs=num_envs, device=device)
        self._branch = torch.zeros_like(self._time)  # [E]; 0 until it is chosen, as in MAVEN
        self._times = torch.arange(steps + 1, device=device)  # [m+1]
        self._branches = torch.arange(4, device=device)  # [4]

    def _start(self, where: Tensor, started: Tensor) -> None:
        self._branch = torch.where(where, 0, self._branch)

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        joint = 2 * actions[:, 0] + actions[:, 1]  # [E]
        self._branch = torch.where(self._time == 0, joint, self._branch)
        good = (self._branch == 0) | (self._branch == 3)
        reward = (good & (joint == self._branch)).float()
        last = self._time == self.spec.episode_limit - 1  # [E]
        reward = torch.where(last & (self._branch == 0), 1.0 + 3.0 * (joint == 3).float(), reward)
        return reward, (reward == 0) | last

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import payoffs

        step, branch = int(self._time[index]), int(self._branch[index])
        chosen = None if self._taken is None else self._taken[index].tolist()
        table = np.zeros((2, 2))  # of the step that was played, or comes first
        if step <= 1:
            table[0, 0] = table[1, 1] = 1
        elif branch in (0, 3):
            table[branch // 2, branch % 2] = 1
        if branch == 0 and step == self.spec.episode_limit:
            table[:] = [[1, 1], [1, 4]]
        return payoffs(table, chosen, f"step {max(step, 1)} of {self.spec.episode_limit}, branch {branch}")

    def _state(self) -> Tensor:
        time = self._time[:, None] == self._times  # [E, m+1]
        branch = self._branch[:, None] == self._branches  # [E, 4]
        return torch.cat([time, branch], dim=1).float()


class PenaltyGame(MatrixGame):
    """``matrix/penalty-<n>x<A>``: one step that pays 8 if all agents choose action 0, -12 if some do, 0 if none does;
    ``PenaltyOptions`` has other numbers.

    For two agents and three actions this is PERLA's table 1, [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]; PERLA scales
    it to more agents and actions and says of them only that 8 is paid when all choose the first action: the rest is
    the natural extension. Every agent sees the state, five ones (as in WQMIX): there is nothing to see.
    """

    def __init__(
        self, n_agents: int, n_actions: int, options: PenaltyOptions, *, num_envs: int, device: torch.device
    ) -> None:
        name = f"matrix/penalty-{n_agents}x{n_actions}"
        if n_agents < 2 or n_actions < 2:
            raise UsageError(f"{name}: the game needs at least 2 agents and 2 actions, got {n_agents} and {n_actions}")
        spec = EnvSpec(name, n_agents=n_agents, action=Discrete(n_actions), obs_dim=5, state_dim=5, episode_limit=1)
        super().__init__(spec, num_envs=num_envs, device=device)
        payoffs = (options.otherwise, options.penalty, options.best)
        self._payoffs = torch.tensor(payoffs, dtype=torch.float32, device=device)  # [3]

    def _start(self, where: Tensor, started: Tensor) -> None:
        """One step has no state."""

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        first = actions == 0  # [E, n]
        reward = self._payoffs[first.any(1).long() + first.all(1).long()]  # [E]
        return reward, torch.ones_like(reward, dtype=torch.bool)

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import choices, payoffs

        chosen = None if self._taken is None else self._taken[index].tolist()
        n, choices_each = self.spec.n_agents, self.spec.n_actions
        if n > 2:
            return choices(chosen, n, choices_each)
        otherwise, penalty, best = self._payoffs.tolist()
        table = np.full((choices_each, choices_each), otherwise)
        table[0], table[:, 0], table[0, 0] = penalty, penalty, best
        return payoffs(table, chosen, "rows: agent 1, columns: agent 2")

    def _state(self) -> Tensor:
        return torch.ones(self.num_envs, self.spec.state_dim, dtype=torch.float32, device=self.device)


def make_steps_game(
    name: str, options: Mapping[str, Any], *, num_envs: int, device: torch.device, seed: int, first_env: int
) -> StepsGame:
    """Build ``matrix/msteps-<m>``, which has no options and no chance: ``seed`` and ``first_env`` change nothing."""
    return StepsGame(*_numbers(name, r"matrix/msteps-(\d+)"), num_envs=num_envs, device=device)


def make_penalty_game(
    name: str, options: Mapping[str, Any], *, num_envs: int, device: torch.device, seed: int, first_env: int
) -> PenaltyGame:
    """Build ``matrix/penalty-<n>x<A>``, which has no chance, either."""
    n_agents, n_actions = _numbers(name, r"matrix/penalty-(\d+)x(\d+)")
    chosen = read_options(name, PenaltyOptions, options)
    return PenaltyGame(n_agents, n_actions, chosen, num_envs=num_envs, device=device)


def _numbers(name: str, pattern: str) -> list[int]:
    match = re.fullmatch(pattern, name, re.ASCII)
    if match is None:
        raise unknown_name(name)
    return [int(number) for number in match.groups()]
