"""The fused targets at SMAC sizes beside the references' composition, eager and compiled, and a copy of the same bytes.

    pytest benchmarks/bench_targets.py

Every peer's result is compared with ours before it is timed. On CUDA the times are device times in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from emix import ops

B, T, n, A, N = 32, 120, 10, 18, 10
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
# name: function, members (0: DOP's single critic), options
CASES = {
    "tree backup, Ensemble-MIX": ("tree_backup_target", N, {"lam": 0.93, "horizon": 5, "uncertainty_scale": 0.01}),
    "tree backup, mean only": ("tree_backup_target", N, {"lam": 0.93, "horizon": 5}),
    "tree backup, DOP": ("tree_backup_target", 0, {"lam": 0.93, "horizon": 5}),
    "TD(lambda), Ensemble-MIX": ("td_lambda_target", N, {"lam": 0.8, "uncertainty_scale": 0.01}),
}


@cache
def inputs(case: str, device: str) -> tuple[Tensor, ...]:
    name, members, _ = CASES[case]
    g = torch.Generator().manual_seed(0)
    q = torch.randn(*([members] if members else []), B, T + 1, n, A, generator=g)
    pi = torch.randn(B, T + 1, n, A, generator=g).softmax(-1)
    actions = torch.randint(A, (B, T + 1, n), generator=g)
    weight, bias = torch.rand(B, T + 1, n, generator=g), torch.randn(B, T + 1, generator=g)
    reward, terminated = torch.randn(B, T, generator=g), torch.rand(B, T, generator=g) < 0.02
    policy = (pi,) if name == "tree_backup_target" else ()
    return tuple(tensor.to(device) for tensor in (reward, terminated, q, *policy, actions, weight, bias))


@cache
def function(case: str, peer: str) -> Callable[..., Tensor]:
    name, _, options = CASES[case]
    call = partial(getattr(ops if peer == "emix" else ops.reference, name), gamma=0.99, **options)
    return torch.compile(call, dynamic=False, fullgraph=True) if peer == "compiled" else call


def run(case: str, peer: str, device: str) -> Tensor:
    return function(case, peer)(*inputs(case, device))


@pytest.mark.parametrize("peer", ["emix", "eager", "compiled"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_target(record: Callable[..., None], device: str, case: str, peer: str) -> None:
    torch.testing.assert_close(run(case, peer, device), run(case, "emix", device), rtol=1e-3, atol=1e-3)
    record(f"{device} {case}", peer, partial(run, case, peer, device), device)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_floor(record: Callable[..., None], device: str, case: str) -> None:
    """Read and write as many bytes as the target must; TD(lambda) reads lines of the values, so nearly all of them."""
    moved = sum(tensor.numel() * tensor.element_size() for tensor in inputs(case, device))
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    record(f"{device} {case}", "copy of the bytes", lambda: target.copy_(source), device)
