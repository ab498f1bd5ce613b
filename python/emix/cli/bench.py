"""``emix bench``: the ops beside eager PyTorch, torch.compile and a copy of their bytes; the simulator; learners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from emix import _host, learners
from emix.bench.battle import NUM_ENVS, BattleRow, measure_battle
from emix.bench.ops import Row, cases, measure
from emix.bench.update import SPECS, UpdateRow, measure_update
from emix.errors import UsageError
from emix.training.building import resolve_device


@dataclass(frozen=True)
class Bench:
    """Measure WHAT: medians of interleaved rounds; each op is checked against its reference first."""

    what: Annotated[Positional[Literal["ops", "battle", "update"]], tyro.conf.arg(metavar="WHAT")] = "ops"
    """ops: every op at SMAC sizes. battle: the simulator with random available actions. update: the learners."""
    op: tuple[str, ...] = ()
    """ops: only these."""
    map: tuple[str, ...] = tuple(NUM_ENVS["cpu"])
    """battle, update: these maps."""
    algorithm: tuple[str, ...] = tuple(name for name in learners.list_algorithms() if "@" not in name)
    """update: these algorithms, with their papers' recipes."""
    num_envs: int | None = None
    """battle: so many at once. None: what suits the map and the device."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to measure."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    compile: bool = True
    """ops: measure torch.compile, too; the first compilation of each op takes seconds."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Bench, args=list(arguments), prog="emix bench")
    device = resolve_device(chosen.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what measures uses the current one
    torch.set_num_threads(chosen.threads)
    table = {"ops": _bench_ops, "battle": _bench_battle, "update": _bench_update}[chosen.what](chosen, device)
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
    return 0


def _bench_battle(chosen: Bench, device: torch.device) -> Table:
    rows: list[BattleRow] = []
    for name in chosen.map:
        rows.append(measure_battle(name, device, num_envs=chosen.num_envs))
        print(f"{name}: {rows[-1].steps_per_second:,.0f} environment steps/s", flush=True)
    table = Table(title=f"{_machine(device)}: environment steps per second, random available actions")
    for column in ("map", "battles", "steps/s", "simulator alone", "bytes a step", "won"):
        table.add_column(column, justify="left" if column == "map" else "right")
    for row in rows:
        rates = f"{row.steps_per_second:,.0f}", f"{row.simulator_steps_per_second:,.0f}"
        table.add_row(row.map, f"{row.num_envs:,}", *rates, f"{row.bytes_per_step:,}", f"{row.battle_won:.4f}")
    return table


def _bench_update(chosen: Bench, device: torch.device) -> Table:
    if unknown := [name for name in chosen.map if name not in SPECS]:
        raise UsageError(f"--map {unknown[0]!r} is not measured: expected some of {', '.join(SPECS)}")
    _host.keep_freed_memory()  # as training does
    rows: list[UpdateRow] = []
    for algorithm in chosen.algorithm:
        for name in chosen.map:
            rows.append(measure_update(algorithm, name, device))
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
    return table


def _bench_ops(chosen: Bench, device: torch.device) -> Table:
    available = list(cases(device))
    names = sorted({case.op for case in available})
    if unknown := [name for name in chosen.op if name not in names]:
        raise UsageError(f"--op {unknown[0]!r} is not measured: expected some of {', '.join(names)}")
    rows = []
    for case in available:
        if not chosen.op or case.op in chosen.op:
            for backward in (False, True) if case.differentiable else (False,):
                rows.append(measure(case, device, backward=backward, compiled=chosen.compile))
                print(f"{case.op} {rows[-1].direction}: {rows[-1].seconds['emix'] * 1e6:.1f} us", flush=True)
    return _table(rows, device)


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _table(rows: Sequence[Row], device: torch.device) -> Table:
    """Microseconds of emix, and how many times longer the others take."""
    table = Table(title=f"{_machine(device)}, torch {torch.__version__}: microseconds (times emix's)")
    candidates = list(dict.fromkeys(name for row in rows for name in row.seconds))
    for column in ("op", "shape", "", *candidates, "launches (eager)"):
        table.add_column(column, justify="left" if column in ("op", "shape", "") else "right")
    for row in rows:
        cells = []
        for name in candidates:
            ours = row.seconds["emix, graph" if name.endswith("graph") else "emix"]
            ratio = "" if name.startswith("emix") else f" ({_ratio(row.seconds[name] / ours)})"
            cells.append(f"{row.seconds[name] * 1e6:.4g}{ratio}" if name in row.seconds else "")
        launched = f"{row.emix_launches} ({row.eager_launches})"
        table.add_row(row.op, row.shape, row.direction, *cells, launched)
    return table


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.2g}x"
