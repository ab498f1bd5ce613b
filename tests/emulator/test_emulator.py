"""The CUDA emulator: kernels that keep CUDA's rules compute right numbers; each broken rule is told with its place."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ORDERS = ["ascending", "descending", "shuffled", "shuffled:12"]
BLOCK_SUMS = [8128, 24512, 40896, 16256, 49024, 81792]  # sum of 128 consecutive integers per block, then its double

Run = Callable[..., str]


def compiler() -> str:
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("the emulator's kernels need a C++ compiler (g++ or c++)")
    return found


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emulator") / "kernels"
    flags = ["-std=c++17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-c"]
    kernels = ["-x", "c++", "-fsanitize=thread"]
    objects = []
    for source in ["kernels.cu", "broken_kernels.cu", "race_kernels.cu", "races.cpp"]:
        objects.append(path.with_name(f"{source}.o"))
        extra = kernels if source.endswith(".cu") else []
        subprocess.run([compiler(), *flags, *extra, FOLDER / source, "-o", objects[-1]], check=True)
    subprocess.run([compiler(), "-pthread", *objects, "-o", path], check=True)  # without ThreadSanitizer's library
    return path


@pytest.fixture
def run(program: Path) -> Run:
    """Run one case; gives what it prints."""

    def run_case(case: str, order: str | None = None) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "EMIX_EMULATOR_ORDER"}
        if order is not None:
            environment["EMIX_EMULATOR_ORDER"] = order
        return subprocess.run(
            [program, case], env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout.strip()

    return run_case


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


@pytest.mark.parametrize("order", ORDERS)
def test_warp_scan_of_every_value_type(run: Run, order: str) -> None:
    assert run("scan", order) == "right"


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_stay_in_groups_of_sixteen(run: Run, order: str) -> None:
    shfl, up, down, xor = (numbers(line) for line in run("width", order).splitlines())
    lanes = range(32)
    assert shfl == [lane // 16 * 16 + 19 % 16 for lane in lanes]
    assert up == [lane - 3 if lane % 16 >= 3 else lane for lane in lanes]
    assert down == [lane + 3 if lane % 16 < 13 else lane for lane in lanes]
    # The group below may be read, the one above may not.
    assert xor == [lane if lane < 16 else lane ^ 17 for lane in lanes]


@pytest.mark.parametrize("order", ORDERS)
def test_votes_and_sum_of_half_warps(run: Run, order: str) -> None:
    low, high = [0x11111111, 0x2222, 0, 1, sum(range(16))], [0x11111111, 0x22220000, 1, 0, sum(range(16, 32))]
    assert numbers(run("vote", order)) == low + high


def test_shuffles_of_structs(run: Run) -> None:
    assert numbers(run("values")) == [7, 10, -27, 27]


def test_integer_intrinsics(run: Run) -> None:
    assert numbers(run("intrinsics")) == [8, 0, 4, 32, 31, 0, 0xD2511F53 * 0x80000001 >> 32]


@pytest.mark.parametrize("order", ORDERS)
def test_matrix_units_in_the_layouts_of_the_ptx_isa(run: Run, order: str) -> None:
    assert run("mma", order) == "right"


@pytest.mark.parametrize("order", ORDERS)
def test_block_with_a_partial_warp(run: Run, order: str) -> None:
    low, high = sum(range(32)), sum(range(32, 48))
    assert numbers(run("partial_warp", order)) == [low, low, high, high, 0xFFFFFFFF, 0xFFFF]


@pytest.mark.parametrize("order", ORDERS)
def test_indices_of_three_dimensional_blocks_and_grids(run: Run, order: str) -> None:
    assert run("indices", order) == "each once"


@pytest.mark.parametrize("order", ORDERS)
def test_block_sum_in_every_order(run: Run, order: str) -> None:
    assert numbers(run("block_sum", order)) == [total for total in BLOCK_SUMS for _ in range(4)]


def test_order_of_blocks_and_threads(run: Run) -> None:
    def trace(step: int) -> list[str]:
        expected = []
        for block in range(3)[::step]:
            for warp in [range(32), range(32, 64), range(64, 70)][::step]:  # each runs up to the block's barrier
                expected += [f"{at}{block}.{thread}" for at in "ab" for thread in warp[::step]]
            expected += [f"c{block}.{thread}" for thread in range(70)[::step]]
        return expected

    assert run("trace").split() == trace(1)
    assert run("trace", "ascending").split() == trace(1)
    assert run("trace", "descending").split() == trace(-1)


def test_shuffled_order_changes_between_rounds_and_follows_its_seed(run: Run) -> None:
    trace = run("trace", "shuffled:3").split()
    assert trace == run("trace", "shuffled:3").split()
    assert trace != run("trace", "shuffled:4").split()
    assert run("trace", "shuffled") == run("trace", "shuffled:0")
    assert sorted(trace) == sorted(run("trace").split())

    def threads(at: str, block: int) -> list[int]:
        return [int(entry.split(".")[1]) for entry in trace if entry.startswith(f"{at}{block}.")]

    rounds = [threads(at, block) for at in "ac" for block in range(3)]
    lanes = [tuple(thread for thread in threads if thread < 32) for threads in rounds]
    warps = [tuple(dict.fromkeys(thread // 32 for thread in threads)) for threads in rounds]
    assert len(set(lanes)) == len(rounds)
    assert len(set(warps)) > 1  # only six orders of three warps
    blocks = list(dict.fromkeys(entry[1] for entry in trace))
    assert sorted(blocks) == ["0", "1", "2"]
    assert blocks != sorted(blocks)


def test_set_order_overrides_the_environment(run: Run) -> None:
    assert run("setter", "descending") == "1111"


@pytest.mark.parametrize("order", ["", "random", "shuffled:", "shuffled:-1", "shuffled:1x", "shuffled:" + "9" * 30])
def test_unknown_order_is_refused(run: Run, order: str) -> None:
    assert run("trace", order) == (
        f"exception: EMIX_EMULATOR_ORDER must be ascending, descending, shuffled or shuffled:<seed>, got '{order}'"
    )


def test_shared_memory_starts_as_nan_in_every_block(run: Run) -> None:
    assert run("poison") == "1116"  # two NaNs, 16 bytes


def test_several_os_threads_emulate_at_once(run: Run) -> None:
    assert run("os_threads") == "1 1 1 1"


def test_launches_at_the_limits(run: Run) -> None:
    assert run("at_limits") == "ran"


FAULTS = {
    "missing_barrier": ["thread (0, 0, 0): __syncthreads waits in vain for thread (70, 0, 0), which has exited"],
    "barrier_beside_shuffle": ["thread (5, 0, 0): __shfl_sync", "waits in vain for lane 0", "stands at __syncthreads"],
    "divergent_shuffle": ["thread (1, 0, 0): __shfl_xor_sync", "waits in vain for lane 0", "stands at __syncthreads"],
    "exited_lane": ["thread (32, 0, 0): __shfl_down_sync", "lane 8, thread (40, 0, 0), which has exited"],
    "exited_lane_ballot": ["thread (0, 0, 0): __ballot_sync", "lane 9, thread (9, 0, 0), which has exited"],
    "different_primitives": ["thread (0, 0, 0): __any_sync", "lane 3", "which stands at __ballot_sync"],
    "different_masks": ["thread (0, 0, 0): __syncwarp", "lane 16", "stands at __syncwarp (mask 0xffff8000"],
    "different_sizes": ["thread (0, 0, 0): __shfl_sync (mask 0xffffffff, 4-byte", "lane 16", "8-byte value)"],
    "mma_without_a_lane": ["thread (0, 0, 0): mma.sync", "lane 11, thread (11, 0, 0), which has exited"],
    "mask_without_caller": ["thread (0, 0, 0): __syncwarp (mask 0xfffffffe", "by lane 0, which its mask must contain"],
    "source_outside_mask": ["thread (0, 0, 0): __shfl_sync", "reads lane 20, which its mask must contain"],
    "source_outside_block": ["thread (40, 0, 0): __shfl_down_sync", "reads lane 16, which this warp", "does not have"],
    "bad_width": ["thread (0, 0, 0): a shuffle's width must be 1, 2, 4, 8, 16 or 32, got 24"],
    "out_of_bounds": ["thread (0, 0, 0): index -60 is out of the bounds of an array of 64 in shared memory"],
    "guard": ["block (1, 0, 0): some thread wrote byte 101 of 101 bytes of shared memory"],
    "stack_overflow": ["thread (0, 0, 0): the stack of 128 KiB overflowed"],
    "large_block": ["launch of kernel nothing", "1024 threads at most", "got (32, 33, 1)"],
    "huge_block": ["launch of kernel nothing", "1024 threads at most", "got (65536, 65536, 1)"],
    "empty_block": ["launch of kernel nothing", "a block must have a thread at least, got (32, 0, 1)"],
    "empty_grid": ["launch of kernel nothing", "a grid must have a block at least, got (3, 0, 1)"],
    "large_grid": ["launch of kernel nothing", "65535) blocks at most, got (1, 65536, 1)"],
    "large_shared": ["launch of kernel nothing", "227 KiB", "got 232449 bytes"],
}


@pytest.mark.parametrize("case", FAULTS)
def test_broken_rule_is_told_with_its_place(run: Run, case: str) -> None:
    report = run(case, "ascending")
    place = "launch of kernel nothing: " if "launch" in FAULTS[case][0] else f"kernel {case}, block ("
    assert report.startswith(f"Fault: {place}")
    assert [part for part in FAULTS[case] if part not in report] == []


NO_WARP_BARRIER = "no __syncwarp of both lanes (or __syncthreads) lies between"
NO_BLOCK_BARRIER = "no __syncthreads lies between"
BLOCKS = "nothing orders the blocks of a launch"
# What the ascending order finds; in another, the threads' parts may be exchanged.
RACES = {
    # The project's own shapes (mixing's and returns' backward) without their warp barriers.
    "group_values_race": ["thread (1, 0, 0)", "reads 4 bytes at address 0x", "thread (8, 0, 0) wrote", NO_WARP_BARRIER],
    "scans_race": ["thread (0, 0, 0)", "reads 4 bytes", "which thread (27, 0, 0) wrote before", NO_WARP_BARRIER],
    "ends_race": ["thread (0, 0, 0)", "writes 4 bytes", "which thread (5, 0, 0) wrote before", NO_WARP_BARRIER],
    # Barriers of a part of the warp.
    "half_warp_race": ["thread (16, 0, 0): data race: reads", "thread (0, 0, 0) wrote", NO_WARP_BARRIER],
    "half_warps_out_of_turn_race": ["thread (31, 0, 0): data race: reads", "thread (0, 0, 0) wrote", NO_WARP_BARRIER],
    "partial_last_warp_race": ["thread (4, 0, 0)", "writes 4 bytes", "thread (3, 0, 0) read before", NO_WARP_BARRIER],
    "same_value_race": ["thread (9, 0, 0)", "writes 4 bytes", "which thread (0, 0, 0) wrote before", NO_WARP_BARRIER],
    "first_of_all_readers_race": ["thread (0, 0, 0)", "writes 4", "thread (1, 0, 0) read before", NO_WARP_BARRIER],
    "last_of_all_readers_race": ["thread (31, 0, 0)", "writes 4", "thread (0, 0, 0) read before", NO_WARP_BARRIER],
    # Warps of a block.
    "read_after_write_race": ["writes 4 bytes at byte 128", "which thread (0, 0, 0) read before", NO_BLOCK_BARRIER],
    "write_after_read_race": ["reads 4 bytes at byte 0", "which thread (0, 0, 0) wrote before", NO_BLOCK_BARRIER],
    "one_buffer_race": ["thread (32, 0, 0)", "reads 4 bytes at byte 124", "thread (31, 0, 0) wrote", NO_BLOCK_BARRIER],
    "readers_race": ["thread (63, 0, 0)", "writes 4 bytes at byte 0", "thread (0, 0, 0) read before", NO_BLOCK_BARRIER],
    # A byte of another thread's value: of 1, 2, 16 and 200 bytes.
    "bytes_race": ["thread (38, 0, 0): data race: writes 1 byte at", "thread (37, 0, 0) wrote", NO_WARP_BARRIER],
    "halves_race": ["thread (38, 0, 0): data race: writes 2 bytes", "thread (37, 0, 0) wrote", NO_WARP_BARRIER],
    "vectors_race": ["thread (38, 0, 0): data race: writes 16 bytes", "thread (37, 0, 0) wrote", NO_WARP_BARRIER],
    "structs_race": ["thread (38, 0, 0): data race: writes 200 bytes", "thread (37, 0, 0) wrote", NO_WARP_BARRIER],
    # Blocks of a grid.
    "blocks_write_race": ["block (6, 0, 0)", "writes 4", "thread (3, 0, 0) of block (1, 0, 0) wrote before", BLOCKS],
    "blocks_read_after_write_race": ["block (6, 0, 0)", "reads 4", "(40, 0, 0) of block (1, 0, 0) wrote", BLOCKS],
    "blocks_write_after_read_race": ["block (6, 0, 0)", "writes 4", "(3, 0, 0) of block (1, 0, 0) read", BLOCKS],
    "pages_race": ["block (0, 0, 0), thread (1, 0, 0)", "writes 4 bytes", "thread (0, 0, 0) read", NO_WARP_BARRIER],
}
# What makes a warp's lanes meet orders no memory.
for primitive in ["shuffle", "ballot", "vote", "reduction", "mma"]:
    RACES[f"{primitive}_is_no_barrier"] = ["reads 4 bytes at byte 4 of shared", "(1, 0, 0) wrote", NO_WARP_BARRIER]
RACE_FREE = ["group_values", "scan_back", "swap", "half_warp", "half_warps_in_turn", "all_read"]
RACE_FREE += [
    "partial_last_warp",
    "same_value",
    "tiles",
    "buffers",
    "readers",
    "bytes",
    "halves",
    "vectors",
    "structs",
    "blocks",
    "launches",
    "pages",
]


@pytest.mark.parametrize("case", RACES)
def test_data_race_is_told_with_both_threads(run: Run, case: str) -> None:
    report = run(case, "ascending")
    assert report.startswith("Fault: kernel ")
    assert [part for part in ["data race: ", *RACES[case]] if part not in report] == []


@pytest.mark.parametrize("case", RACE_FREE)
@pytest.mark.parametrize("order", ORDERS)
def test_what_barriers_order_is_no_race(run: Run, case: str, order: str) -> None:
    assert run(case, order) == ""


@pytest.mark.parametrize("case", FAULTS | RACES)
def test_broken_rule_is_found_in_any_order(run: Run, case: str) -> None:
    kind = "data race: " if case in RACES else ""
    reports = {order: run(case, order) for order in ORDERS}
    assert {order: report for order, report in reports.items() if not re.match(f"Fault: .*{kind}", report)} == {}


def test_stack_overrun_ends_the_process_before_it_harms_other_memory(program: Path) -> None:
    assert subprocess.run([program, "stack_overrun"], check=False, timeout=60).returncode == -signal.SIGSEGV


def test_exception_in_a_kernel_reaches_the_caller_of_launch(run: Run) -> None:
    assert run("thrown") == "exception: thrown by thread 5"


@pytest.mark.parametrize("order", ORDERS)
def test_launches_work_after_faults(run: Run, order: str) -> None:
    lines = run("recovery", order).splitlines()
    faults = len(FAULTS) + len(RACES) + 1  # and an exception
    assert [numbers(line) for line in lines] == [[total for total in BLOCK_SUMS for _ in range(4)]] * faults


def test_static_shared_memory_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "static_shared.cu"
    source.write_text('#include "emulator.h"\n__global__ void kernel() { __shared__ float sums[32]; sums[0] = 0; }\n')
    command = [compiler(), "-x", "c++", "-std=c++17", "-fsyntax-only", f"-I{FOLDER}", str(source)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode != 0
    assert "__shared__" in process.stderr
