"""Maps and balances: SMAC's sizes, the units' numbers, and starts."""

import numpy as np
import pytest

from emix.envs.battle.fields import LAYER, STAT, TAG, TRAIT, WEAPON
from emix.envs.battle.maps import list_maps, load_map
from emix.envs.battle.options import BattleOptions
from emix.envs.battle.scenario import make_scenario
from emix.envs.battle.units import load_balance

# What get_env_info of oxwhirl/smac says of its 23 maps, and its formulas of the other four: agents, enemies, actions,
# observation, state, limit, bits of the type, max_reward.
SIZES = {
    "3m": (3, 3, 9, 30, 48, 60, 0, 365),
    "8m": (8, 8, 14, 80, 168, 120, 0, 640),
    "25m": (25, 25, 31, 250, 950, 150, 0, 1575),
    "5m_vs_6m": (5, 6, 12, 55, 98, 70, 0, 530),
    "8m_vs_9m": (8, 9, 15, 85, 179, 120, 0, 695),
    "10m_vs_11m": (10, 11, 17, 105, 243, 150, 0, 805),
    "27m_vs_30m": (27, 30, 36, 285, 1170, 180, 0, 1850),
    "MMM": (10, 10, 16, 160, 290, 150, 3, 1015),
    "MMM2": (10, 12, 18, 176, 322, 180, 3, 1205),
    "2s3z": (5, 5, 11, 80, 120, 120, 2, 1020),
    "3s5z": (8, 8, 14, 128, 216, 150, 2, 1510),
    "3s5z_vs_3s6z": (8, 9, 15, 136, 230, 170, 2, 1670),
    "3s_vs_3z": (3, 3, 9, 36, 54, 150, 0, 680),
    "3s_vs_4z": (3, 4, 10, 42, 61, 200, 0, 840),
    "3s_vs_5z": (3, 5, 11, 48, 68, 250, 0, 1000),
    "1c3s5z": (9, 9, 15, 162, 270, 180, 3, 1870),
    "2m_vs_1z": (2, 1, 7, 16, 26, 150, 0, 360),
    "corridor": (6, 24, 30, 156, 282, 400, 0, 1280),
    "6h_vs_8z": (6, 8, 14, 78, 140, 150, 0, 1480),
    "2s_vs_1sc": (2, 1, 7, 17, 27, 300, 0, 510),
    "so_many_baneling": (7, 32, 38, 202, 397, 100, 0, 1480),
    "bane_vs_bane": (24, 24, 30, 336, 984, 200, 2, 1260),
    "2c_vs_64zg": (2, 64, 70, 332, 342, 400, 0, 3080),
    "MMM2_7m2M1M_vs_9m3M1M": (10, 13, 19, 184, 338, 180, 3, 1260),
    "1c3s5z_vs_1c3s6z": (9, 10, 16, 171, 286, 150, 3, 2030),
    "7sz": (14, 14, 20, 224, 462, 200, 2, 2510),
    "2_corridors": (2, 1, 7, 16, 26, 200, 0, 360),
}

# health, shield, armor, damage, bonus, hits, period in loops, range, wind-up in seconds, speed a loop, radius,
# id, tags, layer, weapon
UNITS = {
    "marine": (
        45, 0, 0, 6, 0, 1, 13.77, 5, 0.05, 0.1406, 0.375, 48, "light biological", "ground", "direct",
    ),
    "marauder": (
        125, 0, 1, 10, 10, 1, 24, 6, 0, 0.1406, 0.5625, 51, "armored biological", "ground", "missile",
    ),
    "medivac": (
        150, 0, 1, 0, 0, 0, 0, 0, 0, 0.1719, 0.75, 54, "armored mechanical always_threat", "air", "none",
    ),
    "stalker": (
        80, 80, 1, 10, 4, 1, 23.04, 6, 0.167, 0.1846, 0.625, 74, "armored mechanical", "ground", "missile",
    ),
    "zealot": (
        100, 50, 1, 8, 0, 2, 19.2, 0.1, 0, 0.1406, 0.5, 73, "light biological", "ground", "direct",
    ),
    "colossus": (
        200, 150, 1, 20, 0, 2, 35.2, 6, 0.083, 0.1406, 1, 4, "armored mechanical massive", "cliff", "beam",
    ),
    "hydralisk": (
        80, 0, 0, 12, 0, 1, 13.28, 5, 0.208, 0.1406, 0.625, 107, "light biological", "ground", "missile",
    ),
    "zergling": (
        35, 0, 0, 5, 0, 1, 11.14, 0.1, 0.167, 0.1846, 0.375, 105, "light biological", "ground", "direct",
    ),
    "baneling": (
        30, 0, 0, 20, 15, 1, 0, 0.25, 0, 0.1563, 0.375, 9, "biological", "ground", "explosion",
    ),
    "spine_crawler": (
        300, 0, 2, 25, 5, 1, 25.6, 7, 0.333, 0, 0.875, 98, "armored biological structure", "ground", "missile",
    ),
}  # fmt: skip


def test_every_map_is_in_the_table():
    assert set(list_maps()) == {*SIZES, "MMM3"}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    scenario = make_scenario(f"battle/{name}", name, BattleOptions())
    spec = scenario.spec
    sizes = (spec.n_agents, len(scenario.enemies), spec.n_actions, spec.obs_dim, spec.state_dim, spec.episode_limit)
    assert (*sizes, scenario.layout[2], scenario.max_reward) == SIZES[name]


def test_mmm3_is_an_alias():
    assert load_map("MMM3").source == load_map("MMM2_7m2M1M_vs_9m3M1M").source


@pytest.mark.parametrize("name", UNITS)
def test_units_of_liberty(name):
    keys = ("health", "shield", "armor", "damage", "bonus", "hits", "period", "range", "windup", "speed", "radius")
    unit = load_balance("liberty").units[name]
    *numbers, number, tags, layer, weapon = UNITS[name]
    numbers[8] *= 16  # the wind-up
    ours = [unit.stats[key] for key in keys]
    assert ours == pytest.approx(numbers, abs=6e-3)
    assert (unit.id, unit.layer, unit.weapon) == (number, LAYER[layer], WEAPON[weapon])
    assert unit.tags == sum(TAG[tag] for tag in tags.split())


def test_the_rest_of_liberty():
    balance = load_balance("liberty")
    stats = {name: unit.stats for name, unit in balance.units.items()}
    for name in ("hydralisk", "zergling", "baneling", "spine_crawler"):
        assert stats[name]["health_regeneration"] == pytest.approx(0.2734 / 16)
    medivac = stats["medivac"]
    assert [medivac[key] * 16 for key in ("heal", "energy_regeneration")] == pytest.approx([9, 0.5625])
    assert [medivac[key] for key in ("energy", "energy_limit", "heal_cost", "heal_range", "heal_scan")] == [
        50,
        200,
        0.33,
        4,
        6,
    ]
    assert medivac["acceleration"] == pytest.approx(2.3125 / 256)
    assert stats["zealot"]["interval"] == pytest.approx(0.28 * 16)
    assert (stats["baneling"]["splash"], stats["colossus"]["beam"]) == (2.2, 1.25)
    assert {name: stat["slop"] for name, stat in stats.items() if stat["slop"] != 1} == {
        "colossus": 0, "spine_crawler": 0, "medivac": 0,
    }  # fmt: skip
    assert stats["zealot"]["scan"] == 5
    assert stats["spine_crawler"]["scan"] == 7
    assert balance.rules == pytest.approx(
        {
            "shield_delay": 160,
            "shield_regeneration": 2 / 16,
            "least_damage": 0.5,
            "cooldown_low": -1,
            "cooldown_high": 2,
            "leash": 21,
        }
    )
    rests = {name: stat["rest"] for name, stat in stats.items() if stat["rest"] != 8}
    assert rests == pytest.approx({"marine": 12, "marauder": 0, "medivac": 0, "colossus": 16 * (11 * 0.0312 + 0.375)})
    speeds = {name: stat["missile_speed"] * 16 for name, stat in stats.items() if stat["missile_speed"] > 0}
    assert speeds == pytest.approx({"stalker": 18.75, "marauder": 20, "hydralisk": 40, "spine_crawler": 12})
    assert stats["spine_crawler"]["missile_acceleration"] == pytest.approx(140 / 256)
    assert [stats["hydralisk"][key] for key in ("close_range", "close_windup")] == pytest.approx([0.5, 0.3 * 16])
    ground, air = 1 << LAYER["ground"] | 1 << LAYER["cliff"], 1 << LAYER["cliff"] | 1 << LAYER["air"]
    reach = {name: unit.reach for name, unit in balance.units.items()}
    assert {name for name, bits in reach.items() if bits == ground | air} == {"marine", "stalker", "hydralisk"}
    assert {name for name, bits in reach.items() if bits not in (ground, ground | air)} == {"medivac"}


# What LibertyMulti and VoidMulti make of Liberty's numbers: WeaponData, EffectData, at 16 loops a second.
MULTIPLAYER = {
    "marine": {"scan": 5.5},
    "marauder": {"scan": 6.5},
    "stalker": {"damage": 13, "bonus": 5, "period": 1.87 * 16, "scan": 6.5},
    "colossus": {
        "damage": 10, "bonus": 5, "period": 1.5 * 16, "range": 7, "scan": 7.5, "splash": 0.15,
        "channel": (11 * 0.0227 + 0.375) * 16, "rest": (11 * 0.0227 + 0.375) * 16,
    },
    "hydralisk": {"period": 0.825 * 16, "scan": 5.5},
    "spine_crawler": {"period": 1.85 * 16},
}  # fmt: skip


def test_what_multiplayer_changes():
    liberty, lotv = load_balance("liberty"), load_balance("lotv")
    assert lotv.rules == liberty.rules
    assert set(lotv.units) == set(liberty.units)
    for name, unit in lotv.units.items():
        before = liberty.units[name].stats
        changed = {key: value for key, value in unit.stats.items() if value != before[key]}
        assert changed == pytest.approx(MULTIPLAYER.get(name, {}), rel=1e-6), name
    assert lotv.units["colossus"].bonus_tags == TAG["light"]


def test_allies_are_sorted_as_in_smac_and_enemies_on_request():
    scenario = make_scenario("battle/1c3s5z", "1c3s5z", BattleOptions())
    names = [start.unit.name for start in scenario.allies]
    assert names == ["colossus"] + ["stalker"] * 3 + ["zealot"] * 5
    places = [(start.x, start.y) for start in scenario.allies]
    assert places[1:4] == sorted(places[1:4])
    assert places[4:] == sorted(places[4:])
    place = scenario.traits[TRAIT["place"]]
    ids = scenario.traits[TRAIT["type"]][place]
    first = scenario.enemy_slot
    assert ids[first : first + 9].tolist() == [4] + [73] * 5 + [74] * 3
    assert place[:first].tolist() == list(range(first))


def test_stalkers_and_zealots_have_two_one_hots():
    scenario = make_scenario("battle/2s3z", "2s3z", BattleOptions())
    bits = {
        (slot < 8, int(t)): int(b) for slot, (t, b) in enumerate(scenario.traits[[TRAIT["type"], TRAIT["type_bit"]]].T)
    }
    assert bits[True, 74] == 0
    assert bits[True, 73] == 1
    assert bits[False, 73] == 0
    assert bits[False, 74] == 1


@pytest.mark.parametrize("name", sorted(SIZES))
def test_starts(name):
    """Everybody stands on open ground, and nobody of its layer within the other's inner radius."""
    scenario = make_scenario(f"battle/{name}", name, BattleOptions())
    starts = [*scenario.allies, *scenario.enemies]
    for i, start in enumerate(starts):
        for dx in (-0.1, 0.1):
            for dy in (-0.1, 0.1):
                assert scenario.terrain[:, int(start.y + dy), int(start.x + dx)].all()
        for other in starts[:i]:
            if other.unit.layer == start.unit.layer:
                apart = start.unit.inner_radius + other.unit.inner_radius
                assert np.hypot(start.x - other.x, start.y - other.y) >= apart - 1e-6
    spawn = scenario.stats[[STAT["spawn_x"], STAT["spawn_y"]]]
    np.testing.assert_allclose(spawn[:, : len(scenario.allies)].T, [[s.x, s.y] for s in scenario.allies], rtol=1e-6)


# What recordings of StarCraft II show at a battle's start: the units around their group's point, in units of the
# distance between two places, "o" where somebody stands. North is up; the same on both sides.
RECORDED = {
    ("3m", "marine"): [". . .", ". o o", ". o ."],
    ("10m_vs_11m", "marine"): [". . . . .", ". o o o .", ". o o o o", ". o o o .", ". . o . ."],
    ("so_many_baneling", "zealot"): [". o o", "o o o", ". o o"],
    ("bane_vs_bane", "baneling"): [". o .", ". o o", ". o ."],
    ("bane_vs_bane", "zergling"): [". o o o .", "o o o o o", "o o o o o", "o o o o o", ". . o o ."],
    ("MMM", "marine"): [". o o", "o o o", ". o o"],
    ("2s3z", "zealot"): ["o . o", ". . .", ". . o"],  # around a stalker at the point, and another south of it
    ("6h_vs_8z", "zealot"): ["o o o", "o o o", ". o o"],
}


@pytest.mark.parametrize(("name", "unit"), RECORDED)
def test_units_start_where_recordings_show_them(name, unit):
    """Of 10m_vs_11m the eleven, the enemies; the ten lack one of the outer two, which has not been seen."""
    scenario = make_scenario(f"battle/{name}", name, BattleOptions())
    rows = [row.split() for row in RECORDED[name, unit]]
    half = len(rows) // 2
    seen = 0
    expected = {(x - half, half - y) for y, row in enumerate(rows) for x, place in enumerate(row) if place == "o"}
    for groups, starts in ((scenario.map.ally, scenario.allies), (scenario.map.enemy, scenario.enemies)):
        group = next((group for group in groups if group.unit == unit and group.count == len(expected)), None)
        if group is None:
            continue
        apart = 2 * scenario.balance.units[unit].separation_radius
        own = [start for start in starts if start.unit.name == unit]
        assert {((start.x - group.x) / apart, (start.y - group.y) / apart) for start in own} == expected
        seen += 1
    assert seen > 0


def test_two_marauders_of_mmm_stand_in_the_west_of_either_army():
    """Marines are created first and leave those two corners; so the marauders are in front on the enemies' side."""
    scenario = make_scenario("battle/MMM", "MMM", BattleOptions())
    for x, starts in ((9, scenario.allies), (23, scenario.enemies)):
        marauders = sorted((start.x, start.y) for start in starts if start.unit.name == "marauder")
        assert marauders == [(x - 1, 15), (x - 1, 17)]


def test_both_armies_face_the_same_way():
    """Stalkers stand at the point, south and east of it, so that one of the allies' is in front and no enemy's."""
    scenario = make_scenario("battle/3s5z", "3s5z", BattleOptions())
    for x, starts in ((9, scenario.allies), (23, scenario.enemies)):
        stalkers = {(start.x, start.y) for start in starts if start.unit.name == "stalker"}
        assert stalkers == {(x, 16), (x, 14.75), (x + 1.25, 16)}
