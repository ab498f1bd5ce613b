"""`emix sc2 check` on the stand-in: it finds nothing where nothing differs, and names a rule that has been changed."""

from importlib import resources

import numpy as np
import pytest

from emix.cli import main
from emix.envs.sc2 import measures
from emix.envs.sc2.check import check_script
from emix.envs.sc2.measures import Course, compare, measure
from emix.envs.sc2.scripts import SCRIPTS
from emix.errors import UsageError

LOTV = resources.files("emix.envs.battle") / "balance" / "lotv.yaml"


@pytest.fixture
def changed(house, tmp_path):
    """``changed(old, new)`` makes a stand-in whose balance has another text."""

    def make(old, new):
        text = LOTV.read_text()
        assert old in text
        path = tmp_path / "changed.yaml"
        path.write_text(text.replace(old, new))
        return house(balance=str(path))

    return make


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_differs(house, name):
    house()
    assert check_script(name, SCRIPTS[name], seed=3, build=None) == []


@pytest.mark.parametrize(
    ("old", "new", "script", "what", "whose"),
    [
        ("backswing: 0.5\n", "backswing: 1.5\n", "run", measures.REST, "enemy zealot"),
        ("missile_speed: 18.75", "missile_speed: 3", "missiles", measures.FLIGHT, "allied stalker"),
        ("period: 1.87", "period: 2.2", "missiles", measures.INTERVAL, "allied stalker"),
        ("period: 1.87", "period: 2.2", "missiles", measures.COOLDOWN, "allied stalker"),
        ("speed: 2.9531", "speed: 2.8", "missiles", measures.WALK, "allied stalker"),
        ("damage: 8,", "damage: 12,", "between", measures.DAMAGE, "enemy zealot"),
    ],
)
def test_a_changed_rule_is_named(changed, old, new, script, what, whose):
    changed(old, new)
    found = check_script(script, SCRIPTS[script], seed=0, build=None)
    assert (what.what, whose) in [(row.what, row.whose) for row in found if row.where == script]
    assert found[-1].what.startswith("first step that differs: ")


def test_who_is_attacked(house):
    house(retarget="nearest")
    found = check_script("run", SCRIPTS["run"], seed=0, build=None)
    assert [row.what for row in found if row.where != "run"] == []
    assert measures.HIT.what in [row.what for row in found]


@pytest.mark.parametrize(
    ("old", "new", "script", "what", "game", "battle"),
    [
        ("period: 1.87", "period: 2.2", "missiles", "weapon: period, seconds", 2.2, 1.87),
        ("speed: 2.9531", "speed: 2.8", "missiles", "speed, cells a second", 2.8, 2.9531),
        ("bonus: 5\n", "bonus: 6\n", "missiles", "weapon: bonus against armored", 6, 5),
        ("health: 45\n", "health: 40\n", "shoot", "health", 40, 45),
        ("hits: 2,", "hits: 1,", "between", "weapon: hits of a shot", 1, 2),
    ],
)
def test_what_the_game_says_of_its_units(changed, old, new, script, what, game, battle):
    changed(old, new)
    found = check_script(script, SCRIPTS[script], seed=0, build=None)
    rows = [row for row in found if row.where == f"data of {SCRIPTS[script].map}" and row.what == what]
    assert rows
    for row in rows:
        assert (row.game, row.battle) == pytest.approx((game, battle), rel=1e-4)


def test_the_command(house, changed, capsys, monkeypatch, tmp_path):
    house()
    assert main(["sc2", "check", "--script", "between"]) == 0
    out = capsys.readouterr().out
    assert "between (2m_vs_1z: a zealot between two marines that shoot): 0 differences" in out
    assert "the game and the battle do not differ in what was looked at" in out
    changed("speed: 2.25\n    radius: 0.375", "speed: 2\n    radius: 0.375")  # the marine's
    assert main(["sc2", "check", "--script", "shoot"]) == 1
    out = capsys.readouterr().out
    assert "allied marine" in out
    assert "speed, cells a second" in out
    with pytest.raises(UsageError, match="StarCraft II of build 1 is not in"):
        check_script("run", SCRIPTS["run"], seed=0, build=1)
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nothing"))
    assert main(["sc2", "check"]) == 2
    assert "emix sc2 check cannot play: StarCraft II is not in" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["step", "data"])
def test_a_game_that_is_lost(house, capsys, kind):
    house(fault=lambda game, asked: "die" if asked == kind else None)
    assert main(["sc2", "check", "--script", "shoot"]) == 1
    assert "emix: sc2/3m: the " in capsys.readouterr().err.splitlines()[-1]


def course(cooldown, life, x):
    """A battle of one ally, slot 0, and one enemy, slot 1: [T + 1] rows of pairs."""
    places = np.stack([np.array(x, float), np.zeros_like(x, float)], axis=2)
    steps = len(x) - 1
    return Course(places, np.array(life, float), np.array(cooldown, float), np.ones(steps), {0: "a", 1: "b"}, 1)


def test_measures_by_hand():
    """The enemy shoots in steps 1 and 4, 22 loops apart, hits a step later, and rests after the first shot."""
    found = measure(
        course(
            cooldown=[[0, 0], [0, 18], [0, 10], [0, 2], [0, 16], [0, 8]],
            life=[[45, 9], [45, 9], [40, 9], [40, 9], [40, 9], [35, 9]],
            x=[[0, 5], [1, 5], [1, 4.5], [1, 3.5], [1, 2.5], [1, 2.5]],
        )
    )
    assert found[measures.INTERVAL, "enemy b"] == 22
    assert found[measures.COOLDOWN, "enemy b"] == 18
    assert found[measures.FLIGHT, "enemy b"] == 1
    assert found[measures.DAMAGE, "enemy b"] == 5
    assert found[measures.WALK, "allied a"] == found[measures.WALK, "enemy b"] == 1
    # the first shot was 22 - 18 loops before the end of its step; half of the next step was walked
    assert found[measures.REST, "enemy b"] == 4 + 4
    assert found[measures.HIT, ""] == "0"
    assert (found[measures.REWARD, ""], found[measures.LENGTH, ""]) == (5, 5)


def test_the_first_step_that_differs():
    still = {"cooldown": [[0, 0]] * 3, "life": [[45, 9]] * 3}
    one, other = course(x=[[0, 5], [1, 5], [2, 5]], **still), course(x=[[0, 5], [1, 5], [1.5, 5]], **still)
    (row,) = compare("run", one, other)
    assert row == (
        "run",
        "first step that differs: 2",
        "allied a",
        "at (2.00, 0.00), life 45.0",
        "at (1.50, 0.00), life 45.0",
    )
    assert compare("run", one, one) == []
