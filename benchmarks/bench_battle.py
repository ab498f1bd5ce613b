"""The battle simulator: environment steps per second with uniformly random available actions, and memory.

    pytest benchmarks/bench_battle.py --benchmark-enable

A round is one step of all battles: drawing the actions, the step with its observations, state and availability, and a
reset of what has ended. SMAC's peers on two CPU cores: SMAX (JaxMARL 0.2) 97k steps/s on 3m, 42k on 2s3z, 2.6k on
27m_vs_30m; SMAClite 188 on 2s3z, 80 on MMM2, 49 on 27m_vs_30m.
"""

from __future__ import annotations

import pytest
import torch

import emix
from emix import ops
from emix.bench.battle import NUM_ENVS


@pytest.mark.parametrize("map_name", list(NUM_ENVS["cpu"]))
def test_steps_per_second(map_name: str, device: str, benchmark) -> None:
    battles = NUM_ENVS[device][map_name]
    env = emix.make(f"battle/{map_name}", num_envs=battles, device=device, seed=0, checked=False)
    step = env.reset()
    logits = torch.zeros(step.avail.shape, device=device)  # [B, n, A]

    def play() -> None:
        nonlocal step
        step = env.step(ops.sample_actions(logits, step.avail))
        step = env.reset(step.done)
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = "battle"
    benchmark.pedantic(play, rounds=100, warmup_rounds=20)
    benchmark.extra_info["steps_per_second"] = rate = battles / benchmark.stats.stats.median
    assert step.obs.isfinite().all()
    print(f"\n{map_name}: {rate:,.0f} environment steps/s")
