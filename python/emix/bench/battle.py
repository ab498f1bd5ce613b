"""The battle simulator's speed: uniformly random available actions, finished battles started anew."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from emix import ops
from emix.bench.measure import graphed, median_times, size_in_bytes
from emix.data import Step
from emix.envs.battle.env import BattleEnv
from emix.envs.battle.fields import CLOCK
from emix.envs.registry import make

# Battles at once, by device: enough that a step is long beside a launch and a thread's waking.
NUM_ENVS = {
    "cpu": {"3m": 1024, "2s3z": 512, "MMM2": 256, "27m_vs_30m": 128},
    "cuda": {"3m": 65_536, "2s3z": 32_768, "MMM2": 16_384, "27m_vs_30m": 4096},
}
BLOCK = 8  # steps between two resets, which observe every battle once more


@dataclass(frozen=True)
class BattleRow:
    """What was measured of a map."""

    map: str
    num_envs: int
    steps_per_second: float  # environment steps, of all battles; drawing actions and resets included
    simulator_steps_per_second: float | None  # the simulator's step alone, on the CPU
    bytes_per_step: int  # that a step returns, of one battle
    battle_won: float  # share of the episodes that ended

    def as_json(self) -> dict[str, Any]:
        """Environment steps per second."""
        return {"map": self.map, "envs": self.num_envs, "steps_per_s": self.steps_per_second}


class _Play:
    """Battles under way: ``block`` plays the next 8 steps. It reads and writes tensors that stay where they are, so
    that a CUDA graph can repeat it."""

    def __init__(self, env: BattleEnv) -> None:
        self.env = env
        self.avail = _avail(env.reset()).clone()  # [B, n, A]
        self.logits = torch.zeros(self.avail.shape, device=env.device)  # [B, n, A]
        # Environment steps played, blocks, episodes that ended, and those that were won.
        self.counts = torch.zeros(4, dtype=torch.int64, device=env.device)
        self.seconds = self.inside = 0.0  # of the host: in all, and in the simulator's steps

    def block(self) -> None:
        """One launch sequence a step, and a reset of what has ended behind the last. A battle that ended waits until
        then, and its waiting is no step."""
        begin = time.perf_counter()
        clock, avail = self.env.clock[:, CLOCK["step"]], self.avail
        before = clock.sum()
        for _ in range(BLOCK):
            actions = ops.sample_actions(self.logits, avail)  # [B, n]
            start = time.perf_counter()
            step = self.env.step(actions)
            self.inside += time.perf_counter() - start
            avail = _avail(step)
        done = step.done
        won = done & step.info["battle_won"]
        self.counts += torch.stack([clock.sum() - before, torch.ones_like(before), done.sum(), won.sum()])
        self.avail.copy_(_avail(self.env.reset(done)))
        self.seconds += time.perf_counter() - begin


def _avail(step: Step) -> Tensor:
    """What a battle, whose actions are discrete, always has."""
    return cast("Tensor", step.avail)


def measure_battle(
    map_name: str, device: torch.device, *, num_envs: int | None = None, rounds: int = 7, seconds: float = 0.5
) -> BattleRow:
    """Play ``map_name``: the median of ``rounds`` of ``seconds`` each."""
    battles = num_envs or NUM_ENVS[device.type].get(map_name, 256)
    env: Any = make(f"battle/{map_name}", num_envs=battles, device=device, seed=0, checked=False)
    play = _Play(env)
    call = graphed(play.block, 1) if device.type == "cuda" else play.block
    median = median_times({"block": call}, device, rounds=rounds, slice_=seconds)["block"]
    steps, blocks, ended, won = play.counts.tolist()
    rate = steps / blocks / median
    alone = rate * play.seconds / play.inside if device.type == "cpu" else None  # on CUDA the host only launches
    step = env.reset(torch.zeros(battles, dtype=torch.bool, device=device))
    returned = size_in_bytes((step.obs, step.state, step.avail, step.reward, step.terminated, step.truncated))
    return BattleRow(map_name, battles, rate, alone, returned // battles, won / max(1, ended))
