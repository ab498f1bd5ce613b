"""Maps, balances and options of a user's: one clear sentence for every mistake."""

import numpy as np
import pytest
import yaml

from emix.envs import make
from emix.envs.battle.maps import load_map
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.reading import packaged
from emix.envs.battle.scenario import make_scenario
from emix.envs.battle.units import load_balance
from emix.errors import UsageError

MAP = {
    "limit": 50,
    "ally": [{"unit": "marine", "count": 2, "at": [9, 16]}],
    "enemy": [{"unit": "zealot", "count": 1, "at": [23, 16]}],
    "enemy_order": {"attack_move": [[9, 16]]},
    "terrain": {"walkable": {"7-24": "2-29"}},
}


def changed(content, path, value):
    """A copy with the value at ``path`` replaced, or taken away where it is None."""
    content = yaml.safe_load(yaml.safe_dump(content))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("limit",), None, "the key 'limit' is missing"),
        (("limit",), 0, "limit: expected an integer of at least 1, got 0"),
        (("limt",), 5, "unknown key 'limt', did you mean limit?"),
        (("ally",), [], r"ally: expected a list, got \[\]"),
        (("ally", 0, "unit"), "marin", r"ally\[0\].unit: 'marin' is not in balance/lotv.yaml, did you mean marine"),
        (("ally", 0, "unit"), 7, r"ally\[0\].unit: expected a word, got 7"),
        (("ally", 0, "count"), -1, r"ally\[0\].count: expected an integer of at least 1, got -1"),
        (("terrain", "walkable"), {"15-16": "8-9"}, r"enemy\[0\].at: \[23, 16\] lies in a wall"),
        (("terrain", "walkable"), {"16": "9,23"}, r"ally\[0\].count: no room for 2 marine within 10 cells"),
        (("ally", 0, "at"), [1, 16], r"ally\[0\].at: \[1, 16\] lies in a wall"),
        (("enemy", 0, "at"), [40, 16], r"enemy\[0\].at: expected a point inside the map .*, got \[40, 16\]"),
        (("enemy", 0, "at"), [3], r"enemy\[0\].at: expected a point \[x, y\], got \[3\]"),
        (("enemy", 0, "count"), 121, "too many units: 2 allies and 121 enemies need 136 slots .* at most 128"),
        (("enemy",), [{"unit": "zealot", "count": 1, "at": [9, 9]}, {"unit": "marine", "count": 1, "at": [9, 9]}],
         "the key 'one_hot' is missing: a side has several types of units"),
        (("one_hot",), {"ally": ["marine"], "enemy": ["marine"]}, "one_hot.enemy: zealot is missing"),
        (("one_hot",), {"ally": ["marine", "zealot"], "enemy": ["zealot"]}, "expected as many types as ally has"),
        (("enemy_order",), "attack", "enemy_order: expected guard, chase or attack_move"),
        (("enemy_order", "attack_move"), [9, 16], r"enemy_order.attack_move: expected a point \[x, y\], got 9"),
        (("terrain", "walkable"), {"7-24": "2-40"}, "terrain.walkable.7-24: expected cells .* below 32, got '2-40'"),
        (("terrain", "walkable"), {"x": "2-4"}, "terrain.walkable.x: expected cells such as 7, 2-29"),
        (("terrain", "heights"), [{"x": 3, "y": 9, "level": 999}],
         r"terrain.heights\[0\].level: expected an integer of at most 254"),
        (("terrain", "closed"), [{"x": "3-2", "y": 9}], r"terrain.closed\[0\].x: expected cells"),
        (("terrain",), [1], r"terrain: expected keys with values, got \[1\]"),
    ],
)  # fmt: skip
def test_mistakes_in_a_map(tmp_path, path, value, text):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(changed(MAP, path, value)))
    with pytest.raises(UsageError, match=text) as caught:
        make_scenario("battle/mine", str(file), BattleOptions())
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("units", "marine", "helth"), 5, "units.marine: unknown key 'helth', did you mean health"),
        (("units", "marine", "health"), -45, "units.marine.health: expected a number of at least 0, got -45"),
        (("units", "marine", "health"), "lots", "units.marine.health: expected a number, got 'lots'"),
        (("units", "marine", "health"), None, "units.marine: the key 'health' is missing"),
        (("units", "marine", "inner_radius"), 0,
         "units.marine.inner_radius: expected a number of at least 0.125, got 0"),
        (("units", "zealot", "separation_radius"), 0.01,
         "units.zealot.separation_radius: expected a number of at least 0.125, got 0.01"),
        (("units", "marine", "radius"), 0, "units.marine.radius: expected a number of at least 0.001, got 0"),
        (("units", "marine", "id"), 73, "units.zealot.id: 73 is already that of marine"),
        (("units", "marine", "tags"), ["lite"], "units.marine.tags: unknown word 'lite', did you mean light"),
        (("units", "marine", "tags"), "light", "units.marine.tags: expected a list of words, got 'light'"),
        (("units", "marine", "layer"), "sea", "units.marine.layer: unknown layer 'sea', expected one of ground"),
        (("units", "marine", "heal"), {"life": 1}, "units.marine.heal: a unit cannot have both a weapon and heal"),
        (("units", "marine", "weapon", "kind"), "laser", "marine.weapon.kind: unknown kind 'laser', expected one of"),
        (("units", "marine", "weapon", "targets"), [], "units.marine.weapon.targets: expected ground, air or both"),
        (("units", "marine", "weapon", "bonus"), 3, "units.marine.weapon.bonus: expected together with bonus_tags"),
        (("units", "marine", "weapon", "hits"), 1.5, "units.marine.weapon.hits: expected an integer of at least 1"),
        (("units", "medivac", "energy"), 300, r"units.medivac.energy: expected at most energy_limit \(200\), got 300"),
        (("rules", "cooldown_low"), 1, "rules.cooldown_low: expected at most cooldown_high"),
        (("rules", "scan"), None, "rules: the key 'scan' is missing"),
        (("loops_per_second",), 0, "loops_per_second: expected a number of at least 1, got 0"),
        (("units", "marine", "health"), 1e-30, "units.marine.health: expected a number of at least 0.001, got 1e-30"),
        (("units", "marine", "health"), float("inf"), "units.marine.health: expected a number of at most 1e.06, got"),
        (("units", "marine", "speed"), float("nan"), "units.marine.speed: expected a number, got nan"),
        (("units", "marine", "armor"), 10**400, "units.marine.armor: expected a number of at most 1e.06, got 1000"),
        (("units", "marine", "id"), 1 << 31, "units.marine.id: expected an integer of at most 2147483647, got"),
        (("units", "medivac", "energy_limit"), 0, "units.medivac.energy"),
        (("units", "medivac"), {"id": 54, "health": 9, "speed": 1, "radius": 1, "heal": {"life": 9,
         "cost": 1, "range": 4, "scan": 6}}, "medivac.energy_limit: .* at least 0.001 of a unit with heal, got 0"),
        (("units", "stalker", "weapon", "missile_speed"), 0, "weapon.missile_speed: expected a number of at least"),
        (("units", "marine", "weapon", "kind"), ["direct"], r"weapon.kind: unknown kind \['direct'\]"),
    ],
)  # fmt: skip
def test_mistakes_in_a_balance(tmp_path, path, value, text):
    from importlib import resources

    liberty = yaml.safe_load(resources.files("emix.envs.battle").joinpath("balance", "liberty.yaml").read_text())
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(changed(liberty, path, value), sort_keys=False))
    with pytest.raises(UsageError, match=text) as caught:
        load_balance(str(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_map(str(tmp_path / "nowhere.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("limit: [")
    with pytest.raises(UsageError, match=r"broken\.yaml is not YAML: while parsing"):
        load_map(str(broken))
    with pytest.raises(UsageError, match="there is no such user"):
        load_map("~nobody-of-this-name/mine.yaml")
    for text in ("when: 2020-13-45", "limit: " + "9" * 5000, f"limit: 0x{'f' * 5000}", "[" * 5000):
        broken.write_text(text)
        with pytest.raises(UsageError, match=r"broken\.yaml"):
            load_map(str(broken))
    with pytest.raises(UsageError, match="unknown map '8n': did you mean 8m"):
        load_map("8n")
    with pytest.raises(UsageError, match="unknown balance 'libety': did you mean liberty"):
        load_balance("libety")
    assert packaged("balance") == ["liberty", "lotv"]


def test_home(tmp_path, monkeypatch):
    """``~`` is the home folder in the paths of maps and of balances."""
    from importlib import resources

    monkeypatch.setenv("HOME", str(tmp_path))
    liberty = resources.files("emix.envs.battle").joinpath("balance", "liberty.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(MAP))
    (tmp_path / "balance.yaml").write_text(liberty.replace("health: 45", "health: 46"))
    env = make("battle/~/mine.yaml", balance="~/balance.yaml")
    assert env.scenario.allies[0].unit.stats["health"] == 46


@pytest.mark.parametrize(
    "options",
    [
        {name: value}
        for name in ("reward_win", "reward_death_value", "reward_defeat", "reward_negative_scale", "move_amount")
        for value in (float("inf"), -float("inf"), float("nan"), 1e300, 10**400)
    ]
    + [{"reward_scale_rate": 1e7}, {"spawn_jitter": float("nan")}, {"episode_limit": 10**30}, {"closing_step": 10**30}],
)
def test_options_that_are_not_finite(options):
    with pytest.raises(UsageError, match=f"^battle/3m: {next(iter(options))} expects"):
        make("battle/3m", **options)


def test_a_win_that_pays_nothing_cannot_be_scaled():
    with pytest.raises(UsageError, match=r"^battle/3m: reward_scale divides by the reward .* got -35"):
        make("battle/3m", reward_win=-200)
    assert make("battle/3m", reward_win=-200, reward_scale=False).reset().reward.tolist() == [0]


def test_options_of_numpy():
    env = make("battle/3m", reward_win=np.float32(100), episode_limit=np.int64(7), reward_scale=np.bool_(False))
    options = env.scenario.options
    assert [type(value) for value in (options.reward_win, options.episode_limit, options.reward_scale)] == [
        float,
        int,
        bool,
    ]
    with pytest.raises(UsageError, match=r"episode_limit expects int or None, got np.float64\(7.0\)"):
        make("battle/3m", episode_limit=np.float64(7))
