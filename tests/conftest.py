import os
import signal

import pytest
import torch

torch.set_num_threads(2)
# A shell's background jobs ignore Ctrl-C, those of nohup hang-ups too, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

EMULATED = "emulated" in os.environ.get("EMIX_LIBRARY", "")


def pytest_report_header() -> list[str]:
    from emix import _library

    return [
        f"emix: {_library.library_path()}",
        f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no device, its tests are skipped'}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)], scope="session"
)  # so that hypothesis takes it
def device(request: pytest.FixtureRequest) -> str:
    """Each test that takes this runs on the CPU and, where there is one, on the GPU."""
    return request.param


@pytest.fixture
def emulated() -> bool:
    """Whether the CPU's kernels are the emulated CUDA kernels."""
    return EMULATED
