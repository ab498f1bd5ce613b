"""The battle simulator: environment steps per second with uniformly random available actions, as ``emix bench battle``.

    pytest benchmarks/bench_battle.py -s

Drawing the actions, the steps with their observations, state and availability, and resets of what has ended. SMAC's
peers on two CPU cores: SMAX (JaxMARL 0.2) 97k steps/s on 3m, 42k on 2s3z, 2.6k on 27m_vs_30m; SMAClite 188 on 2s3z, 80
on MMM2, 49 on 27m_vs_30m.
"""

from __future__ import annotations

import pytest
import torch

from emix.bench.battle import NUM_ENVS, measure_battle


@pytest.mark.parametrize("map_name", list(NUM_ENVS["cpu"]))
def test_steps_per_second(map_name: str, device: str) -> None:
    row = measure_battle(map_name, torch.device(device))
    print(f"\n{map_name}: {row.steps_per_second:,.0f} environment steps/s")
    assert row.steps_per_second > 0
