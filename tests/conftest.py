import os

import pytest
import torch

torch.set_num_threads(2)


def pytest_report_header() -> list[str]:
    from emix import _library

    return [
        f"emix: {_library.library_path()}",
        f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no device, its tests are skipped'}",
    ]


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each test that takes this runs on the CPU and, where there is one, on the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture
def emulated() -> bool:
    """Whether the CPU's kernels are the emulated CUDA kernels."""
    return "emulated" in os.environ.get("EMIX_LIBRARY", "")
