"""Compiled code that needs neither torch nor a GPU, by ctypes: ``csrc/host/host.cpp``. Never on an op's path."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emix._compiled import compiled_file

_library = ctypes.CDLL(str(compiled_file("libemix_host.so")))
for _name in ("tables", "driver_problem", "driver_remedy"):
    getattr(_library, f"emix_host_{_name}").restype = ctypes.c_char_p
_TABLES: dict[str, Any] = json.loads(_library.emix_host_tables())
_FIELDS: dict[str, list[str]] = _TABLES["fields"]
_LANES, _MAP, _MAX_SLOTS = (_TABLES["constants"][name] for name in ("lanes", "map", "max_slots"))


class _Battle(ctypes.Structure):
    """One battle's arrays: csrc/host/host.cpp's EmixBattle."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("units", "minds", "clock", "stats", "traits", "rules", "terrain")
    )


def build() -> dict[str, str]:
    """How this package was built: version, compiler, torch (whose headers were used; any torch >= 2.10 runs it),
    cuda (ON or OFF), cuda_version and cuda_architectures (empty without CUDA)."""
    return dict(_TABLES["build"])


def driver_problem(toolkit: int, driver: int) -> str:
    """Why a CUDA driver does not run what a toolkit has built, versions as 12090 for 12.9 (driver 0: none); empty
    where it does."""
    sentence: bytes = _library.emix_host_driver_problem(toolkit, driver)
    return sentence.decode()


def driver_remedy(toolkit: int, driver: int) -> str:
    """What to do about it."""
    sentence: bytes = _library.emix_host_driver_remedy(toolkit, driver)
    return sentence.decode()


def battle_fields() -> dict[str, list[str]]:
    """The names of the rows of the battle's tensors, table by table."""
    return _FIELDS


def battle_constants() -> dict[str, Any]:
    """The battle's sizes, and its enumerations by name."""
    return dict(_TABLES["constants"])


def battle_sizes(
    allies: int, enemies: int, type_bits: int, ally_shield: int, enemy_shield: int, features: int
) -> tuple[int, int, int]:
    """Of a layout: how many numbers an observation and the state have, and how many actions there are."""
    sizes = (ctypes.c_int * 3)()
    layout = (ctypes.c_int * 6)(allies, enemies, type_bits, ally_shield, enemy_shield, features)
    _library.emix_host_battle_sizes(layout, sizes)
    return sizes[0], sizes[1], sizes[2]


class Battle:
    """One battle of which somebody else moves the units: observations, and what a step pays.

    Args:
        arrays: units, minds, clock, stats, traits, rules and terrain, as the battle's tensors; stats and traits are
            those of the unit that stands in each slot. They are read, and clock is written, where they lie now.
        layout: as ``battle_sizes`` takes it.

    Raises:
        ValueError: an array has another shape or dtype, or is not contiguous; a layout has too many units.
    """

    def __init__(self, arrays: Sequence[NDArray], layout: Sequence[int]) -> None:
        self._slots = _slots(layout)
        units, minds, clock, stats, traits, rules, terrain = self._arrays = tuple(arrays)  # kept: C has addresses alone
        self._battle = _Battle(
            _address("units", units, np.float32, (len(_FIELDS["unit"]), self._slots)),
            _address("minds", minds, np.int32, (len(_FIELDS["mind"]), self._slots)),
            _address("clock", clock, np.int64, (len(_FIELDS["clock"]),)),
            _address("stats", stats, np.float32, (len(_FIELDS["stat"]), self._slots)),
            _address("traits", traits, np.int32, (len(_FIELDS["trait"]), self._slots)),
            _address("rules", rules, np.float64, (len(_FIELDS["rule"]),)),
            _address("terrain", terrain, np.uint8, (2 * _MAP, _MAP)),
        )
        self._allies, self._layout = layout[0], (ctypes.c_int * 6)(*layout)
        self._sizes = battle_sizes(*layout)

    def observe(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Observations [n, O] and state [S], float32, and available actions [n, A] bool."""
        obs_size, state_size, actions = self._sizes
        obs, state = np.empty((self._allies, obs_size), np.float32), np.empty(state_size, np.float32)
        avail = np.empty((self._allies, actions), np.bool_)
        results = (ctypes.c_void_p(each.ctypes.data) for each in (obs, state, avail))
        _library.emix_host_battle_observe(self._layout, ctypes.byref(self._battle), *results)
        return obs, state, avail

    def score(self, before: NDArray[np.float32]) -> tuple[float, bool, bool, bool, int, int]:
        """The end of an environment step: writes clock's step and status, and returns reward, terminated, truncated,
        battle_won, dead_allies, dead_enemies.

        Args:
            before: [slots] float32, each unit's health and shield at the start of the step, 0 of the dead.

        Raises:
            ValueError: ``before`` is another array than that.
        """
        start = ctypes.c_void_p(_address("before", before, np.float32, (self._slots,)))
        reward, results = ctypes.c_float(), (ctypes.c_int64 * 5)()
        battle = ctypes.byref(self._battle)
        _library.emix_host_battle_score(self._layout, battle, start, ctypes.byref(reward), results)
        terminated, truncated, won, dead_allies, dead_enemies = results
        return reward.value, bool(terminated), bool(truncated), bool(won), dead_allies, dead_enemies


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next allocation, for the rest of this process. Returns whether it is
    glibc, which can."""
    return bool(_library.emix_host_keep_freed_memory())


def _slots(layout: Sequence[int]) -> int:
    if len(layout) != 6:
        raise ValueError(f"layout expects 6 numbers, got {len(layout)}")
    slots = sum(-(-count // _LANES) * _LANES for count in layout[:2])
    if min(layout[:2]) < 1 or slots > _MAX_SLOTS:
        raise ValueError(
            f"layout expects at least one ally and one enemy and no more than {_MAX_SLOTS} slots, got {tuple(layout)}"
        )
    return slots


def _address(name: str, array: NDArray, dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        expected, got = f"{list(shape)} {dtype.__name__}", f"{list(array.shape)} {array.dtype}"
        raise ValueError(f"{name} expects a contiguous array of {expected}, got {got}")
    return array.ctypes.data
