from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.scripted import CountingPolicy, ScriptedEnv
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from emix import learners
from emix.data import EnvSpec, Episodes, Field, Step
from emix.distributed import Group
from emix.learners.learner import Acted
from emix.learners.loop import run_loop
from emix.learners.parts import Parts
from emix.learners.plan import Plan
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


class Tape(TorchDispatchMode):
    """Torch's ops with their arguments, to run again on the same tensors with the numbers of back then: CUDA graphs.

    They also run while they are recorded, in place of the first replay. ``recorded`` counts them, of all recordings.
    """

    def __init__(self):
        super().__init__()
        self.parts = None  # of the recording: ops that follow each other, and how many times they run
        self.recorded = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        if any(isinstance(each, int | float) for each in trees.tree_leaves(outputs)):
            raise RuntimeError(f"{func} waits for the device")
        fresh = [each for each in tensors(outputs) if not storages(each) <= storages((args, kwargs))]
        if fresh or func._schema.is_mutable:  # neither a view, nor of torch's profiler
            self.parts[-1][0].append((func, args, kwargs or {}, fresh))
            self.recorded += 1
        return outputs

    def warm_up(self, call):
        return call()

    def record(self, call):
        self.parts = parts = [([], 1)]
        with self:
            results = call()
        self.parts = None
        has_run = True

        def replay():
            nonlocal has_run
            for calls, times in [] if has_run else parts:
                self.run(calls, times)
            has_run = False
            return results

        return replay

    def loop(self, body, times):
        if self.parts is None:
            run_loop(body, times)
            return
        calls = []
        self.parts.append((calls, times))
        body()
        with _disable_current_modes():
            self.run(calls, times - 1)
        self.parts.append(([], 1))

    def run(self, calls, times):
        for func, args, kwargs, outputs in times * calls:
            with torch._C._AutoDispatchBelowAutograd():
                again = tensors(func(*args, **kwargs))
                for old, new in zip(outputs, again, strict=True) if outputs else ():
                    old.copy_(new)


@pytest.fixture
def tape() -> type[Tape]:
    return Tape


def tensors(tree):
    return [leaf for leaf in trees.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storages(tree):
    return {tensor.untyped_storage()._cdata for tensor in tensors(tree)}


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
