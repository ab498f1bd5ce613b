"""Random rows of logits, masks, actions and values, in float64, for the ops on policies and for sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.ops.cases import moved

INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
FLOORS = [0.0, 0.05, 1.0]


@dataclass
class Rows:
    logits: Tensor
    avail: Tensor | None
    action: Tensor
    value: Tensor
    floor: float

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Rows:
        avail = None if self.avail is None else self.avail.to(device)
        logits, value = self.logits.to(device, dtype), self.value.to(device, dtype)
        return Rows(logits, avail, self.action.to(device), value, self.floor)

    def on(self, device: str) -> Rows:
        """With the same strides."""
        avail = None if self.avail is None else moved(self.avail, device)
        return Rows(
            moved(self.logits, device), avail, moved(self.action, device), moved(self.value, device), self.floor
        )


def make_rows(
    seed: int,
    shape: tuple[int, ...],
    *,
    floor: float = 0.0,
    masked: bool = True,
    strided: bool = False,
    scale: float = 3.0,
    integer: torch.dtype = torch.int64,
) -> Rows:
    """Draw rows [..., A]: a masked one in six has no action available, one in six a single one."""
    g = torch.Generator().manual_seed(seed)
    *rows, actions = shape

    def values() -> Tensor:
        if not strided:
            return torch.randn(shape, generator=g, dtype=torch.float64)
        reversed_axes = torch.randn([2 * size for size in reversed(shape)], generator=g, dtype=torch.float64)
        return reversed_axes.permute(*reversed(range(len(shape))))[tuple(slice(0, 2 * size, 2) for size in shape)]

    avail = torch.rand(shape, generator=g) < 0.7
    kind = torch.randint(0, 6, (*rows, 1), generator=g)
    single = torch.arange(actions) == torch.randint(0, actions, (*rows, 1), generator=g)
    avail = torch.where(kind == 0, torch.zeros_like(avail), torch.where(kind == 1, single, avail))
    action = torch.randint(0, actions, rows, generator=g).to(integer)  # of an unavailable action, at times
    return Rows(values() * scale, avail if masked else None, action, values(), floor)


def all_terms(module: object, case: Rows) -> tuple[Tensor, ...]:
    terms = module.policy_terms(case.logits, case.action, case.avail, case.value, case.floor)
    return (*terms, module.masked_policy(case.logits, case.avail, case.floor))


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    return make_rows(
        draw(st.integers(0, 2**31)),
        (
            *draw(st.sampled_from([(), (0,), (1,), (5,), (31,), (33,), (70,), (4, 3, 2), (2, 0)])),
            draw(st.integers(1, 128)),
        ),
        floor=draw(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0])),
        masked=draw(st.booleans()),
        strided=draw(st.booleans()),
        scale=draw(st.sampled_from([0.01, 3.0, 100.0])),
        integer=draw(st.sampled_from(INTEGERS)),
    )
