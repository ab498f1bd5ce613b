"""How a run is driven. What is learned, when and how, stands in the learner's own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_args

import numpy as np

from emix._precision import Precision
from emix.errors import UsageError
from emix.reading import one_line, short

# Of what there is one of in memory for each.
_MOST = {"num_envs": 65_536, "test_envs": 65_536, "test_episodes": 1_000_000, "threads": 1024}


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of the training loop; a recipe overrides them, and the command line overrides the recipe."""

    steps: int = 2_050_000
    """Environment steps to train for, summed over the environments (PyMARL t_max)."""
    seed: int = 0
    """Every random stream of the run derives from it: learner, replay, environments, evaluation."""
    device: str = "cpu"
    """Where networks, replay and device environments live: cpu, cuda or cuda:1."""
    threads: int = 1
    """CPU threads of torch. One: 64 units gain little from more, and the numbers do not depend on the cores."""
    keep_memory: bool = True
    """Let the C library keep freed memory for what is allocated next (glibc; while it trains): an update on the
    CPU otherwise waits for the system to clear the same pages each time. Numbers do not depend on it."""
    precision: Precision = "float32"
    """What the matrix products of the agent networks are computed in, forward and backward, on a GPU from compute
    capability 8.0 on: tf32 and bf16 take its matrix units and round what they multiply. Part of what decides a run's
    numbers; critics and mixers are torch's products, in float32 unless torch is told otherwise."""
    graphs: bool = True
    """On CUDA, replay updates and rollouts as CUDA graphs, of learners and environments that allow it. Numbers do not
    depend on it."""
    num_envs: int = 4
    """Environments that play at once; a rollout is an episode of each (SMIX section VI-B; PyMARL batch_size_run)."""
    test_interval: int = 20_000
    """Environment steps between two evaluations (SMIX repository, smix.yaml)."""
    test_episodes: int = 24
    """Greedy episodes in an evaluation, a multiple of test_envs (SMIX repository, smix.yaml)."""
    test_envs: int = 4
    """Environments of the evaluation; each plays test_episodes / test_envs episodes."""
    log_interval: int = 10_000
    """Environment steps between two rows of metrics.jsonl (PyMARL sc2.yaml)."""
    checkpoint_interval: int = 50_000
    """Environment steps between two checkpoints: what a killed run plays again at most."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value, default = getattr(self, name), getattr(type(self), name)
            if type(value) is not type(default):
                raise UsageError(f"{name} expects {type(default).__name__}, got {short(value)}")
            if type(value) is int and value < (0 if name == "seed" else 1):
                raise UsageError(f"{name} expects {'0 or more' if name == 'seed' else 'at least 1'}, got {value}")
            if type(value) is int and value > (most := _MOST.get(name, 2**63 - 1)):
                raise UsageError(f"{name} expects at most {most:,}, got {short(value)}")
        if self.precision not in get_args(Precision):
            raise UsageError(f"precision expects {', '.join(get_args(Precision))}, got {short(self.precision)}")
        if self.test_episodes % self.test_envs:
            raise UsageError(
                f"test_episodes expects a multiple of test_envs, so that every environment plays the same number: "
                f"got {self.test_episodes} and {self.test_envs}"
            )


def training_config(values: Mapping[str, Any]) -> TrainingConfig:
    """The configuration with ``values`` set; ``UsageError`` where one is unknown or out of range."""
    known = [field.name for field in fields(TrainingConfig)]
    if unknown := sorted(map(str, set(values) - set(known))):
        names = one_line(", ".join(unknown))
        raise UsageError(f"unknown training settings {names}: expected some of {', '.join(known)}")
    return TrainingConfig(**values)


class Seeds(NamedTuple):
    """The seeds of a run's random streams, each 63 bits."""

    learner: int
    replay: int
    env: int
    test_env: int
    eval_command: int
    random_actor: int


def spawn_seeds(seed: int) -> Seeds:
    """Independent streams from the run's one seed, by numpy's ``SeedSequence``: neighbouring seeds share nothing."""
    children = np.random.SeedSequence(seed).spawn(len(Seeds._fields))
    return Seeds(*(int(child.generate_state(1, np.uint64)[0] >> np.uint64(1)) for child in children))
