"""Level-based foraging: environment steps per second of random actions, all episodes' starts included.

    pytest benchmarks/bench_foraging.py -s

The peer is lbforaging itself in this process, whose steps are those of ``lbf/<id>`` without worker processes.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from emix.bench.measure import median_times
from emix.envs import make
from emix.envs.lbf import Foraging, foraging_settings

STEPS = 50  # of an episode
NUM_ENVS = {"cpu": 4096, "cuda": 65536}
TASKS = ["8x8-2p-2f", "10x10-3p-5f", "2s-8x8-2p-2f-coop", "20x20-10p-3f"]


def play(env, actions):
    """An episode of every environment."""
    env.reset()
    for each in actions:
        env.step(each)


def play_peer(peer, actions):
    peer.reset(seed=0)
    for each in actions:
        peer.step(each)


@pytest.mark.parametrize("task", TASKS)
def test_steps_per_second(task, device):
    sight, _, rest = task.rpartition("s-")
    name = f"Foraging-{sight + 's-' if sight else ''}{rest}-v3"
    count = NUM_ENVS[device]
    env, peer = make(f"foraging/{name}", num_envs=count, device=device), Foraging(**foraging_settings(f"lbf/{name}"))
    shape = (STEPS, count, env.spec.n_agents)
    actions = torch.randint(6, shape, generator=torch.Generator().manual_seed(0))
    ours = partial(play, env, actions.to(device).unbind())
    theirs = partial(play_peer, peer, actions[:, 0].tolist())
    seconds = median_times({"emix": ours, "lbforaging": theirs}, torch.device(device), rounds=9)
    speed = {"emix": STEPS * count / seconds["emix"], "lbforaging": STEPS / seconds["lbforaging"]}
    print(
        f"\n{name} on {device}, median of 9: " + ", ".join(f"{who} {rate:,.0f} steps/s" for who, rate in speed.items())
    )
    assert speed["emix"] > speed["lbforaging"]
