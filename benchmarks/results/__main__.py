"""The pages of results from the runs that are committed beside them.

python -m benchmarks.results collect perla runs    # the finished runs below a folder into docs/results/perla.jsonl
python -m benchmarks.results draw perla            # its tables into the page, and its pictures, from that file
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.results import ader, perla
from benchmarks.results.records import collect, merge, read, write

PAGES = {"ader": ader, "perla": perla}
RESULTS = Path(__file__).parents[2] / "docs/results"


def main() -> None:
    """Collect or draw."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("collect", "draw"):
        commands.add_parser(command).add_argument("page", choices=PAGES)
    commands.choices["collect"].add_argument("runs", type=Path, help="a folder with runs below it")
    given = parser.parse_args()
    page, path = PAGES[given.page], RESULTS / f"{given.page}.jsonl"
    if given.command == "collect":
        new = collect(given.runs, page.NAMES, page.METRICS)
        records = merge(read(path), new)
        write(records, path)
        print(f"{len(new)} finished runs below {given.runs}; {path} has {len(records)}")
    else:
        records, text = read(path), path.with_suffix(".md")
        text.write_text(with_tables(text.read_text(), page.tables(records)))
        page.draw(records, RESULTS)


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between ``<!-- table NAME -->`` and ``<!-- end -->``.

    Raises:
        SystemExit: the page has no such place.
    """
    for name, table in tables.items():
        place = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(page):
            raise SystemExit(
                f"the page has no place for table {name}: expected `<!-- table {name} -->` to `<!-- end -->`"
            )
        page = place.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)
    return page


if __name__ == "__main__":
    main()
