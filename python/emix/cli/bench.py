"""``emix bench ops``: the ops beside eager PyTorch, torch.compile and a copy of their bytes, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from emix.bench.ops import Row, cases, measure
from emix.errors import UsageError
from emix.training.state import resolve_device


@dataclass(frozen=True)
class Bench:
    """Measure WHAT: medians of interleaved rounds, each op checked against its reference first."""

    what: Annotated[Positional[Literal["ops"]], tyro.conf.arg(metavar="WHAT")] = "ops"
    """ops: every op at SMAC sizes."""
    op: tuple[str, ...] = ()
    """Only these ops."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to measure."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    compile: bool = True
    """Measure torch.compile, too: the first compilation of each op takes seconds."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Bench, args=list(arguments), prog="emix bench")
    device = resolve_device(chosen.device)
    torch.set_num_threads(chosen.threads)
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
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(_table(rows, device))
    return 0


def _table(rows: Sequence[Row], device: torch.device) -> Table:
    """Microseconds of emix, and how many times longer the others take."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    table = Table(title=f"{machine}, torch {torch.__version__}: microseconds (times emix's)")
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
