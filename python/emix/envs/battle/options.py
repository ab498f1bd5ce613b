"""What a user may choose about a battle."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from emix.envs.battle import fields as rows
from emix.envs.options import check_types
from emix.errors import UsageError, closest


@dataclass(frozen=True)
class BattleOptions:
    """What a user may choose. Names and defaults are SMAC's where SMAC has the option.

    ``reward="sparse"`` pays +1 for a win and -1 for a defeat and is scaled like SMAC's (``reward_scale=False``: not);
    ``"sparse_deaths"`` is ADER's: -0.1 a step, +10 (``reward_death_value``) for each enemy's death, -1 for each ally's,
    +200 (``reward_win``) for a win, never scaled.
    """

    balance: str = "lotv"
    """Unit statistics: lotv (multiplayer's, as in SMAC), liberty (the campaign's), or the path of a YAML file."""
    enemy_order: str = "fixed"
    """The enemies' numbers: fixed (the map's order), sorted by type and place, or shuffled anew in each episode. SMAC
    keeps the order in which StarCraft II lists them, which changes between episodes in a way that is not known."""
    spawn_jitter: float = 0.1
    """Cells by which each start position moves at most along x and y. SMAC's armies start "constant up to small
    changes", whose size is not known."""
    retarget: str = "provoked"
    """When an enemy gives up a target that is out of its reach: provoked (another one comes into reach, or hits
    it), kept (another one comes into reach) or nearest (in every loop, for the nearest). In reach, each shot is
    at the nearest."""
    weapon_delay: bool = True
    """Whether a weapon's period varies from shot to shot, as the engine's does."""
    move_amount: float = 2.0
    """Cells that a move order leads."""
    episode_limit: int | None = None
    """Environment steps of an episode; None: the map's."""
    closing_step: int | None = None
    """Environment steps of training after which 2_corridors loses its shorter corridor; None: never."""
    checked: bool | None = None
    """Whether an action that is not available raises; None: on the CPU."""

    reward: str = "dense"
    """dense (SMAC's), sparse, or sparse_deaths (ADER's)."""
    reward_only_positive: bool = True
    """Whether the allies' losses cost nothing."""
    reward_absolute: bool = True
    """SMAC's abs() of a positive-only reward, which pays for the enemies' regeneration, too."""
    reward_death_value: float = 10.0
    reward_win: float = 200.0
    reward_defeat: float = 0.0
    reward_negative_scale: float = 0.5
    """Factor of the allies' losses without reward_only_positive."""
    reward_scale: bool = True
    """Whether the reward is scaled so that a clean win pays reward_scale_rate."""
    reward_scale_rate: float = 20.0

    obs_all_health: bool = True
    """Whether agents see the health of others; includes obs_own_health, as in SMAC."""
    obs_own_health: bool = True
    obs_last_action: bool = False
    obs_pathing_grid: bool = False
    obs_terrain_height: bool = False
    obs_timestep_number: bool = False
    obs_closed: bool = False
    """MAVEN's feature: whether the corridor is closed."""
    obs_instead_of_state: bool = False
    """The state is all agents' observations, one after another."""
    state_last_action: bool = True
    state_timestep_number: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        _check_choice("enemy_order", self.enemy_order, rows.ENEMY_ORDER)
        _check_choice("retarget", self.retarget, rows.RETARGET)
        _check_choice("reward", self.reward, rows.REWARD)
        for name, least in (("spawn_jitter", 0.0), ("reward_scale_rate", 1e-6), ("move_amount", 0.1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} expects a number of at least {least:g}, got {getattr(self, name):g}")
        for name, least in (("episode_limit", 1), ("closing_step", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} expects an integer of at least {least}, got {value}")

    @property
    def features(self) -> int:
        """``Feature`` bits of what observations and state hold."""
        chosen = {
            "obs_all_health": self.obs_all_health,
            "obs_own_health": self.obs_own_health or self.obs_all_health,
            "obs_last_action": self.obs_last_action,
            "obs_pathing_grid": self.obs_pathing_grid,
            "obs_terrain_height": self.obs_terrain_height,
            "obs_timestep_number": self.obs_timestep_number,
            "obs_closed": self.obs_closed,
            "state_last_action": self.state_last_action,
            "state_timestep_number": self.state_timestep_number,
        }
        return sum(rows.FEATURE[name] for name, on in chosen.items() if on)


def _check_choice(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}, {closest(value, known)}")
