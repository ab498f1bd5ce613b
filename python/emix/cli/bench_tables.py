"""The tables of ``emix bench``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table

from emix.bench.battle import BattleRow
from emix.bench.measure import CALLS
from emix.bench.ops import Row
from emix.bench.update import UpdateRow


def battle_table(rows: Sequence[BattleRow], device: torch.device) -> Table:
    """Environment steps per second, and what a step returns."""
    table = Table(title=f"{_machine(device)}: environment steps per second, random available actions")
    for column in ("map", "battles", "steps/s", "simulator alone", "bytes a step", "won"):
        table.add_column(column, justify="left" if column == "map" else "right")
    for row in rows:
        alone = row.simulator_steps_per_second
        rates = f"{row.steps_per_second:,.0f}", "" if alone is None else f"{alone:,.0f}"
        table.add_row(row.map, f"{row.num_envs:,}", *rates, f"{row.bytes_per_step:,}", f"{row.battle_won:.4f}")
    return table


def update_table(rows: Sequence[UpdateRow], device: torch.device) -> Table:
    """Milliseconds, launches, and how far from the floor of bytes and arithmetic."""
    table = Table(title=f"{_machine(device)}, torch {torch.__version__}: an update on episodes of full length")
    columns = ("algorithm", "map", "batch", "ms", *(["graph ms"] if device.type == "cuda" else []))
    for column in (*columns, "launches", "MB", "GFLOP", "floor ms", "times the floor"):
        table.add_column(column, justify="left" if column in ("algorithm", "map") else "right")
    for row in rows:
        times = [row.seconds] if device.type == "cpu" else [row.seconds, row.graph_seconds]
        cells = [f"{seconds * 1e3:.3g}" if seconds is not None else "" for seconds in times]
        floor = str(row.launches), f"{row.bytes / 1e6:.3g}", f"{row.flops / 1e9:.3g}", f"{row.floor * 1e3:.3g}"
        best = min(seconds for seconds in times if seconds is not None)
        table.add_row(row.algorithm, row.map, str(row.batch_size), *cells, *floor, f"{best / row.floor:.2g}")
    return table


def ops_table(rows: Sequence[Row], device: torch.device) -> Table:
    """Microseconds of emix, and how many times longer the others take."""
    on_device = "a call" if device.type == "cpu" else f"a call on the device, in a graph of {CALLS}, and from Python"
    table = Table(title=f"{_machine(device)}, torch {torch.__version__}: microseconds of {on_device} (times emix's)")
    candidates = list(dict.fromkeys(name for row in rows for name in row.device_seconds))
    calls = [] if device.type == "cpu" else [name for name in candidates if name != "copy"]
    columns = *candidates, *(f"{name}, call" for name in calls)
    for column in ("op", "shape", "", *columns, "launches (eager)"):
        table.add_column(column, justify="left" if column in ("op", "shape", "") else "right")
    for row in rows:
        cells = [_cell(row.device_seconds, name) for name in candidates] + [
            _cell(row.call_seconds, name) for name in calls
        ]
        table.add_row(row.op, row.shape, row.direction, *cells, f"{row.emix_launches} ({row.eager_launches})")
    return table


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _cell(seconds: dict[str, float], name: str) -> str:
    if name not in seconds:
        return ""
    ratio = "" if name == "emix" else f" ({_ratio(seconds[name] / seconds['emix'])})"
    return f"{seconds[name] * 1e6:.4g}{ratio}"


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.2g}x"
