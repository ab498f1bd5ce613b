"""Pictures of battles that are set up by hand, and the moments between two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import emix
from emix.envs.battle.fields import CLOCK, MIND, ORDER, STAT, STATUS, TRAIT, UNIT
from emix.envs.battle.frame import Frame, between, follow, snapshot
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.render import Painter
from emix.envs.battle.scenario import make_scenario


class Battle(SimpleNamespace):
    """What a picture is taken of: units as they start, nobody does anything."""

    def __init__(self, name: str) -> None:
        scenario = make_scenario(f"battle/{name}", name, BattleOptions())
        units = torch.zeros(1, len(UNIT), scenario.slots)
        minds = torch.full((1, len(MIND), scenario.slots), -1, dtype=torch.int32)
        there = torch.tensor(scenario.traits[TRAIT["type"]] > 0)  # [slots]
        for row, stat in (
            ("x", "spawn_x"),
            ("y", "spawn_y"),
            *((same, same) for same in ("health", "shield", "energy")),
        ):
            units[0, UNIT[row]] = torch.tensor(scenario.stats[STAT[stat]])
        minds[0, MIND["kind"]] = torch.where(there, torch.arange(scenario.slots), -1)
        super().__init__(
            scenario=scenario, units=units, minds=minds, clock=torch.zeros(1, len(CLOCK), dtype=torch.int64)
        )

    def ally(self, unit: str) -> int:
        return [start.unit.name for start in self.scenario.allies].index(unit)

    def unit(self, slot: int, **rows: float) -> None:
        for name, value in rows.items():
            self.units[0, UNIT[name], slot] = float(value)

    def mind(self, slot: int, **rows: int) -> None:
        for name, value in rows.items():
            self.minds[0, MIND[name], slot] = value

    def cooldown_after(self, slot: int, loops: int) -> float:
        """The cooldown so many loops after a shot, which starts at the period less the wind-up."""
        period, windup = (float(self.scenario.stats[STAT[row], slot]) for row in ("period", "windup"))
        return period - windup - loops

    def time(self, **rows: int) -> None:
        for name, value in rows.items():
            self.clock[0, CLOCK[name]] = value


def picture(battle: Battle, change: Callable[[Frame], Frame] = lambda frame: frame, **options: bool) -> np.ndarray:
    return Painter(battle.scenario, **options).draw(change(snapshot(battle)))


def test_render(device):
    env = emix.make("battle/2s3z", num_envs=2, device=device, seed=1)
    step = env.reset()
    start = env.render()
    for _ in range(5):
        step = env.step(torch.where(step.avail[..., 4], 4, 1))  # east
    assert start.dtype == np.uint8
    assert start.shape == env.render(1).shape
    assert (env.render() != start).any()


@pytest.mark.parametrize("name", ["3m", "MMM2", "2c_vs_64zg", "corridor", "2_corridors", "2s_vs_1sc"])
def test_shape(name):
    pixels = picture(Battle(name))
    assert pixels.dtype == np.uint8
    height, width, colours = pixels.shape
    assert (height % 2, width % 2, colours) == (0, 0, 3)  # films need even sizes
    assert 300 < height <= 950
    assert 300 < width <= 900
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # something is drawn, smoothly


def test_the_dead_leave_no_trace():
    alive, dead, empty = Battle("3m"), Battle("3m"), Battle("3m")
    dead.unit(8, health=0)
    empty.unit(8, health=0)
    empty.mind(8, kind=-1)
    assert (picture(alive) != picture(dead)).any()
    body = slice(48, None)  # below the header, whose bars show what is left of the army
    np.testing.assert_array_equal(picture(dead)[body], picture(empty)[body])


def heal(battle: Battle) -> None:
    battle.mind(battle.ally("medivac"), target=0, held=1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("3m", lambda battle: battle.unit(0, x=12)),
        ("3m", lambda battle: battle.unit(0, health=20)),
        ("2s3z", lambda battle: battle.unit(0, shield=20)),
        ("MMM2", lambda battle: [battle.unit(slot, energy=200) for slot in range(10)]),
        ("MMM2", heal),
        ("3m", lambda battle: battle.time(step=7)),
        ("3m", lambda battle: battle.time(status=STATUS["won"])),
        ("2_corridors", lambda battle: battle.time(closed=1)),
    ],
)
def test_what_changes_shows(name, change):
    battle = Battle(name)
    before = picture(battle)
    change(battle)
    assert (picture(battle) != before).any()


@pytest.mark.parametrize("unit", ["zealot", "stalker", "colossus"])  # a direct hit, a missile, a beam
def test_a_shot_shows_and_fades(unit):
    battle = Battle("1c3s5z")
    slot = battle.ally(unit)
    battle.unit(slot, aim_x=20, aim_y=16)
    battle.mind(slot, victim=battle.scenario.enemy_slot)
    aimed = picture(battle)
    battle.unit(slot, cooldown=battle.cooldown_after(slot, 1))
    fired = picture(battle)
    battle.unit(slot, cooldown=1)
    assert (fired != aimed).any()
    np.testing.assert_array_equal(picture(battle), aimed)


def test_an_explosion_is_larger_than_another_death():
    def changed(name: str) -> int:
        battle = Battle(name)
        slot = battle.scenario.enemy_slot
        battle.unit(slot, health=0)
        dead = np.full(battle.scenario.slots, np.inf)
        dead[slot] = 6.0
        died = picture(battle, lambda frame: replace(frame, dead=dead), ranges=False)
        return int((died != picture(battle, ranges=False)).any(axis=2).sum())

    assert changed("so_many_baneling") > 10 * changed("3m") > 0


def test_ranges():
    battle = Battle("3m")
    lit, dark = picture(battle).astype(int), picture(battle, ranges=False).astype(int)
    assert (lit >= dark).all()
    shares = [(lit[..., 0] - dark[..., 0] >= light).mean() for light in (1, 15)]
    assert 0.1 < shares[1] < shares[0] < 0.8  # what is seen, and of that what can be shot at


def test_a_snapshot_does_not_change_with_the_battle():
    battle = Battle("3m")
    frame = snapshot(battle, total=2.5)
    battle.unit(0, x=30)
    assert frame.x[0] != 30
    assert frame.total == 2.5


def test_between_two_steps():
    battle = Battle("3m")
    battle.unit(0, x=10, cooldown=2)
    before = snapshot(battle)
    battle.unit(0, x=12, cooldown=battle.cooldown_after(0, 3))  # the shot left 3 of 8 loops ago
    battle.mind(0, victim=8)
    battle.unit(9, health=0)
    after = follow(before, snapshot(battle))

    early, late = between(before, after, 0.25), between(before, after, 0.75)
    assert (early.x[0], late.x[0]) == (10.5, 11.5)
    assert (early.victim[0], late.victim[0]) == (-1, 8)
    assert early.fired[0] > 8
    np.testing.assert_allclose(late.fired[0], 1, atol=1e-5)
    assert between(before, after, 1.0) is after
    np.testing.assert_allclose(early.health[9], 0.75 * before.health[9])
    assert (np.isinf(before.dead[9]), after.dead[9], after.dead[8]) == (True, 0, np.inf)
    again = follow(after, snapshot(battle))
    assert between(after, again, 0.5).dead[9] == 4
    assert again.dead[9] == 8


def test_dots_lead_to_the_enemy_that_an_ally_is_ordered_to_shoot():
    before, after = Battle("3m"), Battle("3m")
    enemy = after.scenario.enemy_slot
    for battle in (before, after):
        battle.unit(0, x=8, y=16)
        battle.unit(enemy, x=24, y=16)
        battle.mind(0, order_target=enemy)
    after.mind(0, order=ORDER["attack"])
    changed = (picture(before) != picture(after)).any(-1)  # [H, W]
    assert changed.any()
    columns = np.flatnonzero(changed.any(0))
    assert columns[-1] - columns[0] > 0.3 * changed.shape[1]  # all the way
    after.unit(enemy, health=0)  # of a dead one nothing is shown
    before.unit(enemy, health=0)
    assert (picture(before) == picture(after)).all()


def test_letters_of_units_that_overlap_move_apart(monkeypatch):
    places = []
    original = Painter._text

    def text(self, at, text, *rest):
        if len(text) == 1:
            places.append(np.array(at))
        original(self, at, text, *rest)

    monkeypatch.setattr(Painter, "_text", text)
    battle = Battle("3m")
    for slot, x in ((0, 10.0), (1, 10.2), (2, 20.0)):
        battle.unit(slot, x=x, y=16)
    picture(battle)
    first, second = places[:2]
    assert np.hypot(*(first - second)) > 0.22 * Painter(battle.scenario).cell  # their units are 0.2 apart
    places.clear()
    battle.unit(1, x=10, y=16)  # the same place: both letters find room beside each other, or one is left out
    picture(battle)
    pairs = [np.hypot(*(a - b)) for i, a in enumerate(places) for b in places[:i]]
    assert min(pairs) > 0.2 * Painter(battle.scenario).cell


def test_no_two_kinds_have_the_same_letter():
    letters = {}
    for name in ("MMM2", "2s3z", "1c3s5z", "corridor", "6h_vs_8z", "bane_vs_bane", "2s_vs_1sc"):
        scenario = make_scenario(f"battle/{name}", name, BattleOptions())
        names = {start.unit.id: start.unit.name for start in (*scenario.allies, *scenario.enemies)}
        for kind, letter in zip(scenario.traits[TRAIT["type"]].tolist(), Painter(scenario).letters, strict=True):
            if kind in names:
                letters.setdefault(names[kind], set()).add(letter)
    assert len(letters) == 10
    shown = [letter for own in letters.values() for letter in own]
    assert len(set(shown)) == len(shown)
    assert {letter.lower() for letter in shown if shown.count(letter.swapcase())} == {"m"}  # marine and Marauder
