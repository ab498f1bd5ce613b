"""``make gpu-wheels``, and what ``make gpu-check`` installs from them. No index is asked."""

from __future__ import annotations

import zipfile

import pytest

pytest.importorskip("tomllib", reason="collecting and installing wheels needs Python 3.11")

from benchmarks.gpu_check import packages


def test_what_is_missing_names_the_target_that_collects_it(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "WHEELS", tmp_path / ".wheels")
    monkeypatch.setattr(packages, "requirements", lambda: ["torch", "no-such-package-of-emix>=3"])
    with pytest.raises(packages.MissingPackageError) as caught:
        packages.install(tmp_path / "site")
    assert str(caught.value) == (
        "no-such-package-of-emix>=3 is neither installed nor in .wheels: run `make gpu-wheels` on a machine with a "
        f"network, and bring {tmp_path / '.wheels'} here"
    )


def test_only_what_is_missing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "WHEELS", tmp_path / ".wheels")
    monkeypatch.setattr(packages, "requirements", lambda: ["torch", "a-part>=0.5"])
    packages.WHEELS.mkdir()
    packages._write_stub(packages.WHEELS, "a-part", "1.0")
    assert packages.install(tmp_path / "site") == ["a-part==1.0+there"]
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["a_part-1.0+there.dist-info"]
    assert packages.install(tmp_path / "site") == []


def test_wheels_are_collected_but_for_what_is_there(tmp_path, monkeypatch):
    """``whole`` needs ``a-part``, which the other machine has; no index is asked."""
    monkeypatch.setattr(packages, "WHEELS", tmp_path / ".wheels")
    monkeypatch.setattr(packages, "requirements", lambda: ["whole"])
    packages._write_stub(tmp_path, "whole", "2.0")
    wheel = (tmp_path / "whole-2.0+there-py3-none-any.whl").rename(tmp_path / "whole-2.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as file:
        metadata = "Metadata-Version: 2.1\nName: whole\nVersion: 2.0\nRequires-Dist: a-part>=1\n"
        file.writestr("whole-2.0.dist-info/METADATA", metadata)
        file.writestr("whole-2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("whole-2.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    packages.collect("3.12", ["linux_x86_64"], ["a-part==1.5", "cmake==4.0", "ninja==1.13"])
    assert [path.name for path in packages.WHEELS.iterdir()] == ["whole-2.0-py3-none-any.whl"]
    with pytest.raises(SystemExit, match="those of before are as they were"):
        packages.collect("3.12", ["linux_x86_64"], ["cmake==4.0", "ninja==1.13"])
    assert len(list(packages.WHEELS.iterdir())) == 1


def test_requirements_are_those_of_the_project():
    found = packages.requirements()
    assert {"gymnasium>=1.2", "tensordict>=0.10", "tyro>=0.9", "hypothesis>=6.100"} <= set(found)
    assert "pettingzoo>=1.25" in found, "the extras that the extra `test` names are part of it"
    assert not [each for each in found if each.startswith(("torch", "imageio-ffmpeg", "mujoco", "emix"))]


def test_platforms():
    found = packages.glibc_platforms("manylinux_2_28_x86_64")
    assert found[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"} <= set(found)
    assert "manylinux2014_x86_64" not in packages.glibc_platforms("manylinux_2_14_x86_64")
    with pytest.raises(SystemExit, match="manylinux_2_<minor>_<machine>, got win_amd64"):
        packages.glibc_platforms("win_amd64")
