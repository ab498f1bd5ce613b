"""Everything a run consists of, and how it is saved and restored bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from emix.data import Replay, TransitionReplay
from emix.distributed import Alone, Group
from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.learners.parts import restore_generator
from emix.playing.rollout import Rollout
from emix.playing.source import Local, Source
from emix.reading import MIB, expect_keys, short
from emix.training import checkpoint
from emix.training.best import Best, check_header, restore_best
from emix.training.building import make_data, make_learner, resolve_device
from emix.training.config import spawn_seeds
from emix.training.metrics import TrainingStatistics
from emix.training.rows import METRICS, TIMING
from emix.training.settings import Settings, difference

MOST_TRAINING = 256 * MIB  # bytes of the statistics of the episodes between two rows, and a few random states


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
    best: Best | None = field(default_factory=Best)  # None: an emix has begun the run that kept none

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
        played = torch.stack([rollout.lengths.sum(), torch.tensor(len(rollout.lengths), device="cpu")])
        self.group.sum_([played])
        steps, episodes = played.tolist()
        self.counters.env_steps += steps
        self.counters.episodes += episodes
        self.source.advance(self.counters.env_steps)
        return steps, episodes

    def test(self, episodes: int) -> dict[str, float]:
        """Statistics of so many greedy episodes; where there were none better, the policy is kept."""
        row = self.source.test(episodes)
        if self.best is not None:
            self.best.consider(row, self.counters.env_steps, self.learner.parts)
        return row

    def updates_due(self, steps: int) -> int:
        """How many updates follow a rollout of so many environment steps, the same in all processes of the group."""
        plan = self.learner.plan
        if plan.source == "fresh":
            return self.group.agree(cast("Replay", self.data).fresh // plan.batch_size)
        return self.group.agree(plan.updates(steps) if len(self.data) >= plan.batch_size else 0)

    def save(
        self,
        folder: Path,
        settings: Settings,
        written: Mapping[str, Any],
        guard: Callable[[Mapping[str, Any] | None], None] = lambda present: None,
    ) -> dict[str, Any]:
        """Write a checkpoint: every tensor, counter and random state; return its manifest.

        Of the replay only what came since the last checkpoint is written: what was before is in its files.

        Args:
            folder: of the checkpoint.
            settings: of the run, compared when it is resumed.
            written: what else the manifest holds: who writes, and ``offsets`` and ``digests`` of the metrics files.
            guard: see ``checkpoint.save``.
        """
        data = self.data
        previous = read_checkpoint(folder)
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
        best = {} if self.best is None else {"best": self.best.header()}
        if self.best is not None and self.best.part is not None:
            if previous and self.best.part in previous["parts"]:
                keep.append(self.best.part)
            else:
                parts[self.best.part] = self.best.policy
        first = max(shards[-1]["end"] if shards else 0, data.oldest)
        if first < data.added:
            part = f"replay-{first}"
            parts[part] = data.export(first, data.added)
            shards.append({"part": part, "first": first, "end": data.added})
        header = {
            "settings": settings.as_dict(),
            "counters": asdict(self.counters),
            **written,
            **best,
            "replay": shards,
            "taken": data.taken if isinstance(data, Replay) else 0,
        }
        return checkpoint.save(folder, header, parts, keep, guard=guard)

    def restore(self, folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
        """Take over the checkpoint in ``folder``.

        Raises:
            UsageError: it is damaged, or was made with other settings.
        """
        refuse_other_settings(folder, settings, manifest)
        self._refuse_other_replay(folder, manifest["replay"])
        what = f"{settings.name} on {settings.env}"
        with checkpoint.explained(folder):
            load_learner(self.learner, folder, manifest, what)
            self.best = restore_best(folder, manifest, most_of(self.learner))
            training = checkpoint.load(folder, manifest, "training", most=MOST_TRAINING)
            self.source.load_state_dict(_group(training, "source."))
            self.statistics.load_state_dict(_group(training, "statistics."), self.data.device)
            for shard in manifest["replay"]:
                part = checkpoint.load(folder, manifest, shard["part"], most=MOST_TRAINING + 2 * self.data.bytes)
                self.data.restore(shard["first"], part)
                if self.data.added != shard["end"]:
                    raise ValueError(f"{shard['part']} ends at {self.data.added}, expected {shard['end']}")
            restore_generator(self.data.generator, training["replay.generator"])
            if isinstance(self.data, Replay):
                self.data.taken = manifest["taken"]
            self.counters = Counters(**manifest["counters"])

    def _refuse_other_replay(self, folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
        """Raise UsageError unless the replay's parts follow each other, none larger than the replay."""
        follow = all(a["end"] == b["first"] for a, b in pairwise(shards))
        if not follow or any(shard["end"] - shard["first"] > self.data.capacity for shard in shards):
            raise UsageError(
                f"the checkpoint in {folder} is damaged: expected parts of the replay of at most {self.data.capacity} "
                f"{self.data.unit}s that follow each other; restore it, or train again in another folder"
            )

    def close(self) -> None:
        """Free the environments' processes."""
        self.source.close()


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run's checkpoint, None where there is none.

    Raises:
        UsageError: it is damaged or of another format.
    """
    manifest = checkpoint.read_manifest(folder)
    if manifest is None:
        return None
    problem = f"{folder / checkpoint.MANIFEST} is not the manifest of a run"
    try:
        expect_keys(
            manifest, {"settings": dict, "counters": dict, "offsets": dict, "replay": list, "taken": int}, problem
        )
        counts = dict.fromkeys(("env_steps", "episodes", "updates"), int)
        expect_keys(manifest["counters"], counts | {"seconds": (int, float)}, f"{problem}: counters")
        if set(manifest["counters"]) != {*counts, "seconds"} or manifest["counters"]["seconds"] < 0:
            raise UsageError(f"{problem}: counters expects {', '.join(counts)} and seconds of at least 0")
        expect_keys(manifest["offsets"], dict.fromkeys((METRICS, TIMING), int), f"{problem}: offsets")
        if "digests" in manifest:
            expect_keys(manifest["digests"], dict.fromkeys((METRICS, TIMING), str), f"{problem}: digests")
        for shard in manifest["replay"]:
            expect_keys(shard, {"part": str, "first": int, "end": int}, f"{problem}: replay")
            if shard["first"] >= shard["end"]:
                raise UsageError(f"{problem}: replay: {short(shard['part'])} expects first below end")
        check_header(manifest, problem)
    except UsageError as error:
        raise UsageError(f"{error}; restore it, or train again in another folder") from error
    return manifest


def load_learner(learner: Learner, folder: Path, manifest: Mapping[str, Any], what: str) -> None:
    """Give a learner the weights and all else that a checkpoint has of it.

    Raises:
        UsageError: the checkpoint is damaged, or that of another learner than ``what``.
    """
    tensors = checkpoint.load(folder, manifest, "learner", most=most_of(learner))
    with checkpoint.explained(folder):
        learner.parts.load_state_dict(tensors, what)


def most_of(learner: Learner) -> int:
    """Bytes that a part of a checkpoint with a learner's tensors can have."""
    own = sum(tensor.numel() * tensor.element_size() for tensor in learner.parts.state_dict().values())
    # Before its first step an optimiser has no state; torch's have up to three tensors for each parameter.
    return 4 * own + checkpoint.MOST_HEADER


def refuse_other_settings(folder: Path, settings: Settings, manifest: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` where a checkpoint was made with other settings than these: the number of steps apart, and
    the device; on one of another kind, the precision, too."""
    apart = ["training.steps", "training.device"]
    if other_device(settings, manifest):
        apart.append("training.precision")
    made = {"env_rules": 1, **manifest["settings"]}  # which manifests had not, as long as there were no others
    if found := difference(made, settings.as_dict(), apart):
        name, theirs, ours = found
        raise UsageError(
            f"the checkpoint in {folder} belongs to another run: expected {name} {short(ours)} as in config.yaml, "
            f"got {short(theirs)}; undo the change, or train again in another folder"
        )


def other_device(settings: Settings, manifest: Mapping[str, Any]) -> str | None:
    """The device that a checkpoint was made on, where it is of another kind than that of the settings."""
    training = manifest["settings"].get("training")
    theirs = training.get("device") if isinstance(training, Mapping) else None
    ours = settings.training.device
    kinds = [str(name).partition(":")[0] for name in (theirs, ours)]
    return str(theirs) if theirs is not None and kinds[0] != kinds[1] else None


def _group(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
