"""Everything a run consists of, and how it is saved and restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from emix import learners
from emix.envs.core import Env, advance
from emix.errors import UsageError
from emix.ops.recurrent import Precision
from emix.training import checkpoint
from emix.training.config import TrainingConfig, spawn_seeds
from emix.training.metrics import TrainingStatistics
from emix.training.replay import Replay
from emix.training.run import Settings

# The lengths that batches have on a GPU are so many parts of the episode limit.
LENGTHS = 8


@dataclass
class Counters:
    """How far a run is."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0  # of wall time, over all the processes that worked on the run


@dataclass
class TrainingState:
    """The parts of a run. Between two rollouts, these are all there is: no episode is under way then."""

    env: Env
    test_env: Env
    learner: Any
    replay: Replay
    statistics: TrainingStatistics = field(default_factory=TrainingStatistics)
    counters: Counters = field(default_factory=Counters)

    @classmethod
    def create(cls, settings: Settings) -> TrainingState:
        """Build environments, learner and replay from the run's seed.

        Raises:
            UsageError: the device, the environment or the algorithm is unknown, or the replay does not fit into memory.
        """
        training = settings.training
        seeds = spawn_seeds(training.seed)
        device = resolve_device(training.device, training.precision)
        env = settings.make_env(num_envs=training.num_envs, device=training.device, seed=seeds.env)
        test_env = settings.make_env(num_envs=training.test_envs, device=training.device, seed=seeds.test_env)
        learner = learners.get(settings.algorithm).learner(
            settings.learner, env.spec, device=device, seed=seeds.learner, precision=training.precision
        )
        # Few lengths where an update can be captured, so that it is captured few times; elsewhere padding costs time.
        # Not only with graphs, so that the numbers are the same without.
        captured = device.type == "cuda" and learner.capturable
        multiple = -(-env.spec.episode_limit // LENGTHS) if captured else 1
        replay = Replay(training.buffer_episodes, env.spec, device=device, seed=seeds.replay, multiple=multiple)
        return cls(env, test_env, learner, replay)

    def advance_envs(self) -> None:
        """Let environments that change in mid-training know how far it is."""
        for env in (self.env, self.test_env):
            advance(env, self.counters.env_steps)

    def close(self) -> None:
        """Free the environments' processes."""
        self.env.close()
        self.test_env.close()

    def save(self, folder: Path, settings: Settings, offsets: Mapping[str, int]) -> None:
        """Write a checkpoint: every tensor, counter and random state.

        Of the replay only the episodes since the last checkpoint are written: those before are in its files.

        Args:
            folder: of the checkpoint.
            settings: of the run, compared when it is resumed.
            offsets: bytes of the metrics files.
        """
        replay = self.replay
        previous = checkpoint.read_manifest(folder)
        shards = [shard for shard in (previous["replay"] if previous else []) if shard["end"] > replay.oldest]
        parts = {
            "learner": self.learner.state_dict(),
            "training": {
                "env.episode": self.env.episode,
                "test_env.episode": self.test_env.episode,
                "replay.generator": replay.generator.get_state(),
                **{f"statistics.{name}": tensor for name, tensor in self.statistics.state_dict().items()},
            },
        }
        keep = [shard["part"] for shard in shards]
        first = max(shards[-1]["end"] if shards else 0, replay.oldest)
        if first < replay.added:
            part = f"replay-{first}"
            parts[part] = replay.export(first, replay.added)
            shards.append({"part": part, "first": first, "end": replay.added})
        header = {
            "settings": settings.as_dict(),
            "counters": asdict(self.counters),
            "offsets": dict(offsets),
            "replay": shards,
        }
        checkpoint.save(folder, header, parts, keep)

    def restore(self, folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
        """Take over the checkpoint in ``folder``.

        Raises:
            UsageError: it is damaged, or was made with other settings.
        """
        refuse_other_settings(folder, settings, manifest)
        self.learner.load_state_dict(checkpoint.load(folder, manifest, "learner"))
        training = checkpoint.load(folder, manifest, "training")
        self.env.episode = training["env.episode"]
        self.test_env.episode = training["test_env.episode"]
        for shard in manifest["replay"]:
            self.replay.restore(shard["first"], checkpoint.load(folder, manifest, shard["part"]))
        self.replay.generator.set_state(training["replay.generator"])
        statistics = {
            key.removeprefix("statistics."): value for key, value in training.items() if key.startswith("statistics.")
        }
        self.statistics.load_state_dict(statistics, self.replay.device)
        self.counters = Counters(**manifest["counters"])


def refuse_other_settings(folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` where a checkpoint was made with other settings than these, the number of steps apart."""
    # Of an emix that did not have one of these settings yet, the checkpoint had its default.
    defaults = _flatten(asdict(TrainingConfig()), "training.")
    theirs, ours = defaults | _flatten(manifest["settings"]), _flatten(settings.as_dict())
    different = [
        key
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and key != "training.steps"
    ]
    if different:
        key = different[0]
        raise UsageError(
            f"the checkpoint in {folder} belongs to another run: expected {key} {ours.get(key)!r} as in config.yaml, "
            f"got {theirs.get(key)!r}; undo the change, or train again in another folder"
        )


def resolve_device(name: str, precision: Precision = "float32") -> torch.device:
    """The device of that name, ``UsageError`` where this machine has none, or none that multiplies in ``precision``."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device expects cpu, cuda or cuda:<number>, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            f"use --device cpu, or run `emix doctor`"
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device expects cpu, cuda or cuda:<number>, got {name!r}")
    if precision != "float32":
        if device.type == "cpu":
            raise UsageError(f"precision {precision} needs a GPU: on device 'cpu' it can only be float32")
        if (capability := torch.cuda.get_device_capability(device)) < (8, 0):
            raise UsageError(
                f"precision {precision} needs a GPU of compute capability 8.0 or later, and device {name!r} has "
                f"{capability[0]}.{capability[1]}: use --precision float32"
            )
    return device


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"learner": {"lr": 1}} -> {"learner.lr": 1}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
