"""``python -m benchmarks.gpu_check``: run the parts one after another, and print a table of what came out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu_check.machine import describe
from benchmarks.gpu_check.parts import PARTS, TOTAL, Setting, UnknownPartError, choose
from benchmarks.gpu_check.report import markdown, write
from benchmarks.gpu_check.running import Outcome, run

ROOT = Path(__file__).parents[2]
SHORTEST = 5.0  # seconds that a part must have left to be started at all


def main() -> int:
    """Return 1 where a part failed, and 2 where nothing could be started."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--parts", default=" ".join(PARTS), help="some of %(default)s, by spaces or commas")
    parser.add_argument("--device", choices=["cuda", "emulated"], default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-check/results", help="folder of the results")
    given = parser.parse_args()
    end = time.monotonic() + TOTAL
    # In a shell's background job it is ignored, and so it would be in the parts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        names = choose(given.parts)
    except UnknownPartError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    setting = Setting(given.device, ROOT)
    setting.work.mkdir(parents=True, exist_ok=True)
    machine = describe(ROOT)
    if problem := setting.problem(machine):
        print(f"gpu-check: {problem}", file=sys.stderr)
        return 2
    outcomes: dict[str, Outcome] = {}
    for name in names:
        print(f"{name} ...", flush=True)
        outcomes[name] = _run(name, setting, end - time.monotonic())
        print(f"{name}: {outcomes[name]}", flush=True)
        write(given.out, machine, outcomes, setting)  # after each part, so that nothing is lost with the machine
    print(f"\n{markdown(machine, outcomes, setting)}\nIn full: {given.out}")
    return int(any(outcome.failed for outcome in outcomes.values()))


def _run(name: str, setting: Setting, left: float) -> Outcome:
    part = PARTS[name]
    limit = part.limit(setting, left)
    if limit < SHORTEST:
        return Outcome("failed", 0.0, max(0.0, limit), f"not run: the {TOTAL} s of all parts were over")
    if name != "build" and not setting.built:
        return Outcome("failed", 0.0, limit, f"nothing is built in {setting.site}: let PARTS name build, too")
    setting.rows(name).unlink(missing_ok=True)  # an earlier run's
    return run(part.command(setting), setting.log(name), limit, {**os.environ, **setting.environment()}, setting.root)


if __name__ == "__main__":
    sys.exit(main())
