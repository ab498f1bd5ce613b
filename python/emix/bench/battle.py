"""The battle simulator's speed: uniformly random available actions, finished battles started anew."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from emix import ops
from emix.bench.measure import size_in_bytes
from emix.envs.registry import make

# Battles at once, by device: enough that a step is long beside a launch and a thread's waking.
NUM_ENVS = {
    "cpu": {"3m": 1024, "2s3z": 512, "MMM2": 256, "27m_vs_30m": 128},
    "cuda": {"3m": 65_536, "2s3z": 32_768, "MMM2": 16_384, "27m_vs_30m": 4096},
}


@dataclass(frozen=True)
class BattleRow:
    """What was measured of a map."""

    map: str
    num_envs: int
    steps_per_second: float  # environment steps, of all battles; drawing actions and resets included
    simulator_steps_per_second: float  # the simulator's step alone
    bytes_per_step: int  # that a step returns, of one battle
    battle_won: float  # share of the episodes that ended


def measure_battle(
    map_name: str, device: torch.device, *, num_envs: int | None = None, rounds: int = 7, seconds: float = 0.5
) -> BattleRow:
    """Play ``map_name``: medians of ``rounds`` of ``seconds`` each, after one to warm up."""
    battles = num_envs or NUM_ENVS[device.type].get(map_name, 256)
    env = make(f"battle/{map_name}", num_envs=battles, device=device, seed=0, checked=False)
    step = env.reset()
    assert step.avail is not None
    logits = torch.zeros(step.avail.shape, device=device)  # [B, n, A]
    rates: list[tuple[float, float]] = []
    ended, won = torch.zeros((), device=device), torch.zeros((), device=device)
    for _ in range(rounds + 1):
        steps, inside, start = 0, 0.0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            actions = ops.sample_actions(logits, step.avail)  # [B, n]
            before = time.perf_counter()
            step = env.step(actions)
            inside += time.perf_counter() - before
            done = step.done
            ended, won = ended + done.sum(), won + (done & step.info["battle_won"]).sum()
            step = env.reset(done)
            steps += battles
        if device.type == "cuda":
            torch.cuda.synchronize()
            inside = time.perf_counter() - start  # the host only launches: there is no inside to see
        rates.append((steps / (time.perf_counter() - start), steps / inside))
    whole, simulator = (statistics.median(rate) for rate in zip(*rates[1:], strict=True))
    returned = size_in_bytes((step.obs, step.state, step.avail, step.reward, step.terminated, step.truncated))
    share = float(won / ended.clamp(min=1))
    return BattleRow(map_name, battles, whole, simulator, returned // battles, share)
