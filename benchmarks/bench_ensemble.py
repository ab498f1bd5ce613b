"""The ensemble's ops beside the eager reference, torch.compile of it, and a copy of the same bytes.

    pytest benchmarks/bench_ensemble.py

Moments and weights at a batch's size, forward and forward with backward; acting at that of one environment step, where
the peers draw with torch.multinomial. Every peer's result is compared with ours before it is timed. On CUDA the times
are device times in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from emix import ops

MEMBERS, ACTIONS, FLOOR = 10, 18, 0.05
BATCH = 32 * 120 * 10  # episodes, steps, agents
ACTING = [30, 320]  # environments times agents
SIZES = {"cpu": [BATCH], "cuda": [BATCH, 1_860_000]}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

Call = Callable[..., Any]


def inputs(rows: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, ACTIONS, generator=g)
    q = torch.randn(MEMBERS, rows, ACTIONS, generator=g)
    avail = torch.rand(rows, ACTIONS, generator=g) < 0.7
    avail[:, 0] = True
    return logits.to(device), q.to(device), avail.to(device)


def moments(module: Any, logits: Tensor, q: Tensor, avail: Tensor) -> Any:
    return module.ensemble_moments(q)


def weights(module: Any, logits: Tensor, q: Tensor, avail: Tensor) -> Any:
    return (module.uncertainty_weight(q),)


def explored(module: Any, logits: Tensor, q: Tensor, avail: Tensor) -> Any:
    return (module.explore_logits(logits, q, avail),)


def acting(module: Any, logits: Tensor, q: Tensor, avail: Tensor) -> Any:
    """Action, probability, gate; the reference's are what a learner writes with torch.multinomial."""
    if module is ops:
        return module.explore_actions(logits, q, avail, floor=FLOOR)
    bonus, gate = module.ensemble._bonus(q, avail, 0.001)
    pi = module.masked_policy(logits + bonus, avail, FLOOR)
    action = torch.multinomial(pi, 1)
    return action[:, 0], pi.gather(1, action)[:, 0], gate


def emix(call: Call, tensors: tuple[Tensor, ...]) -> Any:
    return call(ops, *tensors)


def eager(call: Call, tensors: tuple[Tensor, ...]) -> Any:
    return call(ops.reference, *tensors)


def compiled(call: Call, tensors: tuple[Tensor, ...]) -> Any:
    return compile_eager(call, tensors[0].shape, tensors[0].device)(call, tensors)


@cache
def compile_eager(call: Call, shape: torch.Size, device: torch.device) -> Call:
    torch.compiler.reset()  # one size at a time: else torch.compile would look for one program that fits all
    return torch.compile(eager, dynamic=False, fullgraph=True)


def copy_of(moved: int, device: str) -> Callable[[], object]:
    """Read and write as many bytes as the op must."""
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def sizes() -> list[tuple[str, int]]:
    return [(device, rows) for device in DEVICES for rows in SIZES[device]]


@pytest.mark.parametrize("peer", [emix, eager, compiled])
@pytest.mark.parametrize("call", [moments, weights, explored])
@pytest.mark.parametrize(("device", "rows"), sizes())
def test_forward(record: Callable[..., None], device: str, rows: int, call: Call, peer: Call) -> None:
    tensors = inputs(rows, device)
    for theirs, ours in zip(peer(call, tensors), emix(call, tensors), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    row = f"{device} {call.__name__} {rows}"
    record(row, peer.__name__, lambda: peer(call, tensors), device)


@pytest.mark.parametrize("peer", [emix, eager, compiled])
@pytest.mark.parametrize(("device", "rows"), sizes())
def test_moments_both_ways(record: Callable[..., None], device: str, rows: int, peer: Call) -> None:
    tensors = inputs(rows, device)
    q = tensors[1].requires_grad_()
    upstream = [torch.ones_like(tensors[0])] * 3

    def both(peer: Call) -> Tensor:
        return torch.autograd.grad(tuple(peer(moments, tensors)), q, upstream)[0]

    torch.testing.assert_close(both(peer), both(emix), rtol=1e-3, atol=1e-3)
    row = f"{device} moments both ways {rows}"
    record(row, peer.__name__, lambda: both(peer), device)


@pytest.mark.parametrize("call", ["moments", "weights", "explored", "moments both ways"])
@pytest.mark.parametrize(("device", "rows"), sizes())
def test_floor(record: Callable[..., None], device: str, rows: int, call: str) -> None:
    places = rows * ACTIONS
    floats = {"moments": 3, "weights": 1, "explored": 2, "moments both ways": 6 + 2 * MEMBERS}[call] + MEMBERS
    moved = places * (4 * floats + (call == "explored"))
    record(f"{device} {call} {rows}", "copy of the bytes", copy_of(moved, device), device)


@pytest.mark.parametrize("peer", [emix, eager, compiled])
@pytest.mark.parametrize("rows", ACTING)
@pytest.mark.parametrize("device", DEVICES)
def test_acting(record: Callable[..., None], device: str, rows: int, peer: Call) -> None:
    tensors = inputs(rows, device)
    action, probability, gate = peer(acting, tensors)
    assert torch.equal(gate, emix(acting, tensors).open)
    bonus = ops.reference.ensemble._bonus(tensors[1], tensors[2], 0.001)[0]
    pi = ops.masked_policy(tensors[0] + bonus, tensors[2], FLOOR)
    torch.testing.assert_close(pi.gather(1, action[:, None])[:, 0], probability, rtol=1e-3, atol=1e-5)
    record(f"{device} acting {rows}", peer.__name__, lambda: peer(acting, tensors), device)
