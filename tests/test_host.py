"""The C library without torch: what its Python side checks. tests/envs/sc2 compares what it computes with the ops."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from emix import _host

LAYOUT = (3, 3, 0, 0, 0, 0)
SLOTS = 16  # eight for each side


def arrays() -> dict[str, np.ndarray]:
    rows = {name: len(names) for name, names in _host.battle_fields().items()}
    return {
        "units": np.zeros((rows["unit"], SLOTS), np.float32),
        "minds": np.zeros((rows["mind"], SLOTS), np.int32),
        "clock": np.zeros(rows["clock"], np.int64),
        "stats": np.zeros((rows["stat"], SLOTS), np.float32),
        "traits": np.zeros((rows["trait"], SLOTS), np.int32),
        "rules": np.zeros(rows["rule"], np.float64),
        "terrain": np.zeros((64, 32), np.uint8),
    }


def test_observations_have_the_sizes_of_the_layout() -> None:
    obs, state, avail = _host.Battle(list(arrays().values()), LAYOUT).observe()
    assert (obs.shape[1], state.size, avail.shape[1]) == _host.battle_sizes(*LAYOUT)
    assert avail[:, 0].all()  # who is dead can do nothing else
    assert not avail[:, 1:].any()


@pytest.mark.parametrize("name", list(arrays()))
@pytest.mark.parametrize(
    "spoil",
    [lambda a: a[..., :-1].copy(), lambda a: a.astype(np.int8), lambda a: np.stack([a, a], -1)[..., 0]],
    ids=["shape", "dtype", "strides"],
)
def test_a_wrong_array_is_refused_by_name(name: str, spoil) -> None:
    given = arrays()
    given[name] = spoil(given[name])
    with pytest.raises(ValueError, match=f"^{name} expects a contiguous array of"):
        _host.Battle(list(given.values()), LAYOUT)


def test_a_wrong_start_and_a_wrong_layout_are_refused() -> None:
    given = list(arrays().values())
    with pytest.raises(ValueError, match=r"before expects a contiguous array of \[16\] float32, got \[8\] float32"):
        _host.Battle(given, LAYOUT).score(np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="layout expects 6 numbers, got 2"):
        _host.Battle(given, (3, 3))
    with pytest.raises(ValueError, match="no more than 128 slots"):
        _host.Battle(given, (100, 100, 0, 0, 0, 0))


def test_enumerations_count_from_0_or_by_bits() -> None:
    constants = _host.battle_constants()
    assert list(constants["Status"].values()) == list(range(len(constants["Status"])))
    assert list(constants["Tag"].values()) == [1 << bit for bit in range(len(constants["Tag"]))]


def test_it_needs_no_torch() -> None:
    code = "from emix import _host; _host.build(); import sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
