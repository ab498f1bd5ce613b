"""Finished runs in the compact form in which they are committed: a line of JSON each.

A table is made from these lines, so that whoever doubts it can make it again without training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emix.errors import UsageError
from emix.reading import MIB, expect_keys, parse_json, path_of, read_bytes, short
from emix.reports.absolute import Absolute, parse_absolute
from emix.training import read_rows
from emix.training.files import make_folder, replace_file
from emix.training.folder import finished
from emix.training.rows import METRICS
from emix.training.settings import CONFIG, read_settings

DIGITS = 4  # of a metric: less than its seeds differ by
SUFFIX = ".jsonl"
_MOST = 256 * MIB
_FIELDS: dict[str, Any] = {
    "name": str, "env": str, "seed": int, "env_steps": int, "seconds": (int, float), "curves": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A finished run.

    Args:
        name: ``Settings.name``, the algorithm with what differs from its recipe.
        env: name of the environment.
        seed: of the run.
        env_steps: that it took.
        seconds: that it took.
        curves: of each metric the environment steps where it was logged, and its values.
        absolute: what its best policy has shown, where that was measured.
        env_rules: version of the environment's rules that it was trained under.
    """

    name: str
    env: str
    seed: int
    env_steps: int
    seconds: float
    curves: dict[str, tuple[list[int], list[float]]]
    absolute: Absolute | None = None
    env_rules: int = 1

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells runs apart."""
        return self.env, self.name, self.seed, self.env_rules

    def __str__(self) -> str:
        return f"{self.name} on {self.env}, seed {self.seed}"

    def curve(self, metric: str) -> np.ndarray:
        """[2, points]: environment steps and values."""
        return np.array(self.curves[metric], dtype=float)


class Gathered(NamedTuple):
    """What lies below some paths."""

    records: list[Record]
    left_out: list[tuple[str, str]]
    """What else is there, and why it is none of the records."""
    unmeasured: list[tuple[str, str]]
    """Records that lack the absolute metric, and why."""


def gather(
    paths: Iterable[Path | str],
    wanted: Callable[[str], bool],
    measure: Callable[[Path, Record], Absolute] | None = None,
) -> Gathered:
    """The finished runs in folders, in those below them, and in files of records.

    Args:
        paths: where they are; of a run that comes twice, the later one stays.
        wanted: which of their metrics.
        measure: the absolute metric of a run in a folder, where that is asked for.

    Raises:
        UsageError: a path holds no run, or a file of records is damaged.
    """
    found: dict[tuple[str, str, int, int], tuple[Record, Path]] = {}
    left_out: list[tuple[str, str]] = []
    for path in map(path_of, paths):
        for record, source in _below(path, wanted, left_out):
            if record.key in found and found[record.key][1] != source:
                left_out.append((str(found[record.key][1]), f"{record} is also in {source}, which counts"))
            found[record.key] = record, source
    old = without_old_rules([record for record, _ in found.values()])
    left_out += old.left_out
    records, unmeasured = [], []
    for record in sorted(old.records, key=lambda record: record.key):
        source = found[record.key][1]
        if measure is not None and record.absolute is None:
            try:
                record = replace(record, absolute=_measured(record, source, measure))
            except UsageError as error:
                unmeasured.append((str(record), str(error)))
        records.append(record)
    return Gathered(records, left_out, unmeasured)


def without_old_rules(records: Sequence[Record]) -> Gathered:
    """Those that were trained under the newest rules of their environment that there are among them: others were of
    another game."""
    newest: dict[str, int] = {}
    for record in records:
        newest[record.env] = max(record.env_rules, newest.get(record.env, 1))
    why = "it was trained under version {} of the rules of {}, others here under version {}"
    left_out = [
        (str(record), why.format(record.env_rules, record.env, newest[record.env]))
        for record in records
        if record.env_rules < newest[record.env]
    ]
    return Gathered([record for record in records if record.env_rules == newest[record.env]], left_out, [])


def _below(path: Path, wanted: Callable[[str], bool], left_out: list[tuple[str, str]]) -> Iterator[tuple[Record, Path]]:
    """The finished runs of a file of records or below a folder, and where they are; others go to ``left_out``."""
    if path.suffix == SUFFIX:
        if not path.exists():
            raise UsageError(f"{path} is not there: expected the folder of a run, or a file of records")
        yield from ((record, path) for record in read(path))
        return
    for folder in _runs(path):
        try:
            yield _record(folder, wanted), folder
        except (_LeftOutError, UsageError) as error:
            left_out.append((str(folder), str(error)))


def _measured(record: Record, source: Path, measure: Callable[[Path, Record], Absolute]) -> Absolute:
    if source.suffix == SUFFIX:
        raise UsageError(f"{source} does not have it: report on the run's folder")
    return measure(source, record)


def is_test_metric(name: str) -> bool:
    """Whether a metric is the mean of a test."""
    return name.startswith("test_") and name.endswith("_mean")


class _LeftOutError(Exception):
    """Why a run is none of those that count."""


def _runs(path: Path) -> list[Path]:
    if (path / CONFIG).exists():
        return [path]
    found = sorted(each.parent for each in path.rglob(CONFIG)) if path.is_dir() else []
    if not found:
        raise UsageError(
            f"{path} holds no run: expected a folder with {CONFIG}, as `emix train` makes it, one with such folders "
            f"below it, or a file of records (*{SUFFIX})"
        )
    return found


def _record(folder: Path, wanted: Callable[[str], bool]) -> Record:
    settings, done = read_settings(folder), finished(folder)
    rows = read_rows(folder) if (folder / METRICS).exists() else []
    if done is None:
        steps = rows[-1]["env_steps"] if rows else 0
        raise _LeftOutError(
            f"not finished: {steps:,} of {settings.training.steps:,} environment steps; `emix resume {folder}` goes on"
        )
    curves = {}
    for metric in sorted({name for row in rows for name in row if wanted(name)}):
        points = [(row["env_steps"], _short(row[metric])) for row in rows if row.get(metric) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            curves[metric] = (list(steps), list(values))
    return Record(
        settings.name,
        settings.env,
        settings.training.seed,
        done["env_steps"],
        done.get("seconds", 0.0),
        curves,
        env_rules=settings.env_rules,
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """All of them, in a fixed order; a run that was made again replaces the old one."""
    runs = {run.key: run for run in (*old, *new)}
    return [runs[key] for key in sorted(runs)]


def read(path: Path) -> list[Record]:
    """Of a file that :func:`write` wrote; none where there is no such file.

    Raises:
        UsageError: a line is no record.
    """
    if not path.exists():
        return []
    lines = read_bytes(path, most=_MOST).splitlines()
    return [_parse(line, f"{path} is not a file of records, line {number}") for number, line in enumerate(lines, 1)]


def _parse(line: bytes, problem: str) -> Record:
    values = expect_keys(parse_json(line, problem), _FIELDS, problem)
    if "env_rules" in values and expect_keys(values, {"env_rules": int}, problem)["env_rules"] < 1:
        raise UsageError(f"{problem}: env_rules expects 1 or more, got {values['env_rules']}")
    if unknown := set(values) - {*_FIELDS, "absolute", "env_rules"}:
        raise UsageError(f"{problem}: unknown fields {short(sorted(unknown))}")
    for name, curve in values["curves"].items():
        if not (_is_list(curve, 2) and all(map(_is_list, curve)) and len(curve[0]) == len(curve[1]) > 0):
            raise UsageError(f"{problem}: {short(name)} expects as many steps as values, got {short(curve)}")
        if not all(_is_number(value) for values in curve for value in values) or sorted(curve[0]) != curve[0]:
            raise UsageError(f"{problem}: {short(name)} expects numbers over rising steps, got {short(curve)}")
    if "absolute" in values:
        values["absolute"] = parse_absolute(values["absolute"], f"{problem}: absolute")
    return Record(**values)


def _is_list(value: object, length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write(records: Sequence[Record], path: Path) -> None:
    """A line for each.

    Raises:
        UsageError: the file cannot be written.
    """
    absent = {"absolute": None, "env_rules": 1}
    kept = ({name: value for name, value in asdict(run).items() if absent.get(name, run) != value} for run in records)
    save(path, "".join(json.dumps(values, separators=(",", ":")) + "\n" for values in kept).encode())


def save(path: Path, data: bytes) -> None:
    """Replace a file, and make the folder where missing.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        make_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def ordered(values: Iterable[str], first: Collection[str]) -> list[str]:
    """Each once: those of ``first`` in its order, and then the others in alphabetical order."""
    there = set(values)
    return [name for name in first if name in there] + sorted(there - set(first))
