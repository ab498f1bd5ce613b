"""Normal and tanh-normal policies beside the eager reference, torch.distributions and torch.compile of the formulas.

    pytest benchmarks/bench_gaussian.py

Forward, and forward with backward. The terms' results are compared with ours before they are timed; draws are other
ones in every peer, which draws by torch.randn. On CUDA the times are device times in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from emix import ops

SIZES = {"one batch of MuJoCo": (100, 6, 1), "4000 steps of MuJoCo": (4000, 2, 3), "prey": (1600, 3, 2)}  # [B, n, D]
Results = tuple[Tensor, ...]


def eager_terms(mean: Tensor, log_std: Tensor, action: Tensor) -> Results:
    return ops.reference.gaussian_terms(mean, log_std, action)


def torch_terms(mean: Tensor, log_std: Tensor, action: Tensor) -> Results:
    normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
    return normal.log_prob(action).sum(-1), normal.entropy().sum(-1)


def eager_sample(mean: Tensor, log_std: Tensor, _: Tensor) -> Results:
    e = torch.randn_like(mean)
    u = mean + log_std.exp() * e
    slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
    log_prob = -0.5 * e.square() - log_std - 0.5 * math.log(2 * math.pi) - slope
    return u.tanh(), log_prob.sum(-1)


def torch_sample(mean: Tensor, log_std: Tensor, _: Tensor) -> Results:
    normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
    transform = torch.distributions.TanhTransform(cache_size=1)
    squashed = torch.distributions.TransformedDistribution(normal, transform, validate_args=False)
    action = squashed.rsample()
    return action, squashed.log_prob(action).sum(-1)


PEERS: dict[str, dict[str, Callable[..., Results]]] = {
    "gaussian_terms": {"emix": ops.gaussian_terms, "eager": eager_terms, "torch.distributions": torch_terms},
    "tanh_gaussian_sample": {
        "emix": lambda mean, log_std, _: ops.tanh_gaussian_sample(mean, log_std),
        "eager": eager_sample,
        "torch.distributions": torch_sample,
    },
}


@pytest.mark.parametrize("way", ["forward", "forward, backward"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", PEERS)
def test_gaussian(compare: Callable[..., None], op: str, size: str, way: str, device: str) -> None:
    mean, log_std, action = (torch.randn(SIZES[size], device=device) / 2 for _ in range(3))
    wanted = [mean.requires_grad_(), log_std.requires_grad_()]
    torch.compiler.reset()
    peers = {**PEERS[op], "compile": torch.compile(PEERS[op]["eager"], dynamic=False)}

    def call(peer: Callable[..., Results]) -> Results:
        if way == "forward":
            with torch.no_grad():
                return peer(mean, log_std, action)
        results = peer(mean, log_std, action)
        return (*results, *torch.autograd.grad(results, wanted, [torch.ones_like(each) for each in results]))

    if op == "gaussian_terms":
        for peer in peers.values():
            torch.testing.assert_close(call(peer), call(ops.gaussian_terms), rtol=1e-4, atol=1e-4)
    candidates = {name: lambda peer=peer: call(peer) for name, peer in peers.items()}
    compare(f"{device} {op}, {size}, {way}", candidates, device)
