"""The ensemble of critics at SMAC's sizes beside torch's batched products and a loop over members with one-hot inputs.

    pytest benchmarks/bench_critic.py

Forward, and forward and backward with gradients to every weight, over 16 + 32 episodes of Ensemble-MIX at full length;
a time step of these; and acting in 4 environments. Every peer's results are compared with ours before they are timed.
On CUDA ours are the batched products. The candidates take turns; all keep freed memory, as a training does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from emix import _host, ops
from emix.bench.choices import SPECS
from emix.nn.critic import EnsembleCritic
from emix.ops.critic import _products

PEERS = {"emix": ops.ensemble_critic, "products": _products, "loop": ops.reference.ensemble_critic}
EPISODES = 48


@pytest.mark.parametrize("members", [1, 10])
@pytest.mark.parametrize("what", ["acting", "a time step", "forward", "forward, backward"])
@pytest.mark.parametrize("map_name", ["3m", "2s3z"])
def test_critic(compare: Callable[..., None], map_name: str, what: str, members: int, device: str) -> None:
    _host.keep_freed_memory()
    spec = SPECS[map_name]
    torch.manual_seed(0)
    critic = EnsembleCritic(members, spec.state_dim, spec.obs_dim, spec.n_actions, spec.n_agents).to(device)
    steps = {"acting": 4, "a time step": EPISODES}.get(what, EPISODES * spec.episode_limit)
    state = torch.randn(steps, spec.state_dim, device=device)
    obs = torch.randn(steps, spec.n_agents, spec.obs_dim, device=device)
    weights = tuple(critic.parameters())

    def gradients(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(state, obs, *weights).sum(), weights)

    def values(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (function(state, obs, *weights),)

    call = values if what in ("acting", "forward") else gradients
    expected = call(ops.ensemble_critic)
    for peer in PEERS.values():
        for a, b in zip(call(peer), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * (1 + b.abs().max().item()))
    compare(f"{device} {map_name}, N {members}, {what}", {k: partial(call, v) for k, v in PEERS.items()}, device)
