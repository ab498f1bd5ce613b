"""What a run asks of this machine, said before it starts: hours, and cores that others have taken."""

from __future__ import annotations

import os

from emix.training.settings import Settings

# Environment steps a second on one quiet core: Ensemble-MIX on battle/3m (docs/results/ensemble-mix.md), the value
# learners on battle/2s3z (docs/training.md, "Speed").
SPEED = {"ensemble-mix": 340, "iql": 4500, "qmix": 4500, "smix": 4500, "vdn": 4500}


def hours(settings: Settings) -> str | None:
    """How long the run will take, roughly; None where nothing like it was measured."""
    speed = SPEED.get(settings.algorithm.partition("@")[0])
    if speed is None or settings.training.device != "cpu" or not settings.env.startswith("battle/"):
        return None
    seconds = settings.training.steps / speed
    minutes = max(1, round(seconds / 60))
    about = f"{seconds / 3600:.1f} hours" if minutes >= 90 else f"{minutes} minute{'s' * (minutes > 1)}"
    return f"about {about} of a core, by {speed:,} steps a second on a small map; larger ones take longer"


def crowded(threads: int) -> str | None:
    """A warning where there are fewer free cores than ``threads`` of torch, which wait for each other spinning; None
    where all is well. One thread shares a core as any process does."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if threads == 1 or threads + load <= cores + 0.5:
        return None
    return (
        f"warning: {threads} threads want a core each, and of {cores} here other processes keep {load:.1f} busy: a "
        f"thread that waits for one without a core makes every step many times slower; use --threads 1, which changes "
        f"no number"
    )
