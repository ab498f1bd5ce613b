"""What the benchmarks share: the devices, the timer of ``emix bench``, and a table of ratios at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

from emix import _host
from emix.bench.measure import median_times, repeated

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
# Once such a block was freed, glibc keeps smaller ones: else the first calls would pay for new pages of their results.
torch.empty(31 << 20, dtype=torch.uint8)
TABLE: dict[str, dict[str, float]] = defaultdict(dict)  # {row: {column: microseconds}}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def as_training_does(threads: int) -> Iterator[None]:
    """Memory that is kept, and so many threads of torch."""
    _host.keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def record(benchmark: object) -> Callable[[str, str, Callable[[], object], str], None]:
    """Time a call by pytest-benchmark (on CUDA: on the device alone) and put its median into the table under (row,
    column)."""

    def run(row: str, column: str, call: Callable[[], object], device: str) -> None:
        calls, timed = 1, call
        if device == "cuda":
            replay, calls = repeated(call, torch.device(device))

            def timed() -> None:
                replay()
                torch.cuda.synchronize()

        else:
            call()
        benchmark.group = row
        benchmark(timed)
        TABLE[row][column] = benchmark.stats.stats.median / calls * 1e6

    return run


@pytest.fixture
def compare() -> Callable[[str, Mapping[str, Callable[[], object]], str], None]:
    """Time candidates in turns and put their medians into the table: for calls of milliseconds, which the machine's
    other work would not hit alike one after the other."""

    def run(row: str, candidates: Mapping[str, Callable[[], object]], device: str) -> None:
        for column, seconds in median_times(candidates, torch.device(device), rounds=9).items():
            TABLE[row][column] = seconds * 1e6

    return run


def pytest_terminal_summary(terminalreporter: object) -> None:
    if not TABLE:
        return
    columns = list(dict.fromkeys(column for row in TABLE.values() for column in row))
    terminalreporter.section("median microseconds (ratio to emix)")
    terminalreporter.write_line(f"{'':28}" + "".join(f"{column:>20}" for column in columns))
    for row, cells in TABLE.items():
        ours = cells.get("emix")
        text = [f"{row:28}"]
        for column in columns:
            cell = cells.get(column)
            ratio = f" ({cell / ours:.1f}x)" if cell and ours else ""
            text.append(f"{'' if cell is None else f'{cell:.1f}{ratio}':>20}")
        terminalreporter.write_line("".join(text))
