"""bhattacharyya beside the eager reference, torch.compile of it, and a copy of the same bytes.

    pytest benchmarks/bench_diversity.py

Forward, and forward with backward. Every peer's result is compared with ours before it is timed. On CUDA the times are
device times in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from emix import ops

MEMBERS, ACTIONS = 10, 18
BATCH = 32 * 120 * 10  # episodes, steps, agents
SIZES = {"cpu": [BATCH], "cuda": [BATCH, 1_000_000]}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

Call = Callable[..., Any]


def inputs(rows: int, device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    q = torch.randn(MEMBERS, rows, ACTIONS, generator=g)
    avail = torch.rand(rows, ACTIONS, generator=g) < 0.7
    avail[:, 0] = True
    return q.to(device).requires_grad_(), avail.to(device)


def emix(q: Tensor, avail: Tensor) -> Tensor:
    return ops.bhattacharyya(q, avail)


def eager(q: Tensor, avail: Tensor) -> Tensor:
    return ops.reference.bhattacharyya(q, avail)


def compiled(q: Tensor, avail: Tensor) -> Tensor:
    return compile_eager(q.shape, q.device)(q, avail)


@cache
def compile_eager(shape: torch.Size, device: torch.device) -> Call:
    torch.compiler.reset()  # one size at a time: else torch.compile would look for one program that fits all
    return torch.compile(eager, dynamic=False, fullgraph=True)


def forward(peer: Call, q: Tensor, avail: Tensor) -> Tensor:
    with torch.no_grad():
        return peer(q, avail)


def both_ways(peer: Call, q: Tensor, avail: Tensor) -> Tensor:
    return torch.autograd.grad(peer(q, avail).sum(), q)[0]


@pytest.mark.parametrize("peer", [emix, eager, compiled])
@pytest.mark.parametrize("direction", [forward, both_ways])
@pytest.mark.parametrize(("device", "rows"), [(device, rows) for device in DEVICES for rows in SIZES[device]])
def test_bhattacharyya(record: Callable[..., None], device: str, rows: int, direction: Call, peer: Call) -> None:
    q, avail = inputs(rows, device)
    torch.testing.assert_close(direction(peer, q, avail), direction(emix, q, avail), rtol=1e-3, atol=1e-4)
    row = f"{device} {direction.__name__} {rows}"
    record(row, peer.__name__, lambda: direction(peer, q, avail), device)


@pytest.mark.parametrize("direction", [forward, both_ways])
@pytest.mark.parametrize(("device", "rows"), [(device, rows) for device in DEVICES for rows in SIZES[device]])
def test_floor(record: Callable[..., None], device: str, rows: int, direction: Call) -> None:
    """Read and write as many bytes as the op must."""
    passes = 1 if direction is forward else 2
    moved = rows * (passes * (4 * MEMBERS * ACTIONS + ACTIONS + 4) + (passes - 1) * 4 * MEMBERS * ACTIONS)
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    record(f"{device} {direction.__name__} {rows}", "copy of the bytes", lambda: target.copy_(source), device)
