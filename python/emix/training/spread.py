"""How far runs lie apart: one definition for tables and pictures.

The standard deviation is the sample's (n - 1), an estimate for all seeds there are. The 95 % interval of the mean is
Student's: mean +- t std / sqrt(n), with t the 97.5 % quantile for n - 1 degrees of freedom. It holds for values that
are normally distributed, and is wide for few: t is 12.7 for 2 runs, 4.3 for 3, 2.8 for 5, 2.3 for 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

Interval = Literal["95", "iqm", "std"]


def statistics(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, std, half the width of its 95 % interval, median and interquartile mean; None where there are too few.

    The interquartile mean leaves out the floor(n / 4) lowest and as many highest values, as rliable does (Agarwal et
    al., "Deep reinforcement learning at the edge of the statistical precipice", 2021): of fewer than 4 it is the mean.
    """
    if not values:
        return dict.fromkeys(("mean", "std", "ci95", "median", "iqm"))
    ordered, cut = np.sort(np.array(values, dtype=float)), len(values) // 4
    several = len(values) > 1
    return {
        "mean": float(ordered.mean()),
        "std": float(ordered.std(ddof=1)) if several else None,
        "ci95": float(half_width(ordered)) if several else None,
        "median": float(np.median(ordered)),
        "iqm": float(ordered[cut : len(values) - cut].mean()),
    }


class Band(NamedTuple):
    """A line and what lies around it, at the same steps."""

    steps: np.ndarray  # [G]
    centre: np.ndarray  # [G]
    low: np.ndarray  # [G]
    high: np.ndarray  # [G]


def band_curve(curves: Sequence[np.ndarray], interval: Interval = "95") -> Band:
    """What several runs' curves ``[2, points]``, steps, which may differ, and values, come to.

    ``interval`` is "95", the mean and its 95 % interval; "std", the mean and the sample's standard deviation to either
    side; or "iqm", the interquartile mean, as ``statistics`` has it, and the quartiles.

    One curve keeps its own points, and nothing lies around it: one run says nothing of others. Several are compared at
    all steps at which one of them has a value, from the latest first step to the earliest last one; between its own
    values a run is taken to be linear.
    """
    if len(curves) == 1:
        steps, values = curves[0]
        return Band(steps, values, values, values)
    first, last = max(curve[0, 0] for curve in curves), min(curve[0, -1] for curve in curves)
    steps = np.unique(np.concatenate([curve[0] for curve in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.stack([np.interp(steps, *curve) for curve in curves])  # [runs, G]
    if interval == "iqm":
        cut = len(values) // 4
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        return Band(steps, np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0), low, high)
    mean = values.mean(axis=0)
    width = half_width(values) if interval == "95" else values.std(axis=0, ddof=1)
    return Band(steps, mean, mean - width, mean + width)


def half_width(values: np.ndarray) -> np.ndarray:
    """Of the mean's 95 % interval over the first axis, which holds n >= 2 runs: ``[n, ...] -> [...]``."""
    n = len(values)
    return t_quantile(n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)


@cache
def t_quantile(degrees: int) -> float:
    """The t that a variable of Student's distribution stays within, on both sides, with probability 95 %.

    For whole degrees of freedom nu that probability is a finite sum in theta = arctan(t / sqrt(nu)) (Abramowitz and
    Stegun, 26.7.3 and 26.7.4), which rises with theta: halving finds it to the last bits.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        theta = (low + high) / 2
        low, high = (theta, high) if _within(theta, degrees) < 0.95 else (low, theta)
    return math.tan(low) * math.sqrt(degrees)


def _within(theta: float, degrees: int) -> float:
    """The probability of -t to t."""
    odd = degrees % 2
    term = total = 0.0 if degrees == 1 else math.cos(theta) if odd else 1.0
    for k in range(2 + odd, degrees, 2):  # 1 + 1/2 cos^2 + 1 3/(2 4) cos^4 + ..., or cos + 2/3 cos^3 + ...
        term *= (k - 1) / k * math.cos(theta) ** 2
        total += term
    total *= math.sin(theta)
    return (theta + total) * 2 / math.pi if odd else total
