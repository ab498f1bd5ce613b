"""What a unit can do: the statistics of a balance, read from YAML and converted to game loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emix.envs.battle.fields import LAYER, TAG, WEAPON
from emix.envs.battle.reading import Section, read_yaml
from emix.envs.options import LEAST

# Keys of a unit and of its parts, each with the row of the statistics that it fills and the power of loops-a-second
# that turns its unit into loops: 0 for points and cells, 1 for seconds, -1 for "a second", -2 for "a second squared".
_BODY = {
    "health": ("health", 0),
    "shield": ("shield", 0),
    "energy": ("energy", 0),
    "energy_limit": ("energy_limit", 0),
    "armor": ("armor", 0),
    "health_regeneration": ("health_regeneration", -1),
    "energy_regeneration": ("energy_regeneration", -1),
    "speed": ("speed", -1),
    "acceleration": ("acceleration", -2),
    "radius": ("radius", 0),
    "cooldown_scale": ("cooldown_scale", 0),
}
_WEAPON = {
    "damage": ("damage", 0),
    "bonus": ("bonus", 0),
    "hits": ("hits", 0),
    "interval": ("interval", 1),
    "missile_speed": ("missile_speed", -1),
    "missile_acceleration": ("missile_acceleration", -2),
    "period": ("period", 1),
    "windup": ("windup", 1),
    "channel": ("channel", 1),
    "range": ("range", 0),
    "slop": ("slop", 0),
    "scan": ("scan", 0),
    "splash": ("splash", 0),
    "beam": ("beam", 0),
}
_CLOSE = {"range": ("close_range", 0), "windup": ("close_windup", 1)}
_HEAL = {"life": ("heal", -1), "range": ("heal_range", 0), "scan": ("heal_scan", 0), "cost": ("heal_cost", 0)}
_RULES = {
    "shield_delay": 1,
    "shield_regeneration": -1,
    "least_damage": 0,
    "cooldown_low": 1,
    "cooldown_high": 1,
}
_PLACING = ("separation_radius", "inner_radius")  # a unit's radius, if large enough, where a balance does not say
_LEAST_PLACING = 0.125  # cells
_WEAPON_DEFAULTS = ("missile_speed", "slop", "scan")
# The game's, for a balance that does not say its own.
_BACKSWING = 8.0  # loops
_LEASH = 21.0  # cells
_TARGETS = {"ground": ("ground", "cliff"), "air": ("cliff", "air")}  # who strides over cliffs is a target for both


@dataclass(frozen=True)
class UnitType:
    """A type of unit, in game loops; ``stats`` has every row of ``STAT`` but the spawn."""

    name: str
    id: int  # StarCraft II's
    tags: int
    bonus_tags: int
    layer: int
    weapon: int
    reach: int  # bits 1 << layer
    separation_radius: float  # cells: half of how far apart units of this type are created
    inner_radius: float  # cells: of the part of its body that nobody is created in
    stats: Mapping[str, float]

    @property
    def heals(self) -> bool:
        """Whether the unit heals instead of shooting."""
        return self.stats["heal"] > 0

    @property
    def life(self) -> float:
        """Health and shield at the start."""
        return self.stats["health"] + self.stats["shield"]


@dataclass(frozen=True)
class Balance:
    """The units and rules of a version of the game."""

    source: str  # file that it was read from
    units: Mapping[str, UnitType]
    rules: Mapping[str, float]  # shield_delay, shield_regeneration, least_damage, cooldown_low, cooldown_high, leash


def load_balance(name: str) -> Balance:
    """Read a balance: ``liberty`` or ``lotv`` of this package, or the path of a YAML file.

    Raises:
        UsageError: no such balance, or a mistake in its file, named with file and key.
    """
    file, source = read_yaml(name, "balance", "balance")
    file.expect(("loops_per_second", "rules", "units"))
    loops = file.number("loops_per_second", least=1.0)
    rules = file.section("rules")
    rules.expect((*_RULES, *_WEAPON_DEFAULTS), ("backswing", "leash"))
    defaults = {key: rules.number(key) for key in _WEAPON_DEFAULTS}
    defaults["backswing"] = rules.number("backswing", _BACKSWING / loops)
    converted = {
        key: rules.number(key, least=-1.0 if key == "cooldown_low" else 0.0) * loops**power
        for key, power in _RULES.items()
    }
    converted["leash"] = rules.number("leash", _LEASH)
    if converted["cooldown_low"] > converted["cooldown_high"]:
        raise rules.error("cooldown_low", "expected at most cooldown_high")
    units = {key: _read_unit(key, unit, loops, defaults) for key, unit in file.section("units").sections().items()}
    ids: dict[int, str] = {}
    for unit in units.values():
        if unit.id in ids:
            raise file.error(f"units.{unit.name}.id", f"{unit.id} is already that of {ids[unit.id]}")
        ids[unit.id] = unit.name
    return Balance(source, units, converted)


def _read_unit(name: str, unit: Section, loops: float, defaults: Mapping[str, float]) -> UnitType:
    unit.expect(("id", "health", "speed", "radius"), (*_BODY, *_PLACING, "tags", "layer", "weapon", "heal"))
    stats = {"rest": 0.0} | {row: 0.0 for keys in (_BODY, _WEAPON, _CLOSE, _HEAL) for row, _ in keys.values()}
    stats |= _numbers(unit, _BODY, loops)
    stats["cooldown_scale"] = unit.number("cooldown_scale", 15.0)  # SMAC's for a unit that it does not know
    for key in ("health", "radius", "cooldown_scale"):
        _refuse_small(unit, key, stats[key])
    placing = {key: unit.number(key, max(stats["radius"], _LEAST_PLACING)) for key in _PLACING}
    for key, radius in placing.items():
        _refuse_small(unit, key, radius, _LEAST_PLACING)
    if stats["energy"] > stats["energy_limit"]:
        raise unit.error(
            "energy", f"expected at most energy_limit ({stats['energy_limit']:g}), got {stats['energy']:g}"
        )
    stats["shield_scale"] = stats["shield"] or 1.0  # SMAC's constants are the shields of the units that have one
    weapon, reach, bonus_tags = "none", 0, 0
    if "weapon" in unit and "heal" in unit:
        raise unit.error("heal", "a unit cannot have both a weapon and heal")
    if "weapon" in unit:
        part = unit.section("weapon")
        weapon, reach, bonus_tags = _read_weapon(part, loops, defaults, stats)
    if "heal" in unit:
        part = unit.section("heal")
        part.expect(_HEAL)
        stats |= _numbers(part, _HEAL, loops)
        _refuse_small(unit, "energy_limit", stats["energy_limit"], of="a unit with heal")
    return UnitType(
        name=name,
        id=unit.integer("id"),
        tags=sum({TAG[tag] for tag in unit.words("tags", TAG)}),
        bonus_tags=bonus_tags,
        layer=LAYER[unit.choice("layer", LAYER, "ground")],
        weapon=WEAPON[weapon],
        reach=reach,
        stats=stats,
        **placing,
    )


def _read_weapon(
    part: Section, loops: float, defaults: Mapping[str, float], stats: dict[str, float]
) -> tuple[str, int, int]:
    """Fill the weapon's rows of ``stats``; return its kind, reach and bonus tags."""
    part.expect(("kind", "targets", "damage", "range", "period"), (*_WEAPON, "backswing", "bonus_tags", "close"))
    weapon = part.choice("kind", [kind for kind in WEAPON if kind != "none"])
    stats |= {"hits": 1.0, "slop": defaults["slop"]} | _numbers(part, _WEAPON, loops)
    # Targets are looked for as far as the weapon reaches, and at least so far.
    stats["scan"] = max(stats["range"], part.number("scan", defaults["scan"]))
    if weapon == "missile":
        speed = part.number("missile_speed", defaults["missile_speed"])
        _refuse_small(part, "missile_speed", speed)
        stats["missile_speed"] = speed / loops
    stats["rest"] = max(part.number("backswing", defaults["backswing"]) * loops, stats["channel"])
    if "close" in part:
        if weapon != "missile":
            raise part.error("close", "only a weapon of the kind missile has another one at arm's length")
        close = part.section("close")
        close.expect(_CLOSE)
        stats |= _numbers(close, _CLOSE, loops)
    targets = part.words("targets", _TARGETS)
    if not targets:
        raise part.error("targets", "expected ground, air or both")
    if (stats["bonus"] > 0) != bool(part.words("bonus_tags", TAG)):
        raise part.error("bonus", "expected together with bonus_tags")
    if stats["hits"] < 1 or stats["hits"] != int(stats["hits"]):
        raise part.error("hits", f"expected an integer of at least 1, got {stats['hits']:g}")
    reach = sum(1 << LAYER[layer] for layer in {layer for target in targets for layer in _TARGETS[target]})
    return weapon, reach, sum({TAG[tag] for tag in part.words("bonus_tags", TAG)})


def _refuse_small(part: Section, key: str, value: float, least: float = LEAST, of: str = "") -> None:
    """What is divided by, or walked along step by step, must be large enough."""
    if value < least:
        whose = f" of {of}" * bool(of)
        raise part.error(key, f"expected a number of at least {least:g}{whose}, got {value:g}")


def _numbers(part: Section, keys: Mapping[str, tuple[str, int]], loops: float) -> dict[str, float]:
    return {row: part.number(key) * loops**power for key, (row, power) in keys.items() if key in part}
