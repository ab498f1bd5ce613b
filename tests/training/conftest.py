from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.scripted import CountingPolicy, ScriptedEnv
from tests.tape import Tape

from emix.distributed import Group
from emix.training import Run, Settings, TrainingState, make_settings
from emix.training.loop import StopRequest, train
from emix.training.progress import Progress


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:
    """Training gives back what it sets of torch; a test that fails in between must not disturb others."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def _own_account(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``--import`` remembers is not this person's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


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


PLAN = {"batch_size": 8, "buffer_size": 300}  # fewer than are played, so that the ring goes round
TRAINING = {
    "steps": 1500,
    "seed": 3,
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
    """Trains in this process; a folder that holds a run is resumed."""

    def settings(
        self, algorithm: str = "iql", env: str = "matrix/msteps-5", *, plan: dict[str, Any] = PLAN, **training: Any
    ) -> Settings:
        return make_settings(algorithm, env, plan=plan, training=TRAINING | training)

    def __call__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        hook: Callable[[int], None] | None = None,
        stop: StopRequest | None = None,
        group: Group | None = None,
    ) -> TrainingState:
        settings = settings or self.settings()
        self.progress = QuietProgress(hook)
        if (folder / "config.yaml").exists():
            opened = Run.resume(folder, steps=settings.training.steps, group=group)
        else:
            opened = Run.create(folder, settings, group)
        with opened as run:
            train(run, self.progress, stop or StopRequest())
        return run.state


@pytest.fixture
def run() -> Runner:
    return Runner()
