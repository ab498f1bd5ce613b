from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from emix import learners
from emix.data import EnvSpec, Episodes, Field, Step
from emix.distributed import Group
from emix.learners.learner import Acted
from emix.learners.parts import Parts
from emix.learners.plan import Plan
from emix.training import Run, Settings, TrainingState, make_settings
from emix.training.loop import StopRequest, train
from emix.training.progress import Progress
from tests.scripted import CountingPolicy, ScriptedEnv
from tests.tape import Tape


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:
    """Training gives back what it sets of torch; a test that fails in between must not disturb others."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def padding_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates go through a batch in one piece, as on a GPU."""
    monkeypatch.setattr(Episodes, "by_length", lambda self: [self])


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

    def advance(self, env_steps: int, shares: Mapping[str, float] | None = None) -> None:
        super().advance(env_steps, shares)
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


@dataclass(frozen=True)
class FakeConfig:
    """Of ``FakeLearner``; the loss becomes NaN at the update of this number."""

    plan: Plan = Plan(batch_size=4, buffer_size=100)
    lr: float = 0.1
    nan_at: int = -1


class FakeActor:
    """Acts 1 and records which episode it is in (``number``: rollout by rollout) and the time (``time``)."""

    record = (Field("number", (2,), "int64", "observation"), Field("time", (), "float32", "transition"))

    def __init__(self) -> None:
        self.played = torch.zeros((), dtype=torch.int64)
        self.explored: list[bool] = []

    def initial_memory(self, num_envs: int) -> tuple[torch.Tensor, int]:
        numbers = self.played + torch.arange(num_envs)
        return numbers, 0

    def act(self, step: Step, memory: tuple[torch.Tensor, int], *, explore: bool) -> Acted:
        numbers, time = memory
        if explore and time == 0:
            self.played += len(numbers)
            self.explored.append(explore)
        record = {"number": numbers[:, None].expand(-1, 2), "time": torch.full((len(numbers),), float(time))}
        return Acted(torch.ones(step.obs.shape[:2], dtype=torch.int64), (numbers, time + 1), record)


class FakeLearner:
    """Learns nothing, and keeps every batch in ``batches``, over all the learners of a test."""

    capturable = False
    batches: ClassVar[list[Episodes]] = []
    made: ClassVar[list[FakeLearner]] = []

    def __init__(self, config: FakeConfig, spec: EnvSpec, *, device: torch.device, seed: int) -> None:
        self.config, self.plan, self.actor = config, config.plan, FakeActor()
        self.updates = torch.zeros((), dtype=torch.int64)
        self.parts = Parts(played=self.actor.played, updates=self.updates)
        self.advanced: list[tuple[int, int]] = []
        self.made.append(self)

    def draw(self, data: Any) -> Episodes:
        return (data.take if self.plan.source == "fresh" else data.sample)(self.plan.batch_size)

    def update(self, batch: Episodes) -> dict[str, torch.Tensor]:
        self.batches.append(batch)
        self.updates += 1
        aux = torch.where(self.updates == self.config.nan_at, torch.nan, 1.0)
        return {"loss": batch.reward.mean(), "aux_loss": aux}

    def advance(self, env_steps: int, episodes: int) -> None:
        self.advanced.append((env_steps, episodes))


@dataclass
class Fake:
    """Settings of a fake learner on a fake environment."""

    batches: list[Episodes] = field(default_factory=lambda: FakeLearner.batches)
    learners: list[FakeLearner] = field(default_factory=lambda: FakeLearner.made)

    def settings(self, plan: dict[str, Any], learner: dict[str, Any] | None = None, **training: Any) -> Settings:
        return make_settings("fake", "scripted", learner=learner, plan=plan, training=TRAINING | training)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The learner ``fake`` and the environment ``scripted``, whose episodes have two, four, two, four, ... steps."""
    fake = Fake()
    FakeLearner.batches.clear()
    FakeLearner.made.clear()

    def make(name: str, *, num_envs: int, device: str, seed: int) -> ScriptedEnv:
        return ScriptedEnv([[(2, False), (4, True)] for _ in range(num_envs)])

    monkeypatch.setattr("emix.training.settings.make", make)
    monkeypatch.setitem(learners._ALGORITHMS, "fake", learners.Algorithm(FakeLearner, FakeConfig, None))
    return fake
