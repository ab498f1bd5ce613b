"""What is said of several runs, beside the same in a few lines of plain Python."""

from __future__ import annotations

from itertools import combinations, product
from statistics import mean, quantiles

import numpy as np
import pytest

from emix.reports import numbers

RANDOM = np.random.default_rng(0)


def trimmed(values: list[float]) -> float:
    ordered = sorted(values)
    cut = len(values) // 4
    return mean(ordered[cut : len(values) - cut])


def test_interquartile_mean_of_all_runs_of_all_tasks() -> None:
    scores = [RANDOM.random(5), RANDOM.random(8), RANDOM.random(1)]
    assert numbers.value(scores, numbers.iqm) == pytest.approx(trimmed([x for task in scores for x in task]))
    assert numbers.value(scores, numbers.mean) == pytest.approx(mean(mean(task) for task in scores))


def resampled(scores: list[np.ndarray], statistic, draws: int) -> list[float]:
    """Percentiles of a bootstrap whose draws are made one by one."""
    random = np.random.default_rng(7)
    found = [statistic([list(random.choice(task, len(task))) for task in scores]) for _ in range(draws)]
    cuts = quantiles(found, n=40, method="inclusive")
    return [cuts[0], cuts[-1]]


def test_bootstrap_is_stratified_over_tasks() -> None:
    scores = [RANDOM.random(6), 10 + RANDOM.random(4)]  # drawn together, the mean could be anywhere from 0 to 11
    low, high = numbers.bootstrap(scores, numbers.mean)
    assert high - low < 1
    expected = resampled(scores, lambda tasks: mean(map(mean, tasks)), 4_000)
    assert [low, high] == pytest.approx(expected, abs=0.03)
    expected = resampled(scores, lambda tasks: trimmed([x for task in tasks for x in task]), 4_000)
    assert list(numbers.bootstrap(scores, numbers.iqm)) == pytest.approx(expected, abs=0.25)


def test_bootstrap_of_few_runs_is_that_of_all_their_samples() -> None:
    runs = np.array([0.0, 1.0, 5.0])
    means = sorted(mean(sample) for sample in product(runs, repeat=3))  # 27, the ends 1 / 27 > 2.5 % each
    low, high = numbers.bootstrap([runs], numbers.mean)
    assert (low, high) == (means[0], means[-1])


def test_no_interval_of_a_single_run() -> None:
    assert numbers.bootstrap([np.array([1.0, 2.0]), np.array([3.0])], numbers.iqm) is None
    assert numbers.improvement_interval([np.array([1.0])], [np.array([2.0, 3.0])]) is None


def test_intervals_hold_the_mean_about_as_often_as_they_say() -> None:
    samples = np.random.default_rng(1).normal(2.0, 1.0, (200, 2, 10))
    held = 0
    for tasks in samples:
        low, high = numbers.bootstrap(list(tasks), numbers.mean, draws=1_000)
        held += low <= 2.0 <= high
    assert 0.86 <= held / 200 <= 0.98


def test_performance_profile() -> None:
    scores, thresholds = [np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.9])], np.array([-1.0, 0.0, 0.5, 0.95, 1.0])
    expected = [mean([sum(x > limit for x in task) / len(task) for task in scores]) for limit in thresholds]
    assert list(numbers.value(scores, numbers.profile(thresholds))) == pytest.approx(expected)
    band = numbers.bootstrap(scores, numbers.profile(thresholds), draws=500)
    assert band.shape == (2, 5)
    assert (band[0] <= expected).all()
    assert (band[1] >= expected).all()
    assert list(band[:, 0]) == [1, 1]


def test_probability_of_improvement_counts_ties_half() -> None:
    ours, theirs = [np.array([1.0, 2.0, 2.0]), np.array([0.0])], [np.array([2.0, 0.0]), np.array([0.0, 1.0])]
    pairs = [[(x > y) + (x == y) / 2 for x in a for y in b] for a, b in zip(ours, theirs, strict=True)]
    assert numbers.improvement(ours, theirs) == pytest.approx(mean(map(mean, pairs)))
    assert numbers.improvement(theirs, ours) == pytest.approx(1 - mean(map(mean, pairs)))
    x, y = [np.array([0.1, 0.5, 0.9, 0.2])], [np.array([0.4, 0.6, 1.0, 0.3])]
    low, high = numbers.improvement_interval(x, y)
    assert 0 <= low < numbers.improvement(x, y) == 5 / 16 < high <= 1


def exact_p(x: np.ndarray, y: np.ndarray) -> float:
    pooled = [*x, *y]

    def distance(chosen: tuple[int, ...]) -> float:
        ours = [pooled[i] for i in chosen]
        theirs = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return abs(mean((a > b) + (a == b) / 2 for a in ours for b in theirs) - 0.5)

    seen = distance(tuple(range(len(x))))
    found = [distance(c) >= seen - 1e-12 for c in combinations(range(len(pooled)), len(x))]
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("ours", "theirs"), [([4, 5, 6], [1, 2, 3]), ([1, 2, 2, 5], [2, 0, 1, 1]), ([1, 2, 3, 9, 8], [4, 5, 6])]
)
def test_permutation_test_is_the_exact_one(ours: list[float], theirs: list[float]) -> None:
    x, y = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    assert numbers.permutation_p([x], [y]) == pytest.approx(exact_p(x, y), abs=0.015)


def test_three_against_three_are_never_told_apart() -> None:
    assert numbers.permutation_p([np.array([7.0, 8, 9])], [np.array([1.0, 2, 3])]) > 0.08


def test_permutation_test_keeps_its_level() -> None:
    samples = np.random.default_rng(2).normal(size=(200, 2, 2, 4))
    below = [numbers.permutation_p(list(x), list(y), draws=299) < 0.05 for x, y in samples]
    assert sum(below) / 200 <= 0.09


def test_holm() -> None:
    assert numbers.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert numbers.holm([0.9, 0.8]) == [1.0, 1.0]
    assert numbers.holm([]) == []


def test_area_is_the_integral_over_the_length() -> None:
    curve = np.array([[0, 10, 30.0], [0, 1, 1]])
    assert numbers.area(curve) == pytest.approx((5 + 20) / 30)
    assert numbers.area(np.array([[5.0], [3.0]])) == 3


def test_sustained_threshold() -> None:
    curve = np.array([range(0, 800, 100), [0, 1, 1, 0, 1, 1, 1, 1.0]])
    assert numbers.sustained(curve, 1.0, tests=2) == 500  # not 200, after which it falls
    assert numbers.sustained(curve, 0.5, tests=2) == 100
    assert numbers.sustained(curve, 0.0, tests=3) == 200  # the first of three tests
    assert numbers.sustained(curve, 1.1, tests=2) is None
    assert numbers.sustained(curve, 0.0, tests=9) is None


def test_a_curve_up_to_a_step_and_its_end() -> None:
    curve = np.array([[0, 100, 205, 300.0], [0, 1, 2, 9]])
    assert numbers.up_to(curve, 200)[0].tolist() == [0, 100, 205]
    assert numbers.up_to(curve, 205)[0].tolist() == [0, 100, 205]
    assert numbers.up_to(curve, 999)[0].tolist() == [0, 100, 205, 300]
    assert numbers.at_the_end(curve, 2) == 5.5
