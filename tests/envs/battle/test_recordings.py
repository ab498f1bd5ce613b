"""How armies move, against recordings of StarCraft II on SMAC's maps (github.com/xmy86/LLM-SMAC, `asset/*.gif`; 2s3z:
github.com/hahayonghuming/VDACs, `replays`).

Read off their frames. Marines of 10m_vs_11m and of 27m_vs_30m stand 13.0 pixels apart, which are 0.75 cells, and walk
2.9 pixels a frame: a frame is 1.19 game loops, a cell 17.4 pixels across (and about 13.7 in depth). Bounds are wider
than what was read. 2s_vs_1sc: logs of PyMARL's training in StarCraft II (github.com/lovewilling0923/pymarl-rlc).
"""

import pytest
import torch

import emix
from emix.envs.battle.fields import MIND, ORDER, UNIT
from tests.envs.battle.play import attack_move, first_target

BATTLES = 32


def against_a_line(name, apart):
    """The enemies march on the allies, who stand in a line from south to north and shoot whom they reach.

    Yields, after every step from the first in which somebody holds to shoot, [B, enemies] of the enemies: y, whether it
    lives, and whether it holds.
    """
    env = emix.make(f"battle/{name}", num_envs=BATTLES, seed=1, checked=False)
    step = env.reset()
    n, first = env.spec.n_agents, env.scenario.enemy_slot
    enemies = slice(first, first + len(env.scenario.enemies))
    env.units[:, UNIT["x"], :n] = 12.0
    env.units[:, UNIT["y"], :n] = 16 + apart * (torch.arange(n) - (n - 1) / 2)
    env.minds[:, MIND["order"], :n] = ORDER["guard"]
    wait = torch.zeros(BATTLES, n, dtype=torch.int64)
    began = torch.zeros(BATTLES, dtype=torch.bool)
    while not step.done.any():
        step = env.step(wait)
        held = env.minds[:, MIND["held"], enemies] > 0
        began |= held.any(1)
        if began.all():
            yield env.units[:, UNIT["y"], enemies], env.units[:, UNIT["health"], enemies] > 0, held


def test_marines_unfold_before_a_line():
    """10m_vs_11m: four deep when the first shoot, and 25 loops later in one line, but for one or two."""
    shares = [float((held & alive).sum() / alive.sum()) for _, alive, held in against_a_line("10m_vs_11m", 0.83)]
    assert shares[0] < 0.5
    assert shares[4] > 0.7, shares[:9]
    assert max(shares[4:9]) > 0.85, shares[:9]


def test_a_crowd_parts_in_the_middle_and_flows_out_to_both_sides():
    """27m_vs_30m: 5 cells from end to end when the first shoot, 8 after 19 loops, 10 after 31, 11 after 43."""
    spans, middles = [], []
    for y, alive, _ in against_a_line("27m_vs_30m", 0.75):
        high, low = y.masked_fill(~alive, -99.0).amax(1), y.masked_fill(~alive, 99.0).amin(1)
        spans.append(float((high - low).mean()) + 0.75)
        middles.append(float((high + low).mean()) / 2)
    assert spans[0] < 6
    assert spans[4] > 8, spans[:9]
    assert spans[6] > 10, spans[:9]
    assert middles[:7] == pytest.approx([16.0] * 7, abs=0.5)


def test_zealots_get_past_their_own_stalkers():
    """3s5z: all ten strike, in two columns, 20 to 25 loops after the first have met; nobody stays behind."""
    env = emix.make("battle/3s5z", num_envs=BATTLES, seed=1, checked=False)
    env.reset()
    attack_move(env, 23.0, 16.0)
    first = env.scenario.enemy_slot
    zealots = [*range(3, 8), *range(first + 3, first + 8)]
    wait = torch.zeros(BATTLES, 8, dtype=torch.int64)
    struck = []
    for _ in range(12):
        env.step(wait)
        struck.append(float((env.minds[:, MIND["held"], zealots] > 0).float().mean()) * 10)
    began = next(k for k, count in enumerate(struck) if count >= 2)
    assert max(struck[began : began + 5]) > 8, struck


def test_zealots_keep_a_cell_apart():
    """3s_vs_3z: three on the march. They are created 0.75 apart, twice their SeparationRadius, and then part: theirs is
    the radius of 0.5."""
    env = emix.make("battle/3s_vs_3z", num_envs=BATTLES, seed=1, checked=False)
    env.reset()
    enemies = slice(env.scenario.enemy_slot, env.scenario.enemy_slot + 3)
    for _ in range(5):
        env.step(torch.ones(BATTLES, 3, dtype=torch.int64))
        x, y = env.units[:, UNIT["x"], enemies], env.units[:, UNIT["y"], enemies]
        apart = (x[:, :, None] - x[:, None]).square() + (y[:, :, None] - y[:, None]).square()
        apart = apart.sqrt()[:, [0, 0, 1], [1, 2, 2]]
        assert float(apart.min()) > 0.9


def test_zealots_fall_behind_their_stalkers():
    """2s3z, after about 18 loops: of the enemies' zealots one walks north of the front stalkers, two behind them."""
    env = emix.make("battle/2s3z", num_envs=BATTLES, seed=1, checked=False)
    env.reset()
    first = env.scenario.enemy_slot
    for _ in range(2):
        env.step(torch.ones(BATTLES, 5, dtype=torch.int64))
    x, y = env.units[:, UNIT["x"], first : first + 5], env.units[:, UNIT["y"], first : first + 5]
    places = torch.stack([x - x[:, :1], y - y[:, :1]], -1).mean(0).tolist()  # seen from the first stalker
    zealots = [(1.1, -0.6), (0.9, 0.9), (-0.9, 1.0)]  # in cells, read to about a quarter
    assert places[2:] == [pytest.approx(place, abs=0.4) for place in zealots]


def test_two_stalkers_who_stand_before_a_spine_crawler():
    """2s_vs_1sc: they last 44.2 to 44.9 steps, get 11 to 12 and win 5 to 12 %, with 5 % of their actions at random."""
    battles, north = 256, 2
    env = emix.make("battle/2s_vs_1sc", num_envs=battles, seed=1)
    random = torch.Generator().manual_seed(0)
    step, length, total = env.reset(), torch.zeros(battles), torch.zeros(battles)
    while not step.done.all():
        any_action = torch.multinomial(step.avail.float().flatten(0, 1), 1, generator=random).view(battles, 2)
        explores = torch.rand(battles, 2, generator=random) < 0.05
        length += ~step.done
        step = env.step(torch.where(explores, any_action, first_target(step, north)))
        total += step.reward
    assert length.mean() == pytest.approx(44.5, abs=0.6)
    assert 10.4 < total.mean() < 12.2
    assert 0.02 < step.info["battle_won"].float().mean() < 0.15
