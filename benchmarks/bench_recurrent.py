"""The recurrent ops at SMAC's sizes beside torch.nn.GRU and the references, which unroll time in Python.

    pytest benchmarks/bench_recurrent.py

Forward, and forward and backward with gradients to the input and every weight; acting is one step for a few rows. Every
peer's results are compared with ours before they are timed. All is float32, as the rows say, and cuDNN is kept from
tf32; on CUDA ours come in the narrow precisions, too, named in the column. There the times are device times in a CUDA
graph. On the CPU what dominates the peers is fresh memory: compare them under the same allocator
(MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 keeps what was freed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from conftest import DEVICES
from torch import Tensor, nn

from emix import ops
from emix.nn.agent import RecurrentAgent

H = 64
SEQUENCES = {"3m": (96, 60), "2s3z": (160, 120), "MMM2": (320, 180)}  # rows (32 episodes x agents), steps
AGENTS = {"3m": (3, 30, 9), "2s3z": (5, 80, 11), "MMM2": (10, 176, 18)}  # agents, length of obs, actions

PEERS = ["emix", "nn.GRU", "unrolled"]
NARROW = {"emix tf32": 3e-2, "emix bf16": 1e-1}  # how far from ours in float32, relative to the norm
CASES = [(device, peer) for device in DEVICES for peer in [*PEERS, *(NARROW if device == "cuda" else ())]]

Call = Callable[[], tuple[Tensor, ...]]


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # nn.GRU's default is tf32
        yield


def of_ours(peer: str) -> dict[str, str]:
    """The precision in a peer's name."""
    return {"precision": peer.removeprefix("emix ")} if peer in NARROW else {}


def sequence_call(peer: str, rows: int, steps: int, device: str) -> tuple[Call, list[Tensor]]:
    """A call over x [R, T, H] and what gets a gradient. nn.GRU has time first, as it likes best."""
    torch.manual_seed(0)
    gru = nn.GRU(H, H).to(device)
    x, h0 = torch.randn(rows, steps, H, device=device), torch.zeros(rows, H, device=device)
    if peer == "nn.GRU":
        x = x.transpose(0, 1).contiguous()
    x.requires_grad_()
    wanted = [x, *gru.parameters()]
    if peer == "nn.GRU":
        return lambda: (gru(x, h0.unsqueeze(0))[0],), wanted
    module = ops.reference if peer == "unrolled" else ops
    return lambda: (module.gru_sequence(x, h0, *gru.parameters(), **of_ours(peer)),), wanted


def agent_call(
    peer: str, episodes: int, steps: int, sizes: tuple[int, int, int], device: str
) -> tuple[Call, list[Tensor]]:
    """A call of the whole agent and what gets a gradient; nn.GRU's has the same layers around it."""
    n, obs_dim, actions = sizes
    torch.manual_seed(0)
    agent = RecurrentAgent(obs_dim, actions, n, H).to(device)
    obs = torch.randn(episodes, steps, n, obs_dim, device=device)
    last_action = torch.randint(actions, (episodes, steps, n), device=device)
    h0 = torch.zeros(episodes, n, H, device=device)
    gru = nn.GRU(H, H, device=device)
    for key in gru.state_dict():
        setattr(gru, key, getattr(agent.gru, key))

    def layers() -> tuple[Tensor, ...]:
        from_obs, from_action, from_id = agent.encode.weight.split([obs_dim, actions, n], 1)
        e = nn.functional.linear(obs, from_obs, agent.encode.bias) + from_action.t()[last_action] + from_id.t()
        h, _ = gru(e.relu().transpose(0, 1).flatten(1, 2), h0.flatten(0, 1).unsqueeze(0))  # [T, B n, H]
        return agent.head(h).unflatten(1, (episodes, n)).transpose(0, 1), h[-1].unflatten(0, (episodes, n))

    weights = list(agent.parameters())  # in the order in which the ops take them
    module = ops.reference if peer == "unrolled" else ops
    fused = partial(module.agent_sequence, obs, last_action, h0, *weights, **of_ours(peer))
    return layers if peer == "nn.GRU" else fused, weights


def gradients(call: Call, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(call()[0].sum(), wanted)


def compare(peer: str, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], *, x_first: bool) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        turned = b.transpose(0, 1) if x_first and i == 0 and peer == "nn.GRU" else b
        if peer in NARROW:  # a ReLU that opens or closes changes single gradients by more
            assert (a - turned).norm() < NARROW[peer] * a.norm()
        else:
            torch.testing.assert_close(a, turned, rtol=1e-3, atol=1e-3 * (1 + a.abs().max().item()))


@pytest.mark.parametrize("direction", ["forward", "forward, backward"])
@pytest.mark.parametrize("size", SEQUENCES)
@pytest.mark.parametrize(("device", "peer"), CASES)
def test_gru(record: Callable[..., None], device: str, size: str, direction: str, peer: str) -> None:
    rows, steps = SEQUENCES[size]
    run(
        record,
        f"{device} gru {rows} x {steps}",
        device,
        direction,
        peer,
        lambda p: sequence_call(p, rows, steps, device),
    )


@pytest.mark.parametrize("direction", ["forward", "forward, backward"])
@pytest.mark.parametrize("size", AGENTS)
@pytest.mark.parametrize(("device", "peer"), CASES)
def test_agent(record: Callable[..., None], device: str, size: str, direction: str, peer: str) -> None:
    steps, sizes = SEQUENCES[size][1], AGENTS[size]
    run(record, f"{device} agent {size}", device, direction, peer, lambda p: agent_call(p, 32, steps, sizes, device))


@pytest.mark.parametrize(("device", "peer"), CASES)
def test_acting(record: Callable[..., None], device: str, peer: str) -> None:
    run(record, f"{device} act, 24 rows", device, "forward", peer, lambda p: agent_call(p, 8, 1, AGENTS["3m"], device))


def run(
    record: Callable[..., None],
    row: str,
    device: str,
    direction: str,
    peer: str,
    make: Callable[[str], tuple[Call, list[Tensor]]],
) -> None:
    (ours, our_wanted), (call, wanted) = make("emix"), make(peer)
    x_first, row = " gru " in row, f"{row}, float32"
    with torch.no_grad():
        compare(peer, ours(), call(), x_first=x_first)
    if direction == "forward":
        record(row, peer, torch.no_grad()(call), device)
        return
    compare(peer, gradients(ours, our_wanted), gradients(call, wanted), x_first=x_first)
    record(f"{row} backward", peer, partial(gradients, call, wanted), device)
