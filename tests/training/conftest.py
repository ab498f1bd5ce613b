from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from emix.envs.core import EnvSpec, Step
from emix.training import Progress, Settings, StopRequest, TrainingState, make_settings, train
from tests.tape import Tape


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:
    """Training sets these for the whole process; other tests must not notice."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill, benchmark = torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = fill, benchmark


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
        self.spec = EnvSpec("scripted", n_agents=2, n_actions=3, obs_dim=2, state_dim=1, episode_limit=self.limit)
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

    def __init__(self) -> None:
        self.explored: list[bool] = []

    def initial_memory(self, num_envs: int) -> int:
        return 0

    def act(self, step: Step, memory: int, *, explore: bool) -> tuple[torch.Tensor, int]:
        self.explored.append(explore)
        return torch.full(step.avail.shape[:2], 1 + memory % 2), memory + 1


@pytest.fixture
def scripted_env() -> type[ScriptedEnv]:
    return ScriptedEnv


@pytest.fixture
def policy() -> CountingPolicy:
    return CountingPolicy()


@pytest.fixture
def tape() -> type[Tape]:
    return Tape


class Killed(BaseException):
    """Stands for kill -9: no handler of the package catches it."""


@pytest.fixture
def killed() -> type[Killed]:
    return Killed


TRAINING = {
    "steps": 1500,
    "seed": 3,
    "batch_episodes": 8,
    "buffer_episodes": 300,  # fewer than are played, so that the ring goes round
    "test_interval": 500,
    "test_episodes": 4,
    "log_interval": 300,
    "checkpoint_interval": 200,
}


class QuietProgress(Progress):
    """Writes to memory, and calls ``hook(env_steps)`` after every rollout."""

    def __init__(self, hook: Callable[[int], None] | None = None) -> None:
        self.text = io.StringIO()
        super().__init__(1, output=self.text)
        self.hook = hook

    def advance(self, env_steps: int) -> None:
        super().advance(env_steps)
        if self.hook is not None:
            self.hook(env_steps)


@dataclass
class Runner:
    """Trains in this process; a folder that holds a checkpoint is resumed."""

    def settings(self, algorithm: str = "iql", env: str = "matrix/msteps-5", **training: Any) -> Settings:
        return make_settings(algorithm, env, training=TRAINING | training)

    def __call__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        hook: Callable[[int], None] | None = None,
        stop: StopRequest | None = None,
    ) -> TrainingState:
        folder.mkdir(exist_ok=True)
        settings = settings or self.settings()
        state = TrainingState.create(settings)
        self.progress = QuietProgress(hook)
        try:
            train(settings, state, folder, self.progress, stop or StopRequest())
        finally:
            state.close()
        return state


@pytest.fixture
def run() -> Runner:
    return Runner()
