"""An environment and a policy that do what a test says."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from emix.data import Discrete, EnvSpec, Step
from emix.learners.learner import Acted


@dataclass
class ScriptedEnv:
    """Episodes of given lengths. Observations say (environment, time); a finished environment shows NaN.

    ``plans[e]`` is the list of environment e's (length, truncated), played in order and then again.
    """

    plans: list[list[tuple[int, bool]]]
    limit: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self.num_envs = len(self.plans)
        self.spec = EnvSpec("scripted", 2, Discrete(3), obs_dim=2, state_dim=1, episode_limit=self.limit)
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self.actions: list[torch.Tensor] = []

    def reset(self, where: torch.Tensor | None = None) -> Step:
        assert where is None
        self.time = 0
        self.plan = [plan[int(number) % len(plan)] for plan, number in zip(self.plans, self.episode, strict=True)]
        self.episode = self.episode + 1
        return self._step()

    def step(self, actions: torch.Tensor) -> Step:
        self.actions.append(actions)
        self.time += 1
        return self._step()

    def close(self) -> None:
        pass

    def _step(self) -> Step:
        length = torch.tensor([length for length, _ in self.plan])
        over, beyond = length <= self.time, length < self.time
        limited = torch.tensor([truncated for _, truncated in self.plan])
        number = torch.arange(self.num_envs, dtype=torch.float32)
        obs = torch.stack([number, torch.full_like(number, self.time)], dim=1)  # [E, 2]
        obs = torch.where(beyond[:, None], torch.nan, obs)
        return Step(
            obs=obs[:, None].repeat(1, 2, 1),
            state=obs[:, 1:].clone(),
            avail=torch.ones(self.num_envs, 2, 3, dtype=torch.bool),
            reward=torch.where(beyond | (self.time == 0), 0.0, 10.0 * number + self.time),
            terminated=over & ~limited,
            truncated=over & limited,
            info={"battle_won": (over & ~limited).float(), "time": torch.full_like(number, self.time)},
        )


class CountingPolicy:
    """Acts 1, 2, 1, 2, ... and notes whether it was asked to explore."""

    record = ()

    def __init__(self) -> None:
        self.explored: list[bool] = []

    def initial_memory(self, num_envs: int) -> int:
        return 0

    def act(self, step: Step, memory: int, *, explore: bool) -> Acted:
        self.explored.append(explore)
        return Acted(torch.full(step.obs.shape[:2], 1 + memory % 2), memory + 1)
