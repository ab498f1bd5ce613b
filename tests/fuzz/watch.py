"""Runs numbered cases in a child process, so that a crash or a hang is one more fault and not the end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

PATIENCE = 120.0  # seconds without a case before a child is said to hang


class Found(NamedTuple):
    """counts: of what the cases came to; faults: a sentence each."""

    counts: Counter[str]
    faults: list[str]


def play(case: Callable[[int, int], tuple[str, str | None]]) -> None:
    """The child's side: plays cases until killed. ``case(seed, number)``: what it came to, and a fault or None."""
    seed, number = map(int, sys.argv[1:])
    while True:
        os.write(1, json.dumps([number]).encode() + b"\n")
        os.write(1, json.dumps([number, *case(seed, number)]).encode() + b"\n")
        number += 1


def watch(module: str, seconds: float, seed: int) -> Found:
    """The parent's side, for a child that is ``python -m module seed number``."""
    end, number = time.monotonic() + seconds, 0
    found = Found(Counter(), [])
    while time.monotonic() < end:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(seed), str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number, *told in _lines(child, end):
            if told:
                what, fault = told
                found.counts[what] += 1
                if fault:
                    found.faults.append(f"case {number}: {fault}")
        if time.monotonic() < end:
            ended = child.poll() is not None
            child.kill()
            words = child.communicate()[1].decode(errors="replace").strip().splitlines()[-3:]
            what = f"crash (status {child.returncode})" if ended else "hang"
            found.counts[what] += 1
            found.faults.append(f"case {number}: {what} {' | '.join(words)}")
            number += 1
        child.kill()
        child.wait()
    return found


def _lines(child: subprocess.Popen[bytes], end: float) -> Iterator[list[object]]:
    """What the child says, until it ends, says nothing for too long, or time is up."""
    pipe, rest = child.stdout, b""
    while time.monotonic() < end:
        if not select.select([pipe], [], [], min(PATIENCE, max(0.0, end - time.monotonic())))[0]:
            return
        read = os.read(pipe.fileno(), 1 << 16)
        if not read:
            child.wait()
            return
        *lines, rest = (rest + read).split(b"\n")
        yield from map(json.loads, lines)
