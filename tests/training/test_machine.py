"""What is said of the machine before a run."""

from __future__ import annotations

import os

from emix.training import make_settings
from emix.training.machine import SPEED, crowded, hours


def test_hours():
    run = make_settings("ensemble-mix", "battle/3m")
    words = hours(run)
    assert words is not None
    assert f"about {10_050_000 / SPEED['ensemble-mix'] / 3600:.1f} hours of a core" in words
    short = make_settings("smix", "battle/3m", training={"steps": 1000})
    assert "about 1 minute of a core" in (hours(short) or "")
    assert hours(make_settings("smix", "matrix/msteps-5")) is None  # nothing like it was measured


def test_threads_that_find_no_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0, 0))
    assert "use --threads 1" in (crowded(2) or "")
    assert crowded(1) is None
    monkeypatch.setattr(os, "getloadavg", lambda: (0.3, 0, 0))
    assert crowded(2) is None
