"""Forced failures: games that die, lose their connection in mid-answer, say nothing or say nonsense, while episodes are
played. ``python -m tests.sc2_standin.failures --count 100`` (``make sc2-failures``); the tests play a dozen."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import emix
from emix.playing import RandomActor, collect
from tests.sc2_standin import House

KINDS = ("die", "cut", "silence", "nonsense")


class Faults:
    """So many faults, of every kind in turn, at random requests."""

    def __init__(self, count: int, seed: int, rate: float) -> None:
        self.left, self.random, self.rate = count, random.Random(seed), rate

    def __call__(self, game: int, kind: str) -> str | None:
        if self.left == 0 or kind in ("ping", "create_game", "join_game", "quit") or self.random.random() > self.rate:
            return None
        self.left -= 1
        return KINDS[self.left % len(KINDS)]


def fail(folder: Path, *, count: int, num_envs: int, seed: int = 0, rate: float = 0.02) -> Counter[str]:
    """Play until ``count`` failures have befallen, and an episode more; raise AssertionError for what is not as it
    should be; return the faults by kind."""
    house = House(folder, fault=Faults(count, seed, rate))
    os.environ["SC2PATH"] = str(folder)
    played: list[tuple[int, float]] = []
    env = emix.make("sc2/3m", num_envs=num_envs, seed=seed, answer_seconds=1.0, most_failures=count)
    actor = RandomActor(env.spec, device=env.device, seed=seed)
    try:
        files = None
        while True:
            complete = house.fault.left == 0
            rollout = collect(env, actor, explore=True)
            assert (rollout.episodes.lengths == rollout.lengths).all()
            assert "simulator_lost" not in rollout.info
            played += zip(rollout.lengths.tolist(), rollout.returns.tolist(), strict=True)
            files = files or open_files(env)
            if complete:
                break
        assert open_files(env) == files, "files or connections are left open"
        assert len(house.faults) == count
        processes = running(house)
        assert len(processes) == num_envs, f"{num_envs} games expected, these run: {processes}"
    finally:
        env.close()
    assert rounded(played) == rounded(house.ended), "an episode is missing, or was counted twice or half"
    deadline = time.monotonic() + 5
    while (left := running(house)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"these games still run: {left}"
    house.close()
    return Counter(house.faults)


def rounded(episodes: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted((length, round(total, 4)) for length, total in episodes)


def open_files(env) -> list[int]:
    """How many files each worker has open."""
    return [len(os.listdir(f"/proc/{process.pid}/fd")) for process in env._vector.processes]


def running(house: House) -> list[int]:
    """Processes of the stand-in that belong to ``house``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if house.path.encode() in words:
            found.append(int(path.parent.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        start = time.monotonic()
        faults = fail(Path(folder) / "StarCraftII", count=chosen.count, num_envs=chosen.num_envs, seed=chosen.seed)
        left = list(Path(folder).glob("emix-sc2-*/"))
        assert not left, f"these folders are left: {left}"
    kinds = ", ".join(f"{faults[kind]} x {kind}" for kind in KINDS)
    print(f"{sum(faults.values())} failures ({kinds}) in {time.monotonic() - start:.0f} s: nothing lost, nothing left")


if __name__ == "__main__":
    main()
