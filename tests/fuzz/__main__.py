"""``python -m tests.fuzz --seconds N [--only ops|maps|runs] [--seed S]``: the status is 1 where something was found.

A part is a module with ``run(seconds, seed)``, which gives the number of calls, crashes, hangs, unclear errors and
wrong answers, and prints what was found with what repeats it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

PARTS = ("ops", "maps", "runs")
FAULTS = ("crashes", "hangs", "unclear", "wrong")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all parts together")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts; may be given more than once")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same cases")
    options = parser.parse_args()
    parts = options.only or [part for part in PARTS if importlib.util.find_spec(f"tests.fuzz.{part}")]
    status = 0
    for part in parts:
        counts = importlib.import_module(f"tests.fuzz.{part}").run(options.seconds / len(parts), options.seed)
        print(f"{part}, seed {options.seed}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        status |= any(counts[fault] for fault in FAULTS)
    return status


if __name__ == "__main__":
    sys.exit(main())
