"""Random members [N, ..., A] with logits and masks, in float64, for the ops on ensembles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass
class Case:
    logits: Tensor  # [..., A]
    q: Tensor  # [N, ..., A]
    avail: Tensor | None  # [..., A]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Case:
        avail = None if self.avail is None else self.avail.to(device)
        return Case(self.logits.to(device, dtype), self.q.to(device, dtype), avail)


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


def relative_error(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    ours, reference = ours.cpu().double(), reference.cpu().double()
    return ((ours - reference).abs() / (1 + reference.abs())).max().item() if ours.numel() else 0.0
