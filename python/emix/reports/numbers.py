"""What is said of several runs, and how sure it is.

Scores are given task by task: ``scores[t]`` holds those of the runs on task t, ``[runs]``, of which tasks may have
different numbers. Intervals of 95 % come from a bootstrap that is stratified over tasks (Agarwal et al., "Deep
reinforcement learning at the edge of the statistical precipice", 2021): each draw takes as many runs of every task as
there are, with replacement. A task with a single run says nothing of how far runs lie apart, so that there is no
interval then.

A bootstrap of few runs is too narrow: three runs of one task have ten different samples. Whether two methods differ is
therefore asked of a permutation test, which keeps its level however few there are: of three runs against three no
result is below about p = 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Scores = Sequence[np.ndarray]
Statistic = Callable[[list[np.ndarray]], np.ndarray]  # of each task [draws, runs]; [draws, ...]

LEVEL = 0.05
TESTS_AT_THE_END = 5
_CHUNK = 2_000  # draws that are in memory at once


def iqm(drawn: Sequence[np.ndarray]) -> np.ndarray:
    """Interquartile mean of all scores of all tasks, without the floor(n / 4) lowest and as many highest: ``[draws]``
    of ``[draws, runs]`` a task."""
    pooled = np.sort(np.concatenate(drawn, axis=1), axis=1)
    cut = pooled.shape[1] // 4
    return np.asarray(pooled[:, cut : pooled.shape[1] - cut].mean(axis=1))


def mean(drawn: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the tasks of their means: ``[draws]`` of ``[draws, runs]`` a task."""
    return np.asarray(np.mean([task.mean(axis=1) for task in drawn], axis=0))


def profile(thresholds: np.ndarray) -> Statistic:
    """The share of runs above each threshold, as a mean over the tasks: ``[draws, thresholds]``."""

    def shares(drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(np.mean([(task[:, :, None] > thresholds).mean(axis=1) for task in drawn], axis=0))

    return shares


def value(scores: Scores, statistic: Statistic) -> np.ndarray:
    """The statistic of the scores themselves."""
    return statistic([np.asarray(task, dtype=float)[None] for task in scores])[0]


def bootstrap(scores: Scores, statistic: Statistic, *, draws: int = 50_000, seed: int = 0) -> np.ndarray | None:
    """The 95 % interval of a statistic by percentiles, ``[2, ...]``; None where a task has a single run."""
    if any(len(task) < 2 for task in scores):
        return None
    random, found = np.random.default_rng(seed), []
    for start in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - start)
        drawn = [np.asarray(task, dtype=float)[random.integers(len(task), size=(count, len(task)))] for task in scores]
        found.append(statistic(drawn))
    return np.quantile(np.concatenate(found), (0.025, 0.975), axis=0)


def improvement(ours: Scores, theirs: Scores) -> float:
    """Probability that a run of ours has a higher score than one of theirs on the same task, as a mean over the tasks;
    equal scores count half (Mann and Whitney's U over the number of pairs)."""
    return float(value([*ours, *theirs], _improvement))


def improvement_interval(ours: Scores, theirs: Scores, *, draws: int = 10_000, seed: int = 0) -> np.ndarray | None:
    """Its 95 % interval, ``[2]``, as :func:`bootstrap` has it."""
    return bootstrap([*ours, *theirs], _improvement, draws=draws, seed=seed)


def _improvement(drawn: Sequence[np.ndarray]) -> np.ndarray:
    half = len(drawn) // 2
    tasks = [
        (np.sign(x[:, :, None] - y[:, None, :]).mean(axis=(1, 2)) + 1) / 2
        for x, y in zip(drawn[:half], drawn[half:], strict=True)
    ]
    return np.asarray(np.mean(tasks, axis=0))


def permutation_p(ours: Scores, theirs: Scores, *, draws: int = 9_999, seed: int = 0) -> float:
    """Two-sided p of the probability of improvement: the share of relabellings, within each task, that bring it at
    least as far from 1/2 as it is. That of the runs themselves counts as one, so that p is never 0."""
    random, total = np.random.default_rng(seed), np.zeros(draws)
    for x, y in zip(ours, theirs, strict=True):
        pooled = np.concatenate([x, y])
        ranks = (pooled[:, None] > pooled).sum(axis=1) + ((pooled[:, None] == pooled).sum(axis=1) + 1) / 2
        shuffled = random.permuted(np.tile(ranks, (draws, 1)), axis=1)[:, : len(x)].sum(axis=1)
        total += (shuffled - len(x) * (len(x) + 1) / 2) / (len(x) * len(y))
    distance = abs(improvement(ours, theirs) - 0.5)
    return float(1 + (np.abs(total / len(ours) - 0.5) >= distance - 1e-9).sum()) / (1 + draws)


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for as many tests as there are, by Holm's step-down procedure."""
    adjusted, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = least
    return adjusted


def area(curve: np.ndarray) -> float:
    """The area under a curve ``[2, points]``, by trapezoids, over its length: the mean over the training. Who learns
    sooner has more."""
    steps, values = curve
    if steps[-1] == steps[0]:
        return float(values.mean())
    return float(((values[1:] + values[:-1]) / 2 * np.diff(steps)).sum() / (steps[-1] - steps[0]))


def at_the_end(curve: np.ndarray, tests: int = TESTS_AT_THE_END) -> float:
    """The mean of the last tests of a curve ``[2, points]``: a single one of few episodes is noise."""
    return float(curve[1, -tests:].mean())


def sustained(curve: np.ndarray, threshold: float, tests: int = TESTS_AT_THE_END) -> float | None:
    """The step from which a curve ``[2, points]`` stays at a threshold: where the mean of so many tests in a row
    reaches it and never falls below it again. None where that does not happen."""
    steps, values = curve
    if len(values) < tests:
        return None
    running = np.convolve(values, np.full(tests, 1 / tests), mode="valid")
    below = np.flatnonzero(running < threshold - 1e-9)
    first = below[-1] + 1 if below.size else 0
    return float(steps[first + tests - 1]) if first < len(running) else None


def up_to(curve: np.ndarray, steps: int) -> np.ndarray:
    """A curve ``[2, points]`` up to its first point at or after so many steps."""
    return curve[:, : np.searchsorted(curve[0], steps) + 1]
