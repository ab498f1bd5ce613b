"""``python -m tests.fuzz --seconds N [--only ops|maps|runs] [--seed S]``: the status is 1 where something was found.

A part is a module with ``fuzz(seconds, seed) -> Found``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

PARTS = ("ops", "maps", "runs")
SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all parts together")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts; may be given more than once")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same cases")
    options = parser.parse_args()
    parts = options.only or [part for part in PARTS if importlib.util.find_spec(f"tests.fuzz.{part}")]
    status = 0
    for part in parts:
        found = importlib.import_module(f"tests.fuzz.{part}").fuzz(options.seconds / len(parts), options.seed)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(found.counts.items()))
        print(f"{part}, seed {options.seed}: {counts}; {len(found.faults)} faults")
        print("".join(f"  {fault}\n" for fault in found.faults[:SHOWN]), end="")
        status |= bool(found.faults)
    return status


if __name__ == "__main__":
    sys.exit(main())
