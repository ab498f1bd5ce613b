"""``python -m tests.fuzz.kills --seconds N``: trainings that are killed by kill -9 and resumed write the same bytes.

Every other run is killed right before, or right after, the n-th time that it writes to a file, forces one to the disk,
renames or deletes one, for n = 1, 2, ..., and each resume again at its own n; the others are killed at random moments.
Then they are resumed to their end. ``metrics.jsonl`` must be that of a run which nobody killed, ``checkpoint/`` hold
nothing that the manifest does not name and the same best policy, and a file of the user's there must still be there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emix
from emix.training import checkpoint, files

MINE = "best.pt"  # what a user has put into the checkpoint's folder
OPTIONS: dict[str, Any] = {
    "env": "matrix/penalty-2x3",
    "steps": 120,
    "seed": 7,
    "plan": {"batch_size": 4, "buffer_size": 30},
    "log_interval": 10,
    "test_interval": 40,
    "test_episodes": 4,
    "checkpoint_interval": 20,
    "quiet": True,
    "resume": True,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    counts = run(options.seconds, options.seed)
    print(f"seed {options.seed}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    return 1 if counts["wrong"] or not counts["kills"] else 0


def run(seconds: float, seed: int) -> dict[str, int]:
    """Kill trainings for so long: how many were ``runs`` to their end, how many ``kills`` there were, how many moments
    (``places``) of a run these were, and how many runs ended with other bytes or a fault (``wrong``)."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    counts: Counter[str] = Counter(runs=0, kills=0, wrong=0)
    places: set[int] = set()
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root) / "whole"
        assert _in_a_process(lambda: _train(whole)) == 0
        expected, took = ((whole / "metrics.jsonl").read_bytes(), _best(whole)), _duration(Path(root) / "timed")
        place = 0
        while time.monotonic() < end:
            folder = Path(root) / f"run{counts['runs']}"
            by_place = counts["runs"] % 2 == 0
            for _ in range(rng.randint(1, 3)):
                if by_place:
                    place = place + 1 if place + 1 not in places or place < 400 else 1
                    after = rng.random() < 0.5
                    died = _in_a_process(lambda n=place, late=after: _train(folder, kill_at=n, after=late))  # noqa: B023
                    if died == -signal.SIGKILL:
                        places.add(place)
                    else:  # the run was over before it
                        place = 0
                else:
                    died = _in_a_process(lambda: _train(folder), seconds=rng.uniform(0, took))  # noqa: B023
                counts["kills"] += died == -signal.SIGKILL
            if fault := _fault(folder, expected):
                counts["wrong"] += 1
                print(f"run {counts['runs']}, killed {f'at place {place}' if by_place else 'at random'}: {fault}")
            counts["runs"] += 1
    return {**counts, "places": len(places)}


def _fault(folder: Path, expected: tuple[bytes, list[Any]]) -> str | None:
    """What is wrong with a run that is resumed to its end."""
    if (folder / "checkpoint").is_dir():
        (folder / "checkpoint" / MINE).write_text("mine")
    if (code := _in_a_process(lambda: _train(folder))) != 0:
        return f"resume ended with status {code}"
    if (folder / "metrics.jsonl").read_bytes() != expected[0]:
        return "metrics.jsonl has other bytes"
    if _best(folder) != expected[1]:
        return "another test is the best, or its policy has other bytes"
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    named = {"manifest.json", MINE, *(entry["file"] for entry in manifest["parts"].values())}
    if other := {path.name for path in (folder / "checkpoint").iterdir()} - named:
        return f"checkpoint/ still holds {', '.join(sorted(other))}"
    return None


def _best(folder: Path) -> list[Any]:
    """What the checkpoint says of the best test, and the digest of its policy."""
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    digests = [entry["sha256"] for name, entry in manifest["parts"].items() if name.startswith("best-")]
    return [manifest["best"], *digests]


def _duration(folder: Path) -> float:
    start = time.monotonic()
    assert _in_a_process(lambda: _train(folder)) == 0
    return time.monotonic() - start


def _train(folder: Path, kill_at: int = 0, after: bool = False) -> None:
    if kill_at:
        _kill_at(kill_at, after)
    emix.train("vdn", run_dir=folder, **OPTIONS)


def _kill_at(number: int, after: bool) -> None:
    """Kill this process at so many calls that change what is on the disk."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **options)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    for name in ("write", "fsync", "replace", "unlink", "ftruncate", "chmod", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    checkpoint.save_file = counted(checkpoint.save_file)
    files.write_all = counted(files.write_all)


def _in_a_process(work: Callable[[], None], seconds: float | None = None) -> int:
    """Fork (everything is imported already), and kill after so many seconds: the exit status, or minus the signal."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
