import math

import numpy as np
import pytest

from emix.training.spread import band_curve, half_width, statistics, t_quantile


# Any table of Student's distribution, such as NIST's e-Handbook, 1.3.6.7.2.
@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (100, 1.984)],
)
def test_quantiles_of_student(degrees, quantile):
    assert t_quantile(degrees) == pytest.approx(quantile, abs=6e-4)


def test_quantiles_have_closed_forms_for_few_runs_and_a_limit():
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    assert t_quantile(100_000) == pytest.approx(1.959964, abs=5e-5)  # the normal distribution's


def test_the_interval_holds_the_mean_in_95_of_100_samples():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (4, 20_000))
    inside = np.abs(samples.mean(axis=0) - 3.0) <= half_width(samples)
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    ("values", "mean", "std", "median", "iqm"),
    [
        ([], None, None, None, None),
        ([2.0], 2.0, None, 2.0, 2.0),
        ([1.0, 2.0, 6.0], 3.0, 7**0.5, 2.0, 3.0),  # floor(3 / 4) = 0 are left out at either end
        ([9.0, 0.0, 1.0, 2.0], 3.0, (50 / 3) ** 0.5, 1.5, 1.5),
        ([0, 0, 1, 2, 3, 4, 5, 100], 14.375, 34.6449, 2.5, 2.5),
    ],
)
def test_statistics(values, mean, std, median, iqm):
    found = statistics(values)
    ci95 = None if std is None else t_quantile(len(values) - 1) * std / len(values) ** 0.5
    for name, expected in (("mean", mean), ("std", std), ("ci95", ci95), ("median", median), ("iqm", iqm)):
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-3)), name


def test_curves_of_different_grids():
    up, flat = np.array([[0, 100, 200.0], [0, 10, 20]]), np.array([[50, 150.0], [4, 4]])
    band = band_curve([up, flat])
    assert band.steps.tolist() == [50, 100, 150]  # where one was measured, and both are known
    np.testing.assert_allclose(band.centre, (band.steps / 10 + 4) / 2)
    std = np.abs(band.steps / 10 - 4) / math.sqrt(2)  # of two values: their distance by the root of 2
    np.testing.assert_allclose(band.high - band.centre, t_quantile(1) * std / math.sqrt(2), atol=1e-12)
    np.testing.assert_allclose(band.centre - band.low, t_quantile(1) * std / math.sqrt(2), atol=1e-12)
    deviation = band_curve([up, flat], "std")
    np.testing.assert_allclose((deviation.high - deviation.low) / 2, std)


def test_the_interquartile_mean_and_the_quartiles():
    curves = [np.array([[0, 10.0], [value, 2 * value]]) for value in (1.0, 2, 3, 4, 100)]
    band = band_curve(curves, "iqm")
    assert band.centre.tolist() == [3, 6]  # without the lowest and the highest
    assert (band.low.tolist(), band.high.tolist()) == ([2, 4], [4, 8])


def test_one_curve_keeps_its_points():
    curve = np.array([[0, 7, 200.0], [0, 10, 20]])
    for interval in ("95", "iqm", "std"):
        band = band_curve([curve], interval)
        np.testing.assert_array_equal(band.steps, curve[0])
        for values in (band.centre, band.low, band.high):
            np.testing.assert_array_equal(values, curve[1])
