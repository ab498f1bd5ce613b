"""What came out of the check: one short table, and everything in full beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.parts import Setting
from benchmarks.gpu_check.published import SOURCE, published
from benchmarks.gpu_check.running import Outcome

DETAIL = 150  # characters of an error or a result in the table
Cells = Sequence[str]


def write(folder: Path, machine: Mapping[str, str], outcomes: Mapping[str, Outcome], setting: Setting) -> None:
    """Write gpu-check.md (the table), gpu-check.json (every figure) and gpu-check.log (what the parts printed)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu-check.md").write_text(markdown(machine, outcomes, setting))
    parts = {name: {**vars(outcome), "rows": _rows(setting, name)} for name, outcome in outcomes.items()}
    (folder / "gpu-check.json").write_text(json.dumps({"machine": dict(machine), "parts": parts}, indent=1) + "\n")
    logs = [f"==== {name}: {outcomes[name]}\n{_log(setting, name)}\n" for name in outcomes]
    (folder / "gpu-check.log").write_text("\n".join(logs))


def markdown(machine: Mapping[str, str], outcomes: Mapping[str, Outcome], setting: Setting) -> str:
    """The parts, and their figures beside floor and peers."""
    parts = [
        (name, outcome.result, f"{outcome.seconds:.0f}", f"{outcome.limit:.0f}", _what(name, outcome, setting))
        for name, outcome in outcomes.items()
    ]
    figures = [line for name in outcomes for row in _rows(setting, name) for line in _figures(name, row)]
    title = (
        ""
        if setting.device == "cuda"
        else "The emulated kernels on a CPU: a trial of the command, no figures of a GPU.\n\n"
    )
    text = f"{title}{', '.join(f'{name} {value}' for name, value in machine.items())}\n\n"
    text += _table(("part", "result", "s", "limit, s", "what"), parts)
    if figures:
        text += f"\n{_table(('figure', 'measured', 'floor', 'fastest peer here', 'published'), figures)}\n{SOURCE}\n"
    return text


def _figures(part: str, row: Mapping[str, Any]) -> list[Cells]:
    """A row that a part measured as lines of the table."""
    if part == "ops":
        name, case = row["op"], row.get("case", "")
        own = f"{_number(row.get('device_us'))} us, call {_number(row.get('call_us'))}"
        floor = f"{_number(row.get('floor_us'))} us"
        return [(f"{name} {case}", own, floor, _fastest(row.get("peers"), "us"), published(part, name, case))]
    if part == "battle":
        name = row["map"]
        own = f"{row['steps_per_s']:,.0f} steps/s"
        what = f"battle/{name}, {row.get('envs', 0):,} at once"
        return [(what, own, "", "", published(part, name))]
    name = f"{row['learner']} {row['map']}"
    if part == "update":
        floor = f"{_number(row['floor_ms'])} ms" if row.get("floor_ms") else ""
        peers = _fastest(row.get("peers"), "ms")
        return [
            (
                f"update {name} {row.get('case', '')}",
                f"{_number(row.get('ms'))} ms",
                floor,
                peers,
                published(part, name),
            )
        ]
    return [(f"train {name}", f"{row['steps_per_s']:,.0f} steps/s", "", "", "")]


def _fastest(peers: Mapping[str, float | None] | None, unit: str) -> str:
    """The peer with the shortest time; calls from Python are not what ``measured`` begins with."""
    times = (peers or {}).items()
    known = {name: value for name, value in times if value is not None and not name.endswith(", call")}
    name = min(known, key=known.__getitem__, default=None)
    return f"{name} {_number(known[name])} {unit}" if name else ""


def _number(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _what(name: str, outcome: Outcome, setting: Setting) -> str:
    """How a part ended; of a benchmark, whose last line is a row of its own table, how many figures stand below."""
    if outcome.result == "passed" and name in ("ops", "battle", "update"):
        return f"figures, below: {len(_rows(setting, name))}"
    return _short(outcome.detail)


def _short(text: str) -> str:
    text = text.replace("|", "/")
    return text if len(text) <= DETAIL else f"{text[: DETAIL - 3]}..."


def _table(header: Cells, rows: Sequence[Cells]) -> str:
    """Markdown that can be read as it is: columns of one width, the last one as it comes."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header) - 1)]

    def line(cells: Cells) -> str:
        return f"| {' | '.join([*map(str.ljust, cells, widths), cells[-1]])} |\n"

    return "".join(map(line, [header, [*("-" * width for width in widths), "---"], *rows]))


def _rows(setting: Setting, part: str) -> list[dict[str, Any]]:
    path = setting.rows(part)
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError:  # its part was stopped while it wrote
        return []
    return found if isinstance(found, list) else found.get("rows", [])


def _log(setting: Setting, part: str) -> str:
    path = setting.log(part)
    return path.read_text(errors="replace") if path.exists() else ""
