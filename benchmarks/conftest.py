"""What the benchmarks share: the devices, a timer of device time, and a table of ratios at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import pytest
import torch

from emix.bench.measure import median_times

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
# Once such a block was freed, glibc keeps smaller ones: else the first calls would pay for new pages of their results.
torch.empty(31 << 20, dtype=torch.uint8)
TABLE: dict[str, dict[str, float]] = defaultdict(dict)  # {row: {column: microseconds}}


def graph_replay(call: Callable[[], object], repeats: int = 20) -> Callable[[], None]:
    """Capture ``repeats`` calls in a CUDA graph; the returned function replays it and waits."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def record(benchmark: object) -> Callable[[str, str, Callable[[], object], str], None]:
    """Time a call (on CUDA: device time in a graph) and put its median into the table under (row, column)."""

    def run(row: str, column: str, call: Callable[[], object], device: str) -> None:
        repeats = 1
        if device == "cuda":
            repeats = 20
            call = graph_replay(call, repeats)
        else:
            call()
        benchmark.group = row
        benchmark(call)
        TABLE[row][column] = benchmark.stats.stats.median / repeats * 1e6

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
