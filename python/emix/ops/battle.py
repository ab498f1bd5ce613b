r"""The battle simulator: an environment step, or the start of an episode, of B battles in one launch.

An environment step is 8 game loops of SMAC's rules (targets, wind-up, hits, death, healing, regeneration, movement,
collisions), then reward, end, observations, state and available actions. ``csrc/battle/`` holds the rules, a file each;
``emix.envs.battle`` makes the tensors of a map and is what most users want.

CPU and GPU play the same battle bit for bit: every operation is exactly rounded, all sums have a fixed order, and the
random numbers are Philox4x32-10 at (seed, number of the battle, number of the episode).

>>> import emix
>>> env = emix.make("battle/3m", num_envs=2)
>>> start = env.reset()
>>> east = torch.full((2, 3), 4)  # [B, n]
>>> step = battle_step(env.battles, east, env.tables)
>>> step.obs.shape, step.terminated
(torch.Size([2, 3, 30]), tensor([False, False]))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emix import _host
from emix.ops._call import public
from emix.ops._fake import check_shape, register_fake, require
from emix.ops._seed import check_seed

_step = torch.ops.emix.battle_step.default
_reset = torch.ops.emix.battle_reset.default

_STATE, _TABLES = ("units", "minds", "clock"), ("stats", "traits", "rules", "terrain", "waypoints", "layout")
_FIELDS = {name: f"state.{name}" for name in _STATE} | {name: f"scenario.{name}" for name in _TABLES}

_MAP, _LANES, _MAX_SLOTS = 32, 8, 128  # as in csrc/battle
_LAYOUT_UP_TO = (128, 1, 1, 2**9 - 1)  # type bits, shields, features


class BattleState(NamedTuple):
    """What changes: updated in place. The rows' names are in ``csrc/battle/fields.h`` (``emix._host.battle_fields()``).

    Slots are the allies, padded to a multiple of 8, then the enemies, padded alike.
    """

    units: Tensor  # [B, rows, slots] float32
    minds: Tensor  # [B, rows, slots] int32
    clock: Tensor  # [B, rows] int64


class BattleTables(NamedTuple):
    """What is the same for all battles: the map's units, its terrain and the rules."""

    stats: Tensor  # [rows, slots] float32
    traits: Tensor  # [rows, slots] int32
    rules: Tensor  # [rows] float64
    terrain: Tensor  # [2, 32, 32] uint8, open and closed: 0 blocked, else 1 + height
    waypoints: Tensor  # [2, 1024, 1024] int16: from goal cell and own cell to the next cell; empty: all ways are free
    layout: list[int]  # allies, enemies, type bits, allies' shields, enemies' shields, features


class BattleStep(NamedTuple):
    """What a step returns."""

    obs: Tensor  # [B, n, O] float32
    state: Tensor  # [B, S] float32
    avail: Tensor  # [B, n, A] bool
    reward: Tensor  # [B] float32
    terminated: Tensor  # [B] bool: won, lost, or both sides dead
    truncated: Tensor  # [B] bool: the time limit
    battle_won: Tensor  # [B] bool
    dead_allies: Tensor  # [B] int64
    dead_enemies: Tensor  # [B] int64


@public(_FIELDS)
def battle_step(state: BattleState, actions: Tensor, scenario: BattleTables) -> BattleStep:
    """Play 8 game loops of B battles; battles that have ended stay as they are, with reward 0.

    Source: SMAC (Samvelyan et al. 2019), oxwhirl/smac.

    Args:
        state: changed in place.
        actions: int64 ``[B, n]``: 0 no-op (of the dead), 1 stop, 2 north, 3 south, 4 east, 5 west, 6 + j attack enemy j
            (a healer: heal ally j). One that is not available counts as stop and is noted in ``clock.fault``; no-op of
            a living unit leaves its order as it is.
        scenario: the map.

    Returns:
        What the agents see and got after these loops.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    return BattleStep(*_step(*state, actions, *scenario))


@public(_FIELDS)
def battle_reset(
    state: BattleState, where: Tensor, scenario: BattleTables, *, seed: int, first: int = 0, closed: bool = False
) -> BattleStep:
    """Start the next episode of some battles; the others are only observed.

    Battle b starts episode number ``clock.episode`` and adds 1 to it; everything random in it is a function of (seed,
    ``first`` + b, number).

    Args:
        state: changed in place.
        where: bool ``[B]``: the battles to start.
        scenario: the map.
        seed: of all battles, an integer from 0 to 2^63 - 1.
        first: the number of battle 0, so that what happens does not depend on how battles are divided over calls.
        closed: with the map's closed terrain.

    Returns:
        What the agents see; rewards are 0.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    return BattleStep(*_reset(*state, where, *scenario, check_seed(seed), first, closed))


def _fake(state: BattleState, given: tuple[str, Tensor, torch.dtype], scenario: BattleTables) -> tuple[Tensor, ...]:
    """given: what the op is told of each battle or agent, its name and its type."""
    layout = scenario.layout
    require(len(layout) == 6, "`layout` must have 6 numbers, got {}", len(layout))
    slots = sum(-(-count // _LANES) * _LANES for count in layout[:2])
    sentence = "`layout` must name at least one ally and one enemy and no more than {} slots, got {}"
    require(min(layout[:2]) >= 1 and slots <= _MAX_SLOTS, sentence, _MAX_SLOTS, layout)
    for place, most in enumerate(_LAYOUT_UP_TO, start=2):
        sentence = "`layout[{}]` must lie between 0 and {}, got {}"
        require(0 <= layout[place] <= most, sentence, place, most, layout[place])
    units = state.units
    require(units.dim() == 3, "`units` must have shape [B, rows, slots], got {}", list(units.shape))
    battles, rows = units.shape[0], {name: len(fields) for name, fields in _host.battle_fields().items()}
    _check("units", units, torch.float32, (battles, rows["unit"], slots), units)
    _check("minds", state.minds, torch.int32, (battles, rows["mind"], slots), units)
    _check("clock", state.clock, torch.int64, (battles, rows["clock"]), units)
    _check("stats", scenario.stats, torch.float32, (rows["stat"], slots), units)
    _check("traits", scenario.traits, torch.int32, (rows["trait"], slots), units)
    _check("rules", scenario.rules, torch.float64, (rows["rule"],), units)
    _check("terrain", scenario.terrain, torch.uint8, (2, _MAP, _MAP), units)
    if scenario.waypoints.numel() > 0:
        _check("waypoints", scenario.waypoints, torch.int16, (2, _MAP**2, _MAP**2), units)
    name, orders, dtype = given
    _check(name, orders, dtype, (battles, layout[0]) if dtype == torch.int64 else (battles,), units)
    obs_size, state_size, actions = _host.battle_sizes(*layout)
    flag, count = (units.new_empty(battles, dtype=dtype) for dtype in (torch.bool, torch.int64))
    return (
        units.new_empty(battles, layout[0], obs_size),
        units.new_empty(battles, state_size),
        units.new_empty(battles, layout[0], actions, dtype=torch.bool),
        units.new_empty(battles),
        *(torch.empty_like(flag) for _ in range(3)),
        *(torch.empty_like(count) for _ in range(2)),
    )


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], units: Tensor) -> None:
    require(tensor.dtype == dtype, "`{}` must be {}, got {}", name, dtype, tensor.dtype)
    check_shape(name, tensor, shape)
    require(tensor.device == units.device, "`{}` must be on {}, got {}", name, units.device, tensor.device)
    require(tensor.is_contiguous(), "`{}` must be contiguous, got a strided view", name)


@register_fake("battle_step")
def _(units, minds, clock, actions, *scenario):  # type: ignore[no-untyped-def]
    state = BattleState(units, minds, clock)
    return _fake(state, ("actions", actions, torch.int64), BattleTables(*scenario))


@register_fake("battle_reset")
def _(units, minds, clock, where, *others):  # type: ignore[no-untyped-def]
    *scenario, _seed, first, _closed = others
    require(0 <= first <= 2**32 - units.shape[0], "`first` must be from 0 to 2^32 - B, got {}", first)
    return _fake(BattleState(units, minds, clock), ("where", where, torch.bool), BattleTables(*scenario))
