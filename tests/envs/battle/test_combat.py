"""Shots, backswings, missiles and targets, loop by loop, against what a hand computes from the balance's numbers."""

from itertools import pairwise
from math import ceil

import pytest
import torch

import emix
from emix.envs.battle.fields import MIND, ORDER, UNIT
from emix.envs.battle.units import load_balance
from emix.errors import UsageError
from tests.envs.battle.play import until_done
from tests.envs.battle.test_rules import arena, disarm

ALLY, ENEMY = 0, 8  # slots of the arena's two units
NO_OP, STOP, WEST, ATTACK = 0, 1, 5, 6


def step(env, action):
    env.step(torch.tensor([[action]]))


def value(env, row, slot):
    return env.units[0, UNIT[row], slot].item()


def about_to_shoot(env, loops):
    """The ally's shot leaves in the last of so many loops."""
    env.units[0, UNIT["windup"], ALLY] = float(loops)
    env.minds[0, MIND["target"], ALLY] = ENEMY


@pytest.mark.parametrize(
    ("unit", "windup", "period", "flight", "damage"),
    [
        ("marine", 0.8, 13.7728, 0, 6),
        ("stalker", 2.672, 29.92, 16 * 5 / 18.75, 18 - 1),
        ("hydralisk", 3.328, 13.2, 16 * 5 / 40, 12 - 1),
    ],
)
def test_shots_are_a_period_apart(tmp_path, unit, windup, period, flight, damage):
    """Shot k leaves in loop ceil(windup + k period): the wind-up delays the first one alone."""
    env = arena(tmp_path, unit, "marauder" if unit != "marine" else "hydralisk", 5)
    disarm(env)
    landing = [ceil(windup + k * period) + ceil(flight) for k in range(9)]
    env.units[0, UNIT["health"], ENEMY] = 70.0  # hydralisks regenerate up to 80
    before, hits = 70.0, 0
    for k in range(6):
        step(env, ATTACK)
        now = value(env, "health", ENEMY)
        hits += round((before - now) / damage)
        before = now
        assert hits == sum(loop < 8 * (k + 1) for loop in landing), k


def test_a_zealot_stands_until_its_backswing_is_over(tmp_path):
    """Two blows on a marine that runs as fast as the zealot: that stands for 8 loops, and is 1.125 behind for ever."""
    env = arena(tmp_path, "marine", "zealot", 0.9)
    places = [value(env, "x", ENEMY)]
    for _ in range(6):
        step(env, WEST)
        places.append(value(env, "x", ENEMY))
    assert places[:2] == [places[0]] * 2
    walked = [a - b for a, b in pairwise(places[1:])]
    assert walked == pytest.approx([1.125] * 5, abs=1e-3)
    assert value(env, "x", ENEMY) - value(env, "x", ALLY) == pytest.approx(0.9 + 1.125, abs=1e-3)
    assert value(env, "health", ALLY) == 45 - 16


def test_a_marauder_has_no_backswing(tmp_path):
    """Its target leaves the range in the loop of the shot: it follows in the next one, 0.01 into the range first."""
    apart = 6 + 0.5625 + 0.625 - 0.1
    env = arena(tmp_path, "stalker", "marauder", apart)
    step(env, WEST)
    assert value(env, "rest", ENEMY) == 0
    moved = 14 + apart - value(env, "x", ENEMY)
    assert moved == pytest.approx((2.9531 / 16 - 0.1 + 0.01) + 6 * 2.25 / 16, abs=1e-3)


def test_an_order_ends_the_backswing(tmp_path):
    """A marine's is 12 loops long. It shoots in loop 1 and walks from loop 8 on."""
    env = arena(tmp_path, "marine", "marine", 5)
    disarm(env)
    step(env, ATTACK)
    assert value(env, "health", ENEMY) == 39
    assert value(env, "rest", ALLY) == pytest.approx(12 - (7 - 0.8), abs=1e-3)
    step(env, WEST)
    assert value(env, "x", ALLY) == pytest.approx(14 - 1.125, abs=1e-3)


@pytest.mark.parametrize(("action", "lost"), [(WEST, 8), (STOP, 8), (ATTACK, 16)])
def test_leaving_drops_the_second_blow(tmp_path, action, lost):
    """The first blow falls in the last loop of a step, the second one 4.48 loops later, if the order is the same."""
    env = arena(tmp_path, "zealot", "stalker", 1.2)
    disarm(env)
    about_to_shoot(env, 8)
    step(env, ATTACK)
    assert value(env, "shield", ENEMY) == 72
    step(env, action)
    assert value(env, "shield", ENEMY) == 80 - lost


def test_no_order_ends_a_beam(tmp_path):
    """A colossus winds up for 1.33 loops and sweeps for 10.00: whatever it is told, it walks from loop 12 on."""
    env = arena(tmp_path, "colossus", "stalker", 6)
    disarm(env)
    step(env, ATTACK)
    step(env, WEST)
    assert 14 - value(env, "x", ALLY) == pytest.approx(4 * 2.25 / 16, abs=1e-3)
    step(env, WEST)
    assert value(env, "shield", ENEMY) == 60  # 10 with each pass, as a stalker is not light


@pytest.mark.parametrize(
    ("unit", "apart", "loops"),
    [
        ("stalker", 6, 16 * 6 / 18.75),
        ("marauder", 6, 16 * 6 / 20),
        ("hydralisk", 5, 16 * 5 / 40),
        ("spine_crawler", 6, 16 * (-12 + (12**2 + 2 * 140 * 6) ** 0.5) / 140),  # 12 t + 70 t^2 = 6
    ],
)
def test_flight_of_a_missile(tmp_path, unit, apart, loops):
    env = arena(tmp_path, unit, "marauder", apart)
    disarm(env)
    about_to_shoot(env, 8)
    step(env, ATTACK)
    assert value(env, "delay", ALLY) == pytest.approx(loops, abs=1e-4)
    assert value(env, "health", ENEMY) == 125


@pytest.mark.parametrize(("edge", "windup", "lost"), [(0.4, 4.8, 11), (0.6, 3.328, 0)])
def test_a_hydralisk_strikes_by_hand_who_is_near(tmp_path, edge, windup, lost):
    """At arm's length without a missile: the shot that leaves in the last loop has hit. And it winds up for longer."""
    env = arena(tmp_path, "hydralisk", "marauder", 0.625 + 0.5625 + edge)
    disarm(env)
    about_to_shoot(env, 8)
    step(env, ATTACK)
    assert value(env, "health", ENEMY) == 125 - lost
    assert value(env, "cooldown", ALLY) == pytest.approx(13.2 - windup, abs=1e-4)


TWO = """
limit: 200
ally:
  - {{unit: {ally}, count: 1, at: {south}}}
  - {{unit: {ally}, count: 1, at: {north}}}
enemy:
  - {{unit: {enemy}, count: 1, at: {at}}}
enemy_order: guard
terrain:
  walkable: {{2-29: 2-29}}
"""


PLACES = {
    "zealot": {"ally": "marine", "south": [14, 12], "north": [14, 20], "at": [17, 16]},  # of which both are as far
    "spine_crawler": {"ally": "stalker", "south": [16, 10], "north": [16, 22.2], "at": [16, 16]},  # it reaches both
}


def two_against(folder, enemy, **options):
    """Allies in slots 0 and 1, south and north of an enemy who waits."""
    file = folder / "two.yaml"
    file.write_text(TWO.format(enemy=enemy, **PLACES[enemy]))
    env = emix.make(f"battle/{file}", spawn_jitter=0.0, weapon_delay=False, checked=False, **options)
    env.reset()
    return env


@pytest.mark.parametrize(("retarget", "whom"), [("provoked", 1), ("kept", 0), ("nearest", 0)])
def test_who_hits_a_zealot_that_is_on_its_way(tmp_path, retarget, whom):
    """It walks towards the first marine and is hit by the second one."""
    env = two_against(tmp_path, "zealot", retarget=retarget)
    env.minds[0, MIND["target"], ENEMY] = 0
    env.units[0, UNIT["y"], ENEMY] = 15.0  # nearer to the first
    env.step(torch.tensor([[STOP, ATTACK]]))
    assert value(env, "shield", ENEMY) == 44
    assert env.minds[0, MIND["target"], ENEMY] == whom


@pytest.fixture
def crawler(tmp_path):
    """Stalkers in slots 0 and 1, 6 cells south and 6.2 north of a spine crawler."""
    return two_against(tmp_path, "spine_crawler")


def test_each_shot_is_at_the_nearest_in_reach(crawler):
    """As in logs of SMAC on 2s_vs_1sc: who steps back a little passes the spine crawler on to the other one."""
    hit, cooldown = [], 0.0
    for _ in range(16):
        crawler.step(torch.tensor([[STOP, STOP]]))
        before, cooldown = cooldown, value(crawler, "cooldown", ENEMY)
        if cooldown > before:  # a shot has left
            hit.append(crawler.minds[0, MIND["victim"], ENEMY].item())
            crawler.units[0, UNIT["y"], hit[-1]] += 0.3 if hit[-1] else -0.3
    assert hit == [0, 1, 0, 1, 0]


def test_who_is_aimed_at_stays_the_target(crawler):
    crawler.units[0, UNIT["windup"], ENEMY], crawler.minds[0, MIND["target"], ENEMY] = 3.0, 1  # the farther one
    crawler.step(torch.tensor([[STOP, STOP]]))
    assert crawler.minds[0, MIND["victim"], ENEMY] == 1
    assert crawler.minds[0, MIND["target"], ENEMY] == 0


def test_who_leaves_the_reach_is_given_up_for_the_nearest(tmp_path):
    env = two_against(tmp_path, "zealot", retarget="kept")
    env.units[0, UNIT["x"], ENEMY], env.units[0, UNIT["y"], ENEMY] = 14.9, 12.0
    env.step(torch.tensor([[STOP, STOP]]))
    assert env.minds[0, MIND["target"], ENEMY] == 0
    env.units[0, UNIT["x"], 0] = 10.0
    env.units[0, UNIT["x"], 1], env.units[0, UNIT["y"], 1] = 14.9, 14.0
    env.step(torch.tensor([[STOP, STOP]]))
    assert env.minds[0, MIND["target"], ENEMY] == 1


def alternate(env):
    """SMAC's trick for 2m_vs_1z, "alternating fire": nobody walks, the marine that is farther off shoots."""
    zealot = env.scenario.enemy_slot

    def choose(now):
        x, y = env.units[:, UNIT["x"]], env.units[:, UNIT["y"]]  # [B, slots]
        away = torch.stack([(x[:, i] - x[:, zealot]) ** 2 + (y[:, i] - y[:, zealot]) ** 2 for i in (0, 1)], 1)  # [B, 2]
        shoots = now.avail[:, :, ATTACK] & (away >= away.flip(1))
        return torch.where(now.avail[:, :, 0], 0, torch.where(shoots, ATTACK, STOP))

    return choose


@pytest.mark.parametrize(("retarget", "least", "most"), [("provoked", 0.9, 1), ("kept", 0, 0.1), ("nearest", 0, 0.1)])
def test_alternating_fire_wins_2m_vs_1z(retarget, least, most):
    env = emix.make("battle/2m_vs_1z", num_envs=64, seed=3, checked=False, retarget=retarget)
    *_, last = until_done(env, alternate(env))
    assert least <= last.info["battle_won"].float().mean() <= most


def test_a_balance_from_before_the_backswing(tmp_path):
    """What it does not say has the game's value: 8 loops, whatever the clock; a leash of 21 cells."""
    file = tmp_path / "old.yaml"
    file.write_text(
        """
loops_per_second: 22.4
rules: {shield_delay: 7, shield_regeneration: 2.8, least_damage: 0.5, cooldown_low: 0, cooldown_high: 0,
        missile_speed: 21, slop: 1, scan: 5}
units:
  marine:
    {id: 48, health: 45, speed: 3.15, radius: 0.375,
     weapon: {kind: direct, targets: [ground], damage: 6, range: 5, period: 0.61}}
"""
    )
    balance = load_balance(str(file))
    assert balance.units["marine"].stats["rest"] == pytest.approx(8)
    assert balance.units["marine"].stats["channel"] == balance.units["marine"].stats["close_range"] == 0
    assert balance.rules["leash"] == 21
    file.write_text(file.read_text().replace("range: 5", "range: 5, close: {range: 1, windup: 0}"))
    with pytest.raises(UsageError, match=r"old.yaml: units.marine.weapon.close: only a weapon of the kind missile"):
        load_balance(str(file))


def test_an_unknown_rule():
    with pytest.raises(UsageError, match="unknown retarget 'provokd'"):
        emix.make("battle/3m", retarget="provokd")


def test_an_enemy_turns_on_who_hits_it_from_afar(tmp_path):
    """A zealot on guard looks 5 cells far; a stalker shoots from 6."""
    env = arena(tmp_path, "stalker", "zealot", 6.9, checked=False, retarget="kept")
    env.minds[0, MIND["order"], ALLY] = ORDER["attack"]
    env.minds[0, [MIND["order_target"], MIND["target"]], ALLY] = ENEMY
    targets = []
    for _ in range(3):
        step(env, NO_OP)
        targets.append(env.minds[0, MIND["target"], ENEMY].item())
    assert targets == [-1, ALLY, ALLY]
