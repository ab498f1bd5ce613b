"""PERLA's critic over K joint actions beside what is written without the op, and the memory that each takes.

    pytest benchmarks/bench_marginal.py -s

Peers: the reference (one-hot inputs, K forward passes), the gathered form (rows of W_action summed over agents, the
own one taken off again, then the layers) and torch.compile of it. Forward, and forward and backward with the gradients
of every weight; ten episodes of 180 states with MMM2's 10 agents and 18 actions, and 2 of these episodes for the
reference too, which needs gigabytes. Then teams of 2 and 3 with 6 actions, whose K joint actions are few different
ones: from uniform policies, and from those that take one action in 9 of 10 cases. Every peer's result is compared with
ours before it is timed; the candidates take turns. Memory: the most that a call allocates over what is there before and
after it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from emix import ops
from emix.bench.measure import size_in_bytes

H = 64
EPISODE = 180
Inputs = tuple[Tensor, ...]


def inputs(states: int, samples: int, device: str, n: int = 10, A: int = 18, likeliest: float | None = None) -> Inputs:
    """`likeliest`: the probability of each policy's first action; None: uniform."""
    g = torch.Generator().manual_seed(0)
    shapes = {"first": (states, n, H), "w_action": (n, A, H), "w_hidden": (H, H), "b_hidden": (H,), "w_head": (H,)}
    first, w_action, *rest = ((torch.randn(shape, generator=g) / 4).to(device) for shape in shapes.values())
    policy = torch.ones(A)  # relative to one another
    if likeliest is not None:
        policy[0] = (A - 1) * likeliest / (1 - likeliest)
    actions = policy.multinomial(samples * states * n, replacement=True, generator=g)
    actions = actions.view(samples, states, n).byte().to(device)
    weights = [each.requires_grad_() for each in (first, w_action, *rest, torch.zeros((), device=device))]
    return weights[0], actions, *weights[1:]


def gathered(
    first: Tensor,
    actions: Tensor,
    w_action: Tensor,
    w_hidden: Tensor,
    b_hidden: Tensor,
    w_head: Tensor,
    b_head: Tensor,
) -> Tensor:
    share = w_action[torch.arange(w_action.shape[0], device=first.device), actions.long()]  # [K, R, n, H]
    x = (first + (share.sum(-2, keepdim=True) - share)).relu()
    y = (x @ w_hidden + b_hidden).relu().mean(0)  # [R, n, H]
    return y @ w_head + b_head


def forward(function: Callable[..., Tensor], tensors: Inputs) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (function(*tensors),)


def both_ways(function: Callable[..., Tensor], tensors: Inputs) -> tuple[Tensor, ...]:
    value = function(*tensors)
    return value, *torch.autograd.grad(value.sum(), [each for each in tensors if each.requires_grad])


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """The most memory that a call has at once, over what there was before."""
    call()  # what is kept from call to call
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # so that freed memory is no longer ours
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the most begins anew
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


WAYS = {"forward": forward, "forward, backward": both_ways}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("samples", [1, 100])
@pytest.mark.parametrize("states", [EPISODE, 10 * EPISODE])
def test_marginal_value(compare: Callable[..., None], states: int, samples: int, way: str, device: str) -> None:
    with_naive = states * samples <= 100 * EPISODE
    row = f"{device} {states} states, K {samples}, {way}"
    compare_peers(compare, row, way, inputs(states, samples, device), device, with_naive)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("likeliest", [None, 0.9])
@pytest.mark.parametrize("n", [2, 3])
def test_small_teams(compare: Callable[..., None], n: int, likeliest: float | None, way: str, device: str) -> None:
    row = f"{device} 500 states, K 100, {n} agents, {'uniform' if likeliest is None else 'sure'}, {way}"
    compare_peers(compare, row, way, inputs(500, 100, device, n, 6, likeliest), device, with_naive=True)


def compare_peers(
    compare: Callable[..., None], row: str, way: str, tensors: Inputs, device: str, with_naive: bool
) -> None:
    torch.compiler.reset()
    peers: dict[str, Callable[..., Tensor]] = {
        "emix": ops.marginal_value,
        "gathered": gathered,
        "compile of gathered": torch.compile(gathered, dynamic=False),
    }
    if with_naive:
        peers["naive"] = ops.reference.marginal_value
    call = WAYS[way]
    expected = call(ops.marginal_value, tensors)
    for peer in peers.values():
        for a, b in zip(call(peer, tensors), expected, strict=True):
            assert (a - b).norm() < 1e-3 * (1 + b.norm())  # a ReLU may open where a peer's rounding keeps it closed
    compare(row, {name: partial(call, peer, tensors) for name, peer in peers.items()}, device)


@pytest.mark.parametrize("way", WAYS)
def test_memory(way: str, device: str) -> None:
    """At K = 100 a tenth of the naive one's at most, and less than three times that of K = 1, inputs included."""
    tensors = inputs(EPISODE, 100, device)
    peers = {"emix": ops.marginal_value, "gathered": gathered, "naive": ops.reference.marginal_value}
    found = {name: peak_bytes(partial(WAYS[way], peer, tensors), device) for name, peer in peers.items()}
    one = inputs(EPISODE, 1, device)
    found["emix, K 1"] = peak_bytes(partial(WAYS[way], ops.marginal_value, one), device)
    print({name: f"{size / 2**20:.1f} MiB" for name, size in found.items()})
    assert 10 * found["emix"] < found["naive"]
    assert size_in_bytes(tensors) + found["emix"] < 3 * (size_in_bytes(one) + found["emix, K 1"])
