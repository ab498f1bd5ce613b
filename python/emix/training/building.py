"""The parts of a run, made from its settings."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch

from emix import learners
from emix._precision import Precision
from emix.data import EnvSpec, Replay, TransitionReplay
from emix.data.room import NetworkRoom
from emix.errors import UsageError
from emix.learners.learner import Learner
from emix.learners.plan import Plan
from emix.training.settings import Settings

# The lengths that batches have on a GPU are so many parts of the episode limit.
LENGTHS = 8


def make_learner(settings: Settings, spec: EnvSpec, device: torch.device, seed: int) -> Learner:
    """The algorithm with its hyperparameters, for environments of ``spec``.

    Raises:
        UsageError: the run asks for a precision that the learner does not know, or for networks that do not fit.
    """
    learner = learners.get(settings.algorithm).learner
    precision = settings.training.precision
    options: dict[str, Any] = {"device": device, "seed": seed}
    if precision != "float32":  # what a learner that does not know the word computes in
        _refuse_precision(settings)
        options["precision"] = precision
    own = {name: value for name, value in vars(settings.learner).items() if name.endswith(("_dim", "members"))}
    sizes = own | {"obs_dim": spec.obs_dim, "state_dim": spec.state_dim, "agents": spec.n_agents}
    with NetworkRoom(f"{settings.algorithm} on {settings.env}", sizes, device):
        return learner(settings.learner, spec, **options)


def make_data(
    learner: Learner, spec: EnvSpec, num_envs: int, device: torch.device, seed: int
) -> Replay | TransitionReplay:
    """What the learner's plan draws from. A rollout must fit in, and where data is used once, what is left of the one
    before it, too."""
    plan, record = learner.plan, learner.actor.record
    _refuse_small_buffer(plan, spec, num_envs)
    if plan.unit == "transition":
        return TransitionReplay(plan.buffer_size, spec, record, device=device, seed=seed)
    # Few lengths where an update can be captured, so that it is captured few times; elsewhere padding costs time.
    # Not only with graphs, so that the numbers are the same without.
    multiple = -(-spec.episode_limit // LENGTHS) if device.type == "cuda" and learner.capturable else 1
    capacity = plan.buffer_size if plan.source == "replay" else plan.batch_size + num_envs
    return Replay(capacity, spec, record, device=device, seed=seed, multiple=multiple)


def check_settings(settings: Settings, spec: EnvSpec) -> None:
    """Raise UsageError for what is known to be wrong with a run before it is made: its device, what its learner says of
    environments of ``spec``, its plan. Nothing is made on a GPU."""
    training = settings.training
    resolve_device(training.device, training.precision)
    _refuse_precision(settings)
    on_cpu = replace(settings, training=replace(training, device="cpu", precision="float32"))
    make_learner(on_cpu, spec, torch.device("cpu"), seed=0)
    _refuse_small_buffer(settings.plan, spec, training.num_envs)


def _refuse_small_buffer(plan: Plan, spec: EnvSpec, num_envs: int) -> None:
    rollout = num_envs * (spec.episode_limit if plan.unit == "transition" else 1)
    if plan.source == "replay" and plan.buffer_size < rollout:
        raise UsageError(
            f"plan.buffer_size expects room for a rollout, {rollout} {plan.unit}s of {num_envs} environments, "
            f"got {plan.buffer_size}"
        )


def _refuse_precision(settings: Settings) -> None:
    """Raise UsageError where the learner has no choice of the precision that is asked for."""
    precision, learner = settings.training.precision, learners.get(settings.algorithm).learner
    if precision != "float32" and "precision" not in inspect.signature(learner).parameters:
        raise UsageError(f"precision {precision}: {settings.algorithm} has no choice of it, use --precision float32")


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
