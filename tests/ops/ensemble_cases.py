"""Random members [N, ..., A] with logits and masks, in float64, for the ops on ensembles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import moved

OPS = ["ensemble_moments", "uncertainty_weight", "explore_logits", "explore_actions"]


@dataclass
class Case:
    logits: Tensor  # [..., A]
    q: Tensor  # [N, ..., A]
    avail: Tensor | None  # [..., A]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Case:
        avail = None if self.avail is None else self.avail.to(device)
        return Case(self.logits.to(device, dtype), self.q.to(device, dtype), avail)

    def on(self, device: str) -> Case:
        """With the same strides."""
        avail = None if self.avail is None else moved(self.avail, device)
        return Case(moved(self.logits, device), moved(self.q, device), avail)


def make_case(
    seed: int,
    members: int,
    rows: tuple[int, ...],
    actions: int,
    *,
    masked: bool = True,
    strided: bool = False,
    scale: float = 1.0,
) -> Case:
    """Draw a case. Values have heavy tails, so that about half the gates are open; a masked row in six has no action.

    Every seventh place has members that agree.
    """
    g = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        if not strided:
            return torch.randn(shape, generator=g, dtype=torch.float64)
        reversed_axes = torch.randn([2 * size for size in reversed(shape)], generator=g, dtype=torch.float64)
        return reversed_axes.permute(*reversed(range(len(shape))))[tuple(slice(0, 2 * size, 2) for size in shape)]

    shape = (*rows, actions)
    q = scale * values(members, *shape).sign() * values(members, *shape).abs().pow(1.5)
    agree = torch.arange(q[0].numel()).reshape(shape) % 7 == 6
    q = torch.where(agree, q[:1], q)
    avail = torch.rand(shape, generator=g) < 0.7
    avail = avail & (torch.randint(0, 6, (*rows, 1), generator=g) > 0)
    if strided:
        q = q.permute(*reversed(range(q.dim()))).contiguous().permute(*reversed(range(q.dim())))
    return Case(values(*shape), q, avail if masked else None)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return make_case(
        draw(st.integers(0, 2**31)),
        draw(st.one_of(st.integers(2, 20), st.sampled_from([1, 31, 32, 33, 63, 64]))),
        draw(st.sampled_from([(), (0,), (1,), (5,), (31,), (33,), (70,), (4, 3, 2), (2, 0)])),
        draw(st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 97, 127, 128]))),
        masked=draw(st.booleans()),
        strided=draw(st.booleans()),
        scale=draw(st.sampled_from([0.01, 1.0, 30.0])),
    )


def run(name: str, case: Case) -> tuple[Tensor, ...]:
    """The results of one op; ``explore_actions`` under a seed of its own."""
    if name == "ensemble_moments":
        return tuple(ops.ensemble_moments(case.q))
    if name == "uncertainty_weight":
        return (ops.uncertainty_weight(case.q, 0.3),)
    if name == "explore_logits":
        return (ops.explore_logits(case.logits, case.q, case.avail, 0.5),)
    generator = torch.Generator(case.logits.device).manual_seed(7)
    return tuple(ops.explore_actions(case.logits, case.q, case.avail, bonus=0.5, floor=0.2, generator=generator))


def seeded(seed: int, logits: Tensor) -> tuple[torch.Generator, Tensor]:
    """A generator, and the seed that an op will draw from it."""
    first = torch.Generator(logits.device).manual_seed(seed)
    drawn = torch.randint(2**63 - 1, (1,), generator=first, device=logits.device)
    return torch.Generator(logits.device).manual_seed(seed), drawn
