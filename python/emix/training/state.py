"""Everything a run consists of, and how it is saved and restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from emix.data import Replay, TransitionReplay
from emix.distributed import Alone, Group
from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.playing.rollout import Rollout
from emix.playing.source import Local, Source
from emix.training import checkpoint
from emix.training.building import make_data, make_learner, resolve_device
from emix.training.config import spawn_seeds
from emix.training.metrics import TrainingStatistics
from emix.training.settings import Settings, difference


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

    source: Source
    learner: Learner
    data: Replay | TransitionReplay
    captured: bool  # whether updates, and rollouts where the environment allows it, are CUDA graphs
    group: Group
    statistics: TrainingStatistics = field(default_factory=TrainingStatistics)
    counters: Counters = field(default_factory=Counters)

    @classmethod
    def create(cls, settings: Settings, group: Group | None = None) -> TrainingState:
        """Build environments, learner and replay from the run's seed; all alone where no group is given.

        Raises:
            UsageError: the device, the environment or the algorithm is unknown, or the replay does not fit into memory.
        """
        training, group = settings.training, group or Alone()
        seeds, device = spawn_seeds(training.seed), resolve_device(training.device, training.precision)
        with ExitStack() as opened:  # closes the environments where something below fails
            env = settings.make_env(num_envs=training.num_envs, device=training.device, seed=seeds.env)
            opened.callback(env.close)
            test_env = settings.make_env(num_envs=training.test_envs, device=training.device, seed=seeds.test_env)
            opened.callback(test_env.close)
            learner = make_learner(settings, env.spec, device, seeds.learner)
            learner.parts.join(group)
            data = make_data(learner, env.spec, training.num_envs, device, seeds.replay)
            captured = training.graphs and learner.capturable and device.type == "cuda"
            random = {"random_steps": learner.plan.random_steps, "seed": seeds.random_actor}
            source = Local(env, test_env, learner.actor, captured=captured, **random)
            opened.pop_all()
        return cls(source, learner, data, captured, group)

    def add(self, rollout: Rollout) -> tuple[int, int]:
        """Store a rollout; count its environment steps and episodes, and those of the group's other processes."""
        self.data.add(rollout.episodes, rollout.lengths)
        self.statistics.episodes.add(rollout)
        played = torch.stack([rollout.lengths.sum(), torch.tensor(len(rollout.lengths))])
        self.group.sum_([played])
        steps, episodes = played.tolist()
        self.counters.env_steps += steps
        self.counters.episodes += episodes
        self.source.advance(self.counters.env_steps)
        return steps, episodes

    def updates_due(self, steps: int) -> int:
        """How many updates follow a rollout of so many environment steps, the same in all processes of the group."""
        plan = self.learner.plan
        if plan.source == "fresh":
            assert isinstance(self.data, Replay)
            return self.group.agree(self.data.fresh // plan.batch_size)
        return self.group.agree(plan.updates(steps) if len(self.data) >= plan.batch_size else 0)

    def save(self, folder: Path, settings: Settings, offsets: Mapping[str, int]) -> None:
        """Write a checkpoint: every tensor, counter and random state.

        Of the replay only what came since the last checkpoint is written: what was before is in its files.

        Args:
            folder: of the checkpoint.
            settings: of the run, compared when it is resumed.
            offsets: bytes of the metrics files.
        """
        data = self.data
        previous = checkpoint.read_manifest(folder)
        shards = [shard for shard in (previous["replay"] if previous else []) if shard["end"] > data.oldest]
        parts = {
            "learner": self.learner.parts.state_dict(),
            "training": {
                "replay.generator": data.generator.get_state(),
                **{f"source.{name}": tensor for name, tensor in self.source.state_dict().items()},
                **{f"statistics.{name}": tensor for name, tensor in self.statistics.state_dict().items()},
            },
        }
        keep = [shard["part"] for shard in shards]
        first = max(shards[-1]["end"] if shards else 0, data.oldest)
        if first < data.added:
            part = f"replay-{first}"
            parts[part] = data.export(first, data.added)
            shards.append({"part": part, "first": first, "end": data.added})
        header = {
            "settings": settings.as_dict(),
            "counters": asdict(self.counters),
            "offsets": dict(offsets),
            "replay": shards,
            "taken": data.taken if isinstance(data, Replay) else 0,
        }
        checkpoint.save(folder, header, parts, keep)

    def restore(self, folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
        """Take over the checkpoint in ``folder``.

        Raises:
            UsageError: it is damaged, or was made with other settings.
        """
        refuse_other_settings(folder, settings, manifest)
        what = f"{settings.name} on {settings.env}"
        self.learner.parts.load_state_dict(checkpoint.load(folder, manifest, "learner"), what)
        training = checkpoint.load(folder, manifest, "training")
        self.source.load_state_dict(_group(training, "source."))
        self.statistics.load_state_dict(_group(training, "statistics."), self.data.device)
        for shard in manifest["replay"]:
            self.data.restore(shard["first"], checkpoint.load(folder, manifest, shard["part"]))
        self.data.generator.set_state(training["replay.generator"])
        if isinstance(self.data, Replay):
            self.data.taken = manifest["taken"]
        self.counters = Counters(**manifest["counters"])

    def close(self) -> None:
        """Free the environments' processes."""
        self.source.close()


def refuse_other_settings(folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` where a checkpoint was made with other settings than these, the number of steps apart."""
    if found := difference(manifest["settings"], settings.as_dict()):
        name, theirs, ours = found
        raise UsageError(
            f"the checkpoint in {folder} belongs to another run: expected {name} {ours!r} as in config.yaml, "
            f"got {theirs!r}; undo the change, or train again in another folder"
        )


def _group(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
