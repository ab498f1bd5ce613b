"""The hypernetworks of ADER's mixers beside torch's batched products and a loop over members, at SMAC's sizes.

    pytest benchmarks/bench_hypernetwork.py

Forward, and forward and backward with gradients to every weight, over 32 episodes at full length; one value a mixer,
and one for each agent. Every peer's results are compared with ours before they are timed. On CUDA ours are the batched
products. The candidates take turns; all keep freed memory, as a training does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from emix import _host, ops
from emix.bench.choices import SPECS
from emix.ops.hypernetwork import _products

PEERS = {"emix": ops.monotonic_weights, "products": _products, "loop": ops.reference.monotonic_weights}
MEMBERS, EPISODES, E, K = 2, 32, 32, 64


@pytest.mark.parametrize("values", ["one value", "n values"])
@pytest.mark.parametrize("what", ["forward", "forward, backward"])
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_hypernetwork(compare: Callable[..., None], map_name: str, what: str, values: str, device: str) -> None:
    _host.keep_freed_memory()
    spec = SPECS[map_name]
    n, S, m = spec.n_agents, spec.state_dim, 1 if values == "one value" else spec.n_agents
    torch.manual_seed(0)
    state = torch.randn(EPISODES * spec.episode_limit, S, device=device)
    shapes = [(2 * E + 2 * K, S), (2 * E + 2 * K,), (E, m), (m,), (K, n * E), (n * E,), (K, E * m), (E * m,)]
    weights = [(0.1 * torch.randn(MEMBERS, *shape, device=device)).requires_grad_() for shape in shapes]

    def gradients(function: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        results = function(state, *weights)
        return torch.autograd.grad(results, weights, [torch.ones_like(each) for each in results])

    def forward(function: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return function(state, *weights)

    call = forward if what == "forward" else gradients
    expected = call(ops.monotonic_weights)
    for peer in PEERS.values():
        for a, b in zip(call(peer), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * (1 + b.abs().max().item()))
    compare(f"{device} {map_name}, {values}, {what}", {k: partial(call, v) for k, v in PEERS.items()}, device)
