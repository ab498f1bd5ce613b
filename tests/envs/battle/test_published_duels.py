"""What players of StarCraft II measured: how many units it takes to kill a spine crawler, and how many survive.

After a page on the spine crawler (esportsbet.club, by its words Liquipedia's of Wings of Liberty), of multiplayer,
where its period is 1.85 s; SMAC's maps load the campaign's 1.6. Six marines barely win "if put in a formation such
that they are all shooting on contact", else it "roughly cancels out" six; five with Stimpack barely win; five with
Combat Shield win "with two marines to spare", four lose; two zealots kill it, and one of them dies. Were the wind-up
added to the period, two or three of the six marines would be left.
"""

from importlib.resources import files
from math import cos, sin

import pytest
import yaml

import emix
from emix.envs.battle.fields import UNIT
from tests.envs.battle.play import first_target, until_done

NORTH = 2
CONTACT, OUTSIDE = 6.2, 9.0  # cells from the spine crawler's centre: marines reach it from 6.25, it reaches 8.25
STIM = 1.5  # faster in all things


@pytest.fixture
def duel(tmp_path):
    """Wins and mean survivors of 64 duels: ``duel(unit, count, distance, period)``."""

    def fight(unit, count, distance, period):
        numbers = yaml.safe_load((files("emix.envs.battle") / "balance/liberty.yaml").read_text())
        units = numbers["units"]
        units["spine_crawler"]["weapon"]["period"] = period
        marine = units["marine"]
        units["shielded"] = marine | {"id": 1048, "health": 55}
        quick = {key: marine["weapon"][key] / STIM for key in ("period", "windup", "backswing")}
        units["stimmed"] = marine | {
            "id": 2048, "health": 35, "speed": STIM * marine["speed"], "weapon": marine["weapon"] | quick
        }  # fmt: skip
        angles = [(i - (count - 1) / 2) * 0.85 / distance for i in range(count)]  # on an arc around it
        places = [[16 + distance * sin(angle), 16 - distance * cos(angle)] for angle in angles]
        course = {
            "limit": 200,
            "ally": [{"unit": unit, "count": 1, "at": at} for at in places],
            "enemy": [{"unit": "spine_crawler", "count": 1, "at": [16, 16]}],
            "enemy_order": "guard",
            "terrain": {"walkable": {"1-30": "1-30"}},
        }
        (tmp_path / "balance.yaml").write_text(yaml.safe_dump(numbers))
        (tmp_path / "duel.yaml").write_text(yaml.safe_dump(course))
        env = emix.make(f"battle/{tmp_path}/duel.yaml", num_envs=64, seed=1, balance=f"{tmp_path}/balance.yaml")
        *_, last = until_done(env, lambda step: first_target(step, NORTH))
        left = (env.units[:, UNIT["health"], :count] > 0).sum(1).double()  # [64]
        return last.info["battle_won"].double().mean().item(), left.mean().item()

    return fight


@pytest.mark.parametrize(
    ("unit", "count", "distance", "least", "most"),
    [
        ("marine", 6, CONTACT, 1.0, 1.5),
        ("stimmed", 5, CONTACT, 1.0, 1.5),
        ("shielded", 5, CONTACT, 2.0, 2.0),
        ("zealot", 2, CONTACT, 1.0, 1.0),
    ],
)
def test_who_kills_a_spine_crawler(duel, unit, count, distance, least, most):
    won, left = duel(unit, count, distance, 1.85)
    assert won == 1
    assert least <= left <= most


@pytest.mark.parametrize(("unit", "count", "distance"), [("shielded", 4, CONTACT), ("marine", 5, CONTACT)])
def test_whom_a_spine_crawler_kills(duel, unit, count, distance):
    assert duel(unit, count, distance, 1.85) == (0, 0)


def test_a_spine_crawler_and_six_marines_that_walk_up_to_it_are_about_even(duel):
    won, left = duel("marine", 6, OUTSIDE, 1.85)
    assert 0 <= left <= 1
    assert won < 1


def test_a_period_with_the_wind_up_added_is_not_what_players_saw(duel):
    assert duel("marine", 6, CONTACT, 1.85 + 1 / 3)[1] > 2
    assert duel("shielded", 5, CONTACT, 1.85 + 1 / 3)[1] == 3
