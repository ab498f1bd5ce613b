"""``emix bench``: the ops beside eager PyTorch, torch.compile and a copy of their bytes; the simulator; learners."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from emix import _host
from emix._precision import Precision
from emix.bench.battle import NUM_ENVS, BattleRow, measure_battle
from emix.bench.measure import CALLS
from emix.bench.ops import Row, cases, measure
from emix.bench.update import SPECS, UpdateRow, algorithms, measure_update
from emix.cli.options import read_command_line
from emix.errors import UsageError
from emix.training.building import resolve_device
from emix.training.machine import crowded


@dataclass(frozen=True)
class Bench:
    """Measure WHAT: medians of interleaved rounds; each op is checked against its reference first."""

    what: Annotated[Positional[Literal["ops", "battle", "update"]], tyro.conf.arg(metavar="WHAT")] = "ops"
    """ops: every op at SMAC sizes. battle: the simulator with random available actions. update: the learners."""
    op: tuple[str, ...] = ()
    """ops: only these."""
    map: tuple[str, ...] = tuple(NUM_ENVS["cpu"])
    """battle, update: these maps."""
    algorithm: tuple[str, ...] = algorithms()
    """update: these algorithms, with their papers' recipes."""
    precision: Precision = "float32"
    """update: of the agent networks' products on a GPU."""
    num_envs: int | None = None
    """battle: so many at once. None: what suits the map and the device."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to measure."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    compile: bool = False
    """ops: measure torch.compile, too. Compiling takes seconds an op, and a minute or more where time is unrolled:
    choose with --op."""
    json: Path | None = None
    """Write the measurements there, too: a list of rows, after each row anew."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Bench, arguments, "bench")
    device = resolve_device(chosen.device, chosen.precision)
    if device.index is not None:
        torch.cuda.set_device(device)  # what measures uses the current one
    torch.set_num_threads(chosen.threads)
    if device.type == "cpu" and (warning := crowded(chosen.threads)):
        print(warning, file=sys.stderr)
    table, failed = {"ops": _bench_ops, "battle": _bench_battle, "update": _bench_update}[chosen.what](chosen, device)
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
    if failed:
        print(f"not measured: {', '.join(failed)}")
    return 1 if failed else 0


# Each returns its table, and what could not be measured.


def _bench_battle(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    rows: list[BattleRow] = []
    for name in chosen.map:
        rows.append(measure_battle(name, device, num_envs=chosen.num_envs))
        _save(chosen, rows)
        print(f"{name}: {rows[-1].steps_per_second:,.0f} environment steps/s", flush=True)
    table = Table(title=f"{_machine(device)}: environment steps per second, random available actions")
    for column in ("map", "battles", "steps/s", "simulator alone", "bytes a step", "won"):
        table.add_column(column, justify="left" if column == "map" else "right")
    for row in rows:
        alone = row.simulator_steps_per_second
        rates = f"{row.steps_per_second:,.0f}", "" if alone is None else f"{alone:,.0f}"
        table.add_row(row.map, f"{row.num_envs:,}", *rates, f"{row.bytes_per_step:,}", f"{row.battle_won:.4f}")
    return table, []


def _bench_update(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    if unknown := [name for name in chosen.map if name not in SPECS]:
        raise UsageError(f"--map {unknown[0]!r} is not measured: expected some of {', '.join(SPECS)}")
    _host.keep_freed_memory()  # as training does
    rows: list[UpdateRow] = []
    for algorithm in chosen.algorithm:
        for name in chosen.map:
            rows.append(measure_update(algorithm, name, device, precision=chosen.precision))
            _save(chosen, rows)
            print(f"{algorithm} {name}: {rows[-1].seconds * 1e3:.2f} ms", flush=True)
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
    return table, []


def _bench_ops(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    available = list(cases(device))
    names = sorted({case.op for case in available})
    if unknown := [name for name in chosen.op if name not in names]:
        raise UsageError(f"--op {unknown[0]!r} is not measured: expected some of {', '.join(names)}")
    rows: list[Row] = []
    failed = []
    for case in available:
        if not chosen.op or case.op in chosen.op:
            for backward in (False, True) if case.differentiable else (False,):
                what = f"{case.op} {'forward, backward' if backward else 'forward'}"
                try:
                    rows.append(measure(case, device, backward=backward, compiled=chosen.compile))
                except (
                    AssertionError,
                    RuntimeError,
                ) as error:  # a wrong result, or a call that fails: go on with others
                    print(f"{what}: {error}", flush=True)
                    failed.append(what)
                    continue
                _save(chosen, rows)
                print(f"{what}: {rows[-1].device_seconds['emix'] * 1e6:.1f} us", flush=True)
    return _table(rows, device), failed


def _save(chosen: Bench, rows: Sequence[Row | BattleRow | UpdateRow]) -> None:
    if chosen.json:
        chosen.json.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _table(rows: Sequence[Row], device: torch.device) -> Table:
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


def _cell(seconds: dict[str, float], name: str) -> str:
    if name not in seconds:
        return ""
    ratio = "" if name == "emix" else f" ({_ratio(seconds[name] / seconds['emix'])})"
    return f"{seconds[name] * 1e6:.4g}{ratio}"


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.2g}x"
