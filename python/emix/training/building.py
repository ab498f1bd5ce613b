"""The parts of a run, made from its settings."""

from __future__ import annotations

import torch

from emix import learners
from emix.data import EnvSpec, Replay, TransitionReplay
from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.training.settings import Settings

# The lengths that batches have on a GPU are so many parts of the episode limit.
LENGTHS = 8


def make_learner(settings: Settings, spec: EnvSpec, device: torch.device, seed: int) -> Learner:
    """The algorithm with its hyperparameters, for environments of ``spec``."""
    return learners.get(settings.algorithm).learner(settings.learner, spec, device=device, seed=seed)


def make_data(
    learner: Learner, spec: EnvSpec, num_envs: int, device: torch.device, seed: int
) -> Replay | TransitionReplay:
    """What the learner's plan draws from. A rollout must fit in, and where data is used once, what is left of the one
    before it, too."""
    plan, record = learner.plan, learner.actor.record
    rollout = num_envs * (spec.episode_limit if plan.unit == "transition" else 1)
    if plan.source == "replay" and plan.buffer_size < rollout:
        raise UsageError(
            f"plan.buffer_size expects room for a rollout, {rollout} {plan.unit}s of {num_envs} environments, "
            f"got {plan.buffer_size}"
        )
    if plan.unit == "transition":
        return TransitionReplay(plan.buffer_size, spec, record, device=device, seed=seed)
    # Few lengths where an update can be captured, so that it is captured few times; elsewhere padding costs time.
    # Not only with graphs, so that the numbers are the same without.
    multiple = -(-spec.episode_limit // LENGTHS) if device.type == "cuda" and learner.capturable else 1
    capacity = plan.buffer_size if plan.source == "replay" else plan.batch_size + num_envs
    return Replay(capacity, spec, record, device=device, seed=seed, multiple=multiple)


def resolve_device(name: str) -> torch.device:
    """The device of that name, ``UsageError`` where this machine has none."""
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
    return device
