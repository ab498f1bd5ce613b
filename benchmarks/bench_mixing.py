"""The mixers at SMAC sizes beside their references, eager and compiled, and the floor: a copy of the same bytes.

    pytest benchmarks/bench_mixing.py

Forward alone, and forward and backward with gradients to every input. Every peer's results are compared with ours
before they are timed. On CUDA the times are device times in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from emix import ops

B, T, n, A, E = 32, 120, 10, 18, 32
MANY = "monotonic_mix of n"  # values, as ADER's entropy critics have
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
FORWARD = ["linear_mix", "expected_linear_mix", "monotonic_mix", MANY, "monotonic_mix_grad"]
PEERS = ["emix", "eager", "compiled"]


@cache
def inputs(name: str, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(B, T, *shape, generator=g).to(device)

    if name == "linear_mix":
        return normal(n), normal(n).abs(), normal()
    if name == "expected_linear_mix":
        return normal(n, A), normal(n, A).softmax(-1), normal(n).abs(), normal(), normal(n, A).sigmoid() + 0.5
    if name == MANY:
        return normal(n), normal(n, E), normal(E), normal(E, n), normal(n)
    tensors = normal(n), normal(n, E), normal(E), normal(E)
    return tensors if name == "monotonic_mix_grad" else (*tensors, normal())


@cache
def function(name: str, peer: str) -> Callable[..., Tensor]:
    word = name.removesuffix(" of n")
    if peer == "emix":
        return getattr(ops, word)
    reference = getattr(ops.reference, word)
    return torch.compile(reference, dynamic=False, fullgraph=True) if peer == "compiled" else reference


def forward(name: str, peer: str, device: str) -> Tensor:
    return function(name, peer)(*inputs(name, device))


def forward_backward(name: str, peer: str, device: str) -> tuple[Tensor, ...]:
    tensors = [tensor.detach().requires_grad_() for tensor in inputs(name, device)]
    return torch.autograd.grad(function(name, peer)(*tensors).sum(), tensors)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("device", DEVICES)
def test_forward(record: Callable[..., None], device: str, name: str, peer: str) -> None:
    torch.testing.assert_close(forward(name, peer, device), forward(name, "emix", device), rtol=1e-4, atol=1e-4)
    record(f"{device} {name}", peer, partial(forward, name, peer, device), device)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", FORWARD[:4])
@pytest.mark.parametrize("device", DEVICES)
def test_forward_backward(record: Callable[..., None], device: str, name: str, peer: str) -> None:
    for theirs, ours in zip(forward_backward(name, peer, device), forward_backward(name, "emix", device), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    record(f"{device} {name} backward", peer, partial(forward_backward, name, peer, device), device)


@pytest.mark.parametrize("passes", [1, 3], ids=["forward", "backward"])  # the backward reads inputs, writes gradients
@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("device", DEVICES)
def test_floor(record: Callable[..., None], device: str, name: str, passes: int) -> None:
    """Read and write as many bytes as the op must."""
    if passes == 3 and name == "monotonic_mix_grad":
        pytest.skip("it has no backward pass")
    moved = passes * sum(tensor.numel() * tensor.element_size() for tensor in inputs(name, device))
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    row = f"{device} {name}{' backward' if passes == 3 else ''}"
    record(row, "copy of the bytes", lambda: target.copy_(source), device)
