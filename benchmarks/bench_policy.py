"""masked_policy and policy_terms beside the eager reference, torch.compile of it, and a copy of the same bytes.

    pytest benchmarks/bench_policy.py

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

SIZES = {"cpu": [(38_400, 18)], "cuda": [(38_400, 18), (103_680, 36), (1_000_000, 36)]}  # rows, actions
OPS = ["masked_policy", "policy_terms"]
FLOORS = [0.0, 0.05]


def inputs(op: str, rows: int, actions: int, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    logits, value = torch.randn(2, rows, actions, generator=g).to(device)
    avail = (torch.rand(rows, actions, generator=g) < 0.7).to(device)
    avail[:, 0] = True
    action = torch.zeros(rows, dtype=torch.int64, device=device)
    logits.requires_grad_()
    return (logits, avail) if op == "masked_policy" else (logits, action, avail, value)


def call(module: object, op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    result = getattr(module, op)(*tensors, floor=floor)
    return (result,) if isinstance(result, Tensor) else tuple(result)


def emix(op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    return call(ops, op, tensors, floor)


def eager(op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    return call(ops.reference, op, tensors, floor)


def compiled(op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    return compile_eager(op, tensors[0].shape, tensors[0].device)(op, tensors, floor)


@cache
def compile_eager(op: str, shape: torch.Size, device: torch.device) -> Callable[..., Any]:
    torch.compiler.reset()  # one size at a time: else torch.compile would look for one program that fits all
    return torch.compile(eager, dynamic=False, fullgraph=True)


def both_ways(peer: Callable[..., Any], op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    results = peer(op, tensors, floor)
    upstream = [torch.ones_like(result) for result in results]
    return (*results, *torch.autograd.grad(results, tensors[0], upstream))


def forward(peer: Callable[..., Any], op: str, tensors: tuple[Tensor, ...], floor: float) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return peer(op, tensors, floor)


def cases() -> list[tuple[str, int, int]]:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [(device, *size) for device in devices for size in SIZES[device]]


@pytest.mark.parametrize("peer", [emix, eager, compiled])
@pytest.mark.parametrize("direction", [forward, both_ways])
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("device", "rows", "actions"), cases())
def test_policy(
    record: Callable[..., None],
    device: str,
    rows: int,
    actions: int,
    op: str,
    floor: float,
    direction: Callable[..., Any],
    peer: Callable[..., Any],
) -> None:
    tensors = inputs(op, rows, actions, device)
    results, expected = direction(peer, op, tensors, floor), direction(emix, op, tensors, floor)
    torch.testing.assert_close(results, expected, rtol=1e-3, atol=1e-4)
    row = f"{device} {op} {rows}x{actions} floor {floor} {direction.__name__}"
    record(row, peer.__name__, lambda: direction(peer, op, tensors, floor), device)


@pytest.mark.parametrize("direction", [forward, both_ways])
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("device", "rows", "actions"), cases())
def test_floor(
    record: Callable[..., None], device: str, rows: int, actions: int, op: str, floor: float, direction: Callable
) -> None:
    """Read and write as many bytes as the op must: its inputs, twice with a backward pass, and its results."""
    tensors = inputs(op, rows, actions, device)
    results = direction(emix, op, tensors, floor)
    passes = 2 if direction is both_ways else 1
    moved = passes * sum(t.nbytes for t in tensors) + sum(t.nbytes for t in results)
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    row = f"{device} {op} {rows}x{actions} floor {floor} {direction.__name__}"
    record(row, "copy of the bytes", lambda: target.copy_(source), device)
