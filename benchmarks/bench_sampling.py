"""sample_actions beside torch.multinomial, the reference, torch.compile of it, and writing the result's bytes.

    pytest benchmarks/bench_sampling.py

Before it is timed, a peer's mean frequency of every action is compared with ours. torch.multinomial gets the
probabilities ready-made, so its softmax and mask cost nothing here. On CUDA the times are device times in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from emix import ops

# rows, actions, samples (0: one draw a row, as int64)
SIZES = {
    "cpu": [(5_760, 9, 100), (38_400, 18, 0)],
    "cuda": [(640, 18, 0), (38_400, 18, 0), (38_400, 18, 100), (103_680, 36, 100)],
}


def inputs(rows: int, actions: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, actions, generator=g).to(device)
    avail = (torch.rand(rows, actions, generator=g) < 0.7).to(device)
    avail[:, 0] = True
    return logits, avail, ops.masked_policy(logits, avail)


def emix(logits: Tensor, avail: Tensor, pi: Tensor, samples: int) -> Tensor:
    return ops.sample_actions(logits, avail, samples=samples or None)


def eager(logits: Tensor, avail: Tensor, pi: Tensor, samples: int) -> Tensor:
    seed = torch.randint(2**63 - 1, (1,), device=logits.device)
    return ops.reference.sample_actions(logits, avail, seed, samples=samples or None)


def compiled(logits: Tensor, avail: Tensor, pi: Tensor, samples: int) -> Tensor:
    return compile_eager(logits.shape, logits.device, samples)(logits, avail, pi, samples)


@cache
def compile_eager(shape: torch.Size, device: torch.device, samples: int) -> Callable[..., Any]:
    torch.compiler.reset()  # one size at a time: else torch.compile would look for one program that fits all
    return torch.compile(eager, dynamic=False, fullgraph=True)


def multinomial(logits: Tensor, avail: Tensor, pi: Tensor, samples: int) -> Tensor:
    actions = torch.multinomial(pi, samples or 1, replacement=True)
    return actions.T if samples else actions[:, 0]


def cases() -> list[tuple[str, int, int, int]]:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [(device, *size) for device in devices for size in SIZES[device]]


def frequencies(actions: Tensor, count: int) -> Tensor:
    return torch.bincount(actions.flatten().long(), minlength=count) / actions.numel()


@pytest.mark.parametrize("peer", [emix, multinomial, eager, compiled])
@pytest.mark.parametrize(("device", "rows", "actions", "samples"), cases())
def test_sampling(
    record: Callable[..., None], device: str, rows: int, actions: int, samples: int, peer: Callable[..., Tensor]
) -> None:
    tensors = inputs(rows, actions, device)
    ours, theirs = (frequencies(f(*tensors, samples), actions) for f in (emix, peer))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=6 / (rows * max(1, samples)) ** 0.5)
    row = f"{device} {rows}x{actions} K {samples or 1}"
    record(row, peer.__name__, lambda: peer(*tensors, samples), device)


@pytest.mark.parametrize(("device", "rows", "actions", "samples"), cases())
def test_floor(record: Callable[..., None], device: str, rows: int, actions: int, samples: int) -> None:
    """Write as many bytes as the result has, which outnumber those read."""
    target = torch.empty(rows * (samples or 8), dtype=torch.uint8, device=device)
    record(f"{device} {rows}x{actions} K {samples or 1}", "fill of the bytes", lambda: target.fill_(1), device)
