"""A learner's update at SMAC sizes: milliseconds, launches, and the floor of both its bytes and its arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from emix import learners
from emix._precision import Precision
from emix.bench.choices import SPECS
from emix.bench.measure import copy_of, device_times, launches, median_times, size_in_bytes
from emix.data import EnvSpec, Episodes, Field, fields
from emix.training.captured import CapturedUpdate


@dataclass(frozen=True)
class UpdateRow:
    """What was measured of an algorithm on a map."""

    algorithm: str
    map: str
    batch_size: int  # of the plan
    precision: Precision
    seconds: float
    graph_seconds: float | None  # on CUDA, of learners that can be captured
    launches: int
    bytes: int  # batch read, parameters and optimiser read and written, all once
    flops: int  # of the matrix products
    floor: float  # seconds: those bytes copied, or a square product of as many operations, whichever takes longer

    def as_json(self) -> dict[str, Any]:
        """Milliseconds: as training runs it, of the floor, and without a graph where training takes one."""
        graph = self.graph_seconds is not None
        return {
            "learner": self.algorithm,
            "map": self.map,
            "case": f"{self.batch_size} episodes, {self.precision}",
            "ms": 1e3 * (self.graph_seconds if self.graph_seconds is not None else self.seconds),
            "floor_ms": 1e3 * self.floor,
            "peers": {"emix without a graph": 1e3 * self.seconds} if graph else {},
            "launches": self.launches,
        }


class RandomEpisodes:
    """Stands for a learner's data: full length, random but available actions, and whatever its actor records.

    Args:
        spec: the sizes.
        record: what the actor adds to the fields of an episode.
        unit: "episode", or "transition" for episodes of one step.
        device: of the batches.
    """

    def __init__(
        self, spec: EnvSpec, record: Sequence[Field] = (), *, unit: str = "episode", device: torch.device
    ) -> None:
        self.spec, self.device, self.table = spec, device, fields(spec, record)
        self.steps = 1 if unit == "transition" else spec.episode_limit
        self.added = 0

    def sample(self, batch: int, *, newest: int | None = None) -> Episodes:
        """``batch`` of them, the same each time."""
        shape, g = (batch, self.steps), torch.Generator().manual_seed(0)
        values: dict[str, Tensor] = {}
        for field in self.table:
            steps = self.steps + (field.at == "observation")
            values[field.name] = self._random(field, (batch, steps), values.get("avail"), g)
        valid = torch.ones(shape, dtype=torch.bool)
        return Episodes.of(values, valid).to(self.device)

    def take(self, count: int) -> Episodes:
        """The same."""
        return self.sample(count)

    def _random(self, field: Field, lead: tuple[int, int], avail: Tensor | None, g: torch.Generator) -> Tensor:
        """A field's numbers, ``[*lead, ...]``."""
        shape, dtype = (*lead, *field.shape), getattr(torch, field.dtype)
        if field.name == "avail":
            some = torch.rand(shape, generator=g) < 0.5
            some[..., 1] = True
            return some
        if field.name == "actions":
            return self.spec.action.random((*lead, self.spec.n_agents), g, avail)
        if field.name == "terminated":
            return (torch.arange(lead[1]) == lead[1] - 1).expand(lead).clone()
        if field.name in ("obs", "state"):
            return torch.randn(shape, generator=g).clamp_(-1, 1)
        # Between 0 and 1, so that a recorded probability is one; flags are not set.
        return torch.rand(shape, generator=g).to(dtype) if dtype != torch.bool else torch.zeros(shape, dtype=dtype)


def measure_update(
    algorithm: str,
    map_name: str,
    device: torch.device,
    *,
    precision: Precision = "float32",
    rounds: int | None = None,
) -> UpdateRow:
    """Time the update of ``algorithm``'s recipe on a batch of its plan's size, all episodes of full length.

    Without ``rounds`` there are 5, and fewer where an update takes seconds.
    """
    spec = SPECS[map_name]
    found = learners.get(algorithm)
    config = learners.make_config(algorithm, learners.load_recipe(algorithm).learner)
    learner: Any = found.learner(config, spec, device=device, seed=0, precision=precision)
    batch = learner.draw(RandomEpisodes(spec, learner.actor.record, unit=learner.plan.unit, device=device))
    eager = partial(learner.update, batch)
    eager()  # the optimiser's state is made
    if rounds is None:
        start = time.perf_counter()
        eager()
        rounds = max(1, min(5, round(2 / (time.perf_counter() - start))))
    moved = size_in_bytes(list(_tensors(batch))) + 2 * size_in_bytes(learner.parts.state_dict())
    with FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        eager()
    flops = int(counter.get_total_flops())
    candidates: dict[str, Callable[[], Any]] = {"eager": eager}
    if device.type == "cuda" and learner.capturable:
        captured = CapturedUpdate(learner)
        captured(batch)
        candidates["graph"] = partial(captured, batch)
    seconds = median_times(candidates, device, rounds=rounds)
    floor = max(device_times({"copy": copy_of(moved, device)}, device)["copy"], flops / _product_rate(device))
    times = seconds["eager"], seconds.get("graph")
    size = learner.plan.batch_size
    return UpdateRow(algorithm, map_name, size, precision, *times, launches(eager, device), moved, flops, floor)


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Episodes):
        return [*batch.by_name().values(), batch.valid]
    return [tensor for part in batch for tensor in _tensors(part)]


@cache
def _product_rate(device: torch.device) -> float:
    """Operations per second of a square product in float32, the best of many: a floor is not for bad luck."""
    size = 1024 if device.type == "cpu" else 8192
    a, b, out = (torch.ones(size, size, device=device) for _ in range(3))
    seconds = math.inf
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = min(seconds, time.perf_counter() - start)
    return 2 * size**3 / seconds


# The matrix products inside ops of our own; what backward computes again is not counted.


def _agent_sequence(obs: Any, *others: Any, out_val: Any = None, **options: Any) -> int:
    *_, w_ih, w_hh, _b_ih, _b_hh, w_head, _b_head = others[:10]
    return 2 * math.prod(obs[:3]) * (obs[3] * w_hh[1] + math.prod(w_ih) + math.prod(w_hh) + math.prod(w_head))


def _agent_sequence_backward(
    q_grad: Any, hidden_grad: Any, obs: Any, *others: Any, out_val: Any = None, **options: Any
) -> int:
    *_, w_ih, w_hh, _b_ih, _b_hh, w_head, _b_head = others[:10]
    weights = math.prod(w_ih) + math.prod(w_hh) + math.prod(w_head)
    return 2 * math.prod(obs[:3]) * (obs[3] * w_hh[1] + 2 * weights)


_FLOPS = {
    torch.ops.emix.agent_sequence: _agent_sequence,
    torch.ops.emix.agent_sequence_backward: _agent_sequence_backward,
}
