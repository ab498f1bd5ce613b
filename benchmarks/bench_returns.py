"""lambda_returns beside what a user would pick instead, and the floor: a copy of the same bytes.

    pytest benchmarks/bench_returns.py

Peers: the reference (a Python loop over time, eager), torch.compile of it, torchrl's vec_td_lambda_return_estimate
(`pip install torchrl`), rl-triton (CUDA only, if it is installed). Every peer's result is compared with ours before it
is timed. On CUDA the times are device times in a CUDA graph.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from emix import ops

GAMMA, LAM = 0.99, 0.8
SIZES = {
    "cpu": [(32, 60), (32, 120), (4096, 128)],
    "cuda": [(32, 60), (32, 120), (1024, 128), (4096, 128), (4096, 1024), (262144, 128)],
}
EAGER_UP_TO = 4096 * 128  # the loop and its compilation take minutes past this


def inputs(batch: int, steps: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    reward = torch.randn(batch, steps, generator=g).to(device)
    terminated = (torch.rand(batch, steps, generator=g) < 0.02).to(device)
    value = torch.randn(batch, steps + 1, generator=g).to(device)
    return reward, terminated, value


def ours(reward: Tensor, terminated: Tensor, value: Tensor) -> Tensor:
    return ops.lambda_returns(reward, terminated, value, gamma=GAMMA, lam=LAM)


def eager(reward: Tensor, terminated: Tensor, value: Tensor) -> Tensor:
    return ops.reference.lambda_returns(reward, terminated, value, gamma=GAMMA, lam=LAM)


def compiled(reward: Tensor, terminated: Tensor, value: Tensor) -> Tensor:
    return compile_eager(reward.shape, reward.device)(reward, terminated, value)


@cache
def compile_eager(shape: torch.Size, device: torch.device) -> Callable[..., Tensor]:
    torch.compiler.reset()  # one size at a time: else torch.compile would look for one program that fits all
    return torch.compile(eager, dynamic=False, fullgraph=True)


def torchrl(reward: Tensor, terminated: Tensor, value: Tensor) -> Tensor:
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    end = terminated[..., None]
    return functional.vec_td_lambda_return_estimate(GAMMA, LAM, value[:, 1:, None], reward[..., None], end, end)[..., 0]


def rl_triton(reward: Tensor, terminated: Tensor, value: Tensor) -> Tensor:
    peer = pytest.importorskip("rl_triton.ops.returns")
    return peer.compute_lambda_returns(reward, value[:, 1:], terminated.float(), GAMMA, LAM)


def cases() -> list[object]:
    found = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for batch, steps in SIZES[device]:
            peers: list[Callable[..., Tensor]] = [ours]
            if batch * steps <= EAGER_UP_TO:
                peers += [eager, compiled]
            peers += [torchrl] if device == "cpu" else [rl_triton]  # torchrl's vectorised form synchronises: no graph
            found += [
                pytest.param(device, batch, steps, peer, id=f"{device}-{batch}x{steps}-{peer.__name__}")
                for peer in peers
            ]
    return found


@pytest.mark.parametrize(("device", "batch", "steps", "peer"), cases())
def test_lambda_returns(
    record: Callable[..., None], device: str, batch: int, steps: int, peer: Callable[..., Tensor]
) -> None:
    tensors = inputs(batch, steps, device)
    torch.testing.assert_close(peer(*tensors), ours(*tensors), rtol=1e-3, atol=1e-3)
    record(f"{device} {batch}x{steps}", "emix" if peer is ours else peer.__name__, lambda: peer(*tensors), device)


@pytest.mark.parametrize(
    ("device", "batch", "steps"),
    [(d, *size) for d in SIZES for size in SIZES[d] if d == "cpu" or torch.cuda.is_available()],
)
def test_floor(record: Callable[..., None], device: str, batch: int, steps: int) -> None:
    """Read and write as many bytes as the op must."""
    moved = sum(t.numel() * t.element_size() for t in inputs(batch, steps, device)) + batch * steps * 4
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    record(f"{device} {batch}x{steps}", "copy of the bytes", lambda: target.copy_(source), device)


@pytest.mark.parametrize("name", ["lambda_returns", "gae", "n_step_returns", "tree_backup_returns", "retrace_returns"])
def test_overhead_of_a_call(name: str) -> None:
    """The whole call on four floats, in microseconds. The bound is wide: 3 is the aim on a quiet machine."""
    reward, terminated, value = inputs(1, 4, "cpu")
    extra = {"n_step_returns": {"n": 3}}.get(name, {"lam": LAM})
    arguments = (reward, terminated, *[value] * {"tree_backup_returns": 3, "retrace_returns": 3}.get(name, 1))
    op = getattr(ops, name)

    def call() -> None:
        op(*arguments, gamma=GAMMA, **extra)

    microseconds = min(timeit.repeat(call, number=20_000, repeat=7)) / 20_000 * 1e6
    print(f"\n{name}: {microseconds:.2f} us a call")
    assert microseconds < 12
