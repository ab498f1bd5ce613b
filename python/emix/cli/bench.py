"""``emix bench``: the ops beside eager PyTorch, torch.compile and a copy of their bytes; the simulator; learners."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from emix._precision import Precision
from emix.bench.choices import SPECS, algorithms
from emix.cli.options import read_command_line
from emix.errors import UsageError
from emix.training.machine import crowded

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from emix.bench.battle import BattleRow
    from emix.bench.ops import Row
    from emix.bench.update import UpdateRow


@dataclass(frozen=True)
class Bench:
    """Measure WHAT: medians of interleaved rounds; each op is checked against its reference first."""

    what: Annotated[Positional[Literal["ops", "battle", "update"]], tyro.conf.arg(metavar="WHAT")] = "ops"
    """ops: every op at SMAC sizes. battle: the simulator with random available actions. update: the learners."""
    op: tuple[str, ...] = ()
    """ops: only these."""
    map: tuple[str, ...] = tuple(SPECS)
    """battle, update: these maps."""
    algorithm: tuple[str, ...] = algorithms()
    """update: these algorithms, with their papers' recipes."""
    precision: Precision = "float32"
    """update: of the agent networks' products on a GPU."""
    num_envs: int | None = None
    """battle: so many at once. None: what suits the map and the device."""
    device: str | None = None
    """Where to measure. None: on the GPU where torch sees one."""
    threads: int | None = None
    """CPU threads. None: as many as torch takes."""
    compile: bool = False
    """ops: measure torch.compile, too, which takes seconds an op, and a minute where time is unrolled: see --op."""
    json: Path | None = None
    """Write the measurements there, too: a list of rows, after each row anew."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Bench, arguments, "bench")
    for option in ("num_envs", "threads"):
        if (value := getattr(chosen, option)) is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} expects at least 1, got {value}")
    from rich.console import Console

    device = _prepare(chosen)
    table, failed = {"ops": _bench_ops, "battle": _bench_battle, "update": _bench_update}[chosen.what](chosen, device)
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
    if failed:
        print(f"not measured: {', '.join(failed)}")
    return 1 if failed else 0


def _prepare(chosen: Bench) -> torch.device:
    """The device to measure on, which is the current one, with so many threads."""
    import torch  # which --help need not wait for

    from emix.training.building import resolve_device

    device = resolve_device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"), chosen.precision)
    if device.index is not None:
        torch.cuda.set_device(device)  # what measures uses the current one
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    if device.type == "cpu" and (warning := crowded(torch.get_num_threads())):
        print(warning, file=sys.stderr)
    return device


# Each returns its table, and what could not be measured.


def _bench_battle(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    from emix.bench.battle import measure_battle
    from emix.cli.bench_tables import battle_table

    rows: list[BattleRow] = []
    for name in chosen.map:
        rows.append(measure_battle(name, device, num_envs=chosen.num_envs))
        _save(chosen, rows)
        print(f"{name}: {rows[-1].steps_per_second:,.0f} environment steps/s", flush=True)
    return battle_table(rows, device), []


def _bench_update(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    if unknown := [name for name in chosen.map if name not in SPECS]:
        raise UsageError(f"--map {unknown[0]!r} is not measured: expected some of {', '.join(SPECS)}")
    from emix import _host
    from emix.bench.update import measure_update
    from emix.cli.bench_tables import update_table

    _host.keep_freed_memory()  # as training does
    rows: list[UpdateRow] = []
    for algorithm in chosen.algorithm:
        for name in chosen.map:
            rows.append(measure_update(algorithm, name, device, precision=chosen.precision))
            _save(chosen, rows)
            print(f"{algorithm} {name}: {rows[-1].seconds * 1e3:.2f} ms", flush=True)
    return update_table(rows, device), []


def _bench_ops(chosen: Bench, device: torch.device) -> tuple[Table, list[str]]:
    from emix.bench.ops import cases, measure
    from emix.cli.bench_tables import ops_table

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
    return ops_table(rows, device), failed


def _save(chosen: Bench, rows: Sequence[Row | BattleRow | UpdateRow]) -> None:
    if chosen.json:
        chosen.json.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
