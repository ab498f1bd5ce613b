"""``emix doctor`` on a GPU, which is the CPU here: there the library's kernels are the CPU's, or the emulated ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from emix import _host, ops
from emix.cli import doctor, kernels

CMAKE = Path(__file__).parents[2] / "CMakeLists.txt"
RELEASE = "75-real;80-real;90-real;100-real;120"


@pytest.mark.parametrize(
    ("compiled", "capability"),
    [
        ("90", (9, 0)),
        ("80-real", (8, 6)),
        (RELEASE, (12, 1)),
        (RELEASE, (13, 0)),  # sm_120's PTX
        ("90", (10, 0)),
        ("80-real;90-virtual", (8, 9)),
        ("native", (8, 0)),
    ],
)
def test_what_runs(compiled: str, capability: tuple[int, int]) -> None:
    assert kernels.architecture_problem(compiled, capability) == ""


@pytest.mark.parametrize(
    ("compiled", "capability", "said"),
    [
        ("90", (8, 0), "its kernels are compiled for sm_90, this GPU is sm_80"),
        ("86-real", (8, 0), "its kernels are compiled for sm_86, this GPU is sm_80"),
        ("90-real", (10, 0), "its kernels are compiled for sm_90, this GPU is sm_100"),
        ("90-virtual", (8, 9), "its kernels are compiled for sm_90, this GPU is sm_89"),
    ],
)
def test_what_does_not_run(compiled: str, capability: tuple[int, int], said: str) -> None:
    assert kernels.architecture_problem(compiled, capability) == said


def test_a_gpu_of_another_architecture_is_told_the_command() -> None:
    finding = doctor._gpu("cuda:0", "NVIDIA A100", (8, 0), "90")
    assert finding.state == "broken"
    assert finding.detail == "NVIDIA A100: its kernels are compiled for sm_90, this GPU is sm_80"
    assert finding.mend.endswith(" . -C cmake.define.CMAKE_CUDA_ARCHITECTURES=80")


def test_every_word_of_a_gpu_has_a_kernel_that_is_tried() -> None:
    listed = re.search(r"set\(WORDS (.*)\)", CMAKE.read_text())
    assert listed is not None
    assert kernels.words() == sorted(listed.group(1).split())


def test_kernels_agree_with_their_references() -> None:
    assert dict(kernels.failing_words(torch.device("cpu"))) == {}
    finding = doctor._gpu("cpu", "a GPU", (9, 0), "90")
    assert finding.state == "ok"
    assert "a GPU: a kernel of each of battle, diversity" in finding.detail


def test_a_kernel_that_is_wrong_or_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.linear_mix
    monkeypatch.setattr(ops, "linear_mix", lambda *inputs: right(*inputs) + 1)

    def fail(*inputs: object, **options: object) -> None:
        raise RuntimeError("emix: launch of gae failed")

    monkeypatch.setattr(ops, "lambda_returns", fail)
    failing = dict(kernels.failing_words(torch.device("cpu")))
    assert set(failing) == {"mixing", "returns"}
    assert failing["returns"] == "emix: launch of gae failed"
    finding = doctor._gpu("cpu", "a GPU", (9, 0), "90")
    assert finding.state == "broken"
    assert "returns: emix: launch of gae failed" in finding.detail
    assert finding.mend.startswith(kernels.REBUILD)


def test_the_gpus_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.cuda.is_available() or doctor._gpus() == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    build = {"cuda_version": "12.9.86", "cuda_architectures": "90"}
    monkeypatch.setattr(_host, "build", lambda: build)
    assert [finding.detail.partition(":")[0] for finding in doctor._gpus()] == ["GPU 0", "GPU 1"]
    build["cuda_version"] = ""
    assert [finding.state for finding in doctor._gpus()] == ["missing"]
