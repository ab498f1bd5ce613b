"""A page of results that is made from the runs that are committed beside it.

``docs/results/perla.yaml`` says what the page has; ``perla.jsonl`` beside it holds the runs, and ``perla.md`` the text,
with each table between ``<!-- table NAME -->`` and ``<!-- end -->``::

    metrics: [test_return_mean]            # that are kept of a run
    methods:                               # runs that are kept, by their names, and what the page calls them
      foraging: {perla-ippo: PERLA_IPPO, "perla-ippo,samples=0": IPPO}
    tables:
      foraging:
        methods: foraging
        envs: [foraging/*-2p-*, foraging/*-3p-*]  # patterns of names, or one
        by: [task, method]                 # a row for each task and method, or for each method
        columns: [{kind: seeds, title: seeds}, {kind: area, title: area under the curve, metric: test_return_mean}]
    pictures:
      perla-foraging.png: {methods: foraging, envs: foraging/*, label: test return, lines: {"": test_return_mean}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from emix.errors import UsageError
from emix.reading import expect_keys, read_text, read_yaml, short
from emix.reports.columns import Column, make_column, table
from emix.reports.records import SUFFIX, Record, gather, merge, read, save, without_old_rules, write
from emix.training.plot import draw_curves

_MOST_TEXT = 4 << 20


@dataclass(frozen=True)
class Table:
    """A table of a page: of the methods' runs on environments whose names match one of ``envs``."""

    methods: Mapping[str, str]
    envs: Sequence[str]
    by: Sequence[str]
    columns: Sequence[Column]
    strip: str = ""
    """What the names of the tasks begin with and the table leaves out."""

    def text(self, records: Sequence[Record]) -> str:
        """In Markdown."""
        runs = chosen(records, self.methods, self.envs)
        tasks = sorted({run.env for run in runs}) if "task" in self.by else [None]
        rows = []
        for task in tasks:
            for name, method in self.methods.items():
                mine = [run for run in runs if run.name == name and task in (None, run.env)]
                if mine:
                    names = [] if task is None else [task.removeprefix(self.strip)]
                    rows.append([*names, method, *(column.text(mine) for column in self.columns)])
        return table([*self.by, *(column.title for column in self.columns)], rows)


@dataclass(frozen=True)
class Picture:
    """Curves of a page: a line for each method and each of ``lines``, which gives the end of its label and a metric."""

    methods: Mapping[str, str]
    envs: Sequence[str]
    label: str
    lines: Mapping[str, str]

    def draw(self, records: Sequence[Record], out: Path) -> None:
        """Write the PNG, where there is something to draw."""
        panels: dict[str, dict[str, list[np.ndarray]]] = {}
        for run in chosen(records, self.methods, self.envs):
            for ending, metric in self.lines.items():
                if metric in run.curves:
                    line = _line(self.methods[run.name], ending)
                    panels.setdefault(run.env, {}).setdefault(line, []).append(run.curve(metric))
        order = [_line(method, ending) for method in self.methods.values() for ending in self.lines]
        if panels:
            draw_curves(panels, self.label, out, order=order)


@dataclass(frozen=True)
class Page:
    """What a page has, and where its files are."""

    path: Path
    metrics: Sequence[str]
    names: frozenset[str]
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]

    @property
    def records(self) -> list[Record]:
        """The runs that are committed beside it."""
        return read(self.path.with_suffix(SUFFIX))

    def collect(self, paths: Sequence[Path]) -> tuple[int, list[tuple[str, str]]]:
        """Take the finished runs of the page's methods into its file of records; say how many there were, and what was
        left out, and why. A run that was made again replaces the old one, and one under newer rules of its environment
        those under older ones."""
        found = gather(paths, lambda metric: metric in self.metrics)
        new = [run for run in found.records if run.name in self.names]
        other = [(str(run), "the page has no such method") for run in found.records if run.name not in self.names]
        merged = without_old_rules(merge(self.records, new))
        write(merged.records, self.path.with_suffix(SUFFIX))
        return len(new), found.left_out + other + merged.left_out

    def texts(self, records: Sequence[Record]) -> dict[str, str]:
        """Its tables in Markdown."""
        return {name: each.text(records) for name, each in self.tables.items()}

    def draw(self) -> None:
        """Put the tables in their places, and draw the pictures."""
        records, page = self.records, self.path.with_suffix(".md")
        text = with_tables(read_text(page, most=_MOST_TEXT), self.texts(records), str(page))
        save(page, text.encode())
        for name, picture in self.pictures.items():
            picture.draw(records, self.path.parent / name)


def _line(method: str, ending: str) -> str:
    """What a picture calls a line."""
    return f"{method} {ending}".strip()


def chosen(records: Sequence[Record], methods: Mapping[str, str], envs: Sequence[str]) -> list[Record]:
    """The runs of these methods on environments whose names match one of the patterns."""
    return [run for run in records if run.name in methods and any(fnmatchcase(run.env, each) for each in envs)]


def read_page(path: Path) -> Page:
    """The page that a YAML file describes.

    Raises:
        UsageError: it cannot be read, or describes none.
    """
    problem = f"{path} describes no page of results"
    values = expect_keys(read_yaml(path), {"metrics": list, "methods": dict, "tables": dict, "pictures": dict}, problem)
    methods = values["methods"]
    for group in methods.values():
        if not isinstance(group, dict) or not all(isinstance(each, str) for pair in group.items() for each in pair):
            raise UsageError(f"{problem}: methods expects groups of names with titles, got {short(group)}")
    tables, pictures = {}, {}
    for name, given in values["tables"].items():
        what = f"{problem}: table {short(name)}"
        kinds: dict[str, type | tuple[type, ...]] = {"methods": str, "envs": (str, list), "by": list, "columns": list}
        expect_keys(given, kinds, what)
        if given["by"] not in (["task", "method"], ["method"]):
            raise UsageError(f"{what}: by expects [task, method] or [method], got {short(given['by'])}")
        columns = [make_column(each, what) for each in given["columns"]]
        tables[name] = Table(**given | _chosen_by(methods, given, what) | {"columns": columns})
    for name, given in values["pictures"].items():
        what = f"{problem}: picture {short(name)}"
        expect_keys(given, {"methods": str, "envs": (str, list), "label": str, "lines": dict}, what)
        pictures[name] = Picture(**given | _chosen_by(methods, given, what))
    names = frozenset(name for group in methods.values() for name in group)
    return Page(path, values["metrics"], names, tables, pictures)


def _chosen_by(methods: Mapping[str, Any], given: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """The methods and patterns that choose the runs of a table or picture."""
    if given["methods"] not in methods:
        raise UsageError(f"{problem}: methods expects one of {', '.join(methods)}, got {short(given['methods'])}")
    envs = [given["envs"]] if isinstance(given["envs"], str) else given["envs"]
    if not all(isinstance(each, str) for each in envs):
        raise UsageError(f"{problem}: envs expects a pattern of names, or several, got {short(envs)}")
    return {"methods": methods[given["methods"]], "envs": envs}


def with_tables(text: str, tables: Mapping[str, str], page: str) -> str:
    """The text with each table between ``<!-- table NAME -->`` and ``<!-- end -->``.

    Raises:
        UsageError: it has no such place.
    """
    for name, each in tables.items():
        place = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise UsageError(
                f"{page} has no place for table {name}: expected `<!-- table {name} -->` to `<!-- end -->`"
            )
        text = place.sub(lambda found, each=each: f"{found[1]}\n{each}\n\n{found[2]}", text)  # type: ignore[misc]
    return text
