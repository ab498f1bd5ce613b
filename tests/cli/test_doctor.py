"""``emix doctor`` on a driver: what fits and what does not, with made-up versions. The first launch on a GPU says the
same words (``launch_error`` in csrc/device.h)."""

import pytest

from emix import _host
from emix.cli import doctor


@pytest.mark.parametrize(
    ("toolkit", "driver"),
    [(13000, 13000), (13010, 13000), (12090, 12000), (12090, 13020), (12060, 12040), (11080, 12090)],
)
def test_a_driver_of_the_same_major_version_or_a_later_one_fits(toolkit, driver):
    assert _host.driver_problem(toolkit, driver) == ""


@pytest.mark.parametrize(
    ("toolkit", "driver", "problem", "remedy"),
    [
        (
            13000,
            12060,
            "emix was built with CUDA 13.0 and needs a driver of 580 or newer, but this one is for CUDA 12.6",
            "update the driver, or build emix with CUDA 12: "
            "CUDACXX=/usr/local/cuda-12.9/bin/nvcc pip install --force-reinstall .",
        ),
        (
            12090,
            11080,
            "emix was built with CUDA 12.9 and needs a driver of 525 or newer, but this one is for CUDA 11.8",
            "update the driver",
        ),
        (
            13010,
            0,
            "emix was built with CUDA 13.1 and needs a driver of 580 or newer, but there is none",
            "install the driver",
        ),
    ],
)
def test_an_older_driver_is_told_what_it_lacks(toolkit, driver, problem, remedy):
    assert _host.driver_problem(toolkit, driver) == problem
    assert _host.driver_remedy(toolkit, driver) == remedy


@pytest.mark.parametrize(
    ("built", "driver", "state", "detail"),
    [
        ("", 12040, "ok", "for CUDA 12.4; emix has no CUDA kernels"),
        ("12.9.86", 12040, "ok", "for CUDA 12.4, runs what CUDA 12.9 built"),
        ("13.0.88", 13020, "ok", "for CUDA 13.2, runs what CUDA 13.0 built"),
        (
            "13.0.88",
            12080,
            "broken",
            "emix was built with CUDA 13.0 and needs a driver of 580 or newer, but this one is",
        ),
    ],
)
def test_finding_of_a_driver(built, driver, state, detail):
    finding = doctor._fits(built, driver)
    assert finding.state == state
    assert finding.detail.startswith(detail)
    assert bool(finding.mend) == (state == "broken")


def test_a_driver_that_does_not_fit_makes_the_doctor_complain(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_driver_version", lambda: 12060)
    monkeypatch.setattr(
        _host,
        "build",
        lambda: {**dict.fromkeys(["compiler", "torch", "cuda_architectures"], ""), "cuda_version": "13.0.88"},
    )
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "broken   driver             emix was built with CUDA 13.0" in out
    assert "-> update the driver, or build emix with CUDA 12: CUDACXX=" in out
    assert out.splitlines()[-1] == "driver must be mended"


def test_without_a_driver_only_a_gpu_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_driver_version", lambda: 0)
    assert doctor._driver().state == "missing"
