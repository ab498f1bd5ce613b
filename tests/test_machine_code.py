"""benchmarks/machine_code.py on short listings in nvdisasm's form, whose counts are known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "machine_code.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("machine_code", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["machine_code"] = module  # where dataclasses look for its names
    spec.loader.exec_module(module)
    return module


def listing(code: str) -> list[str]:
    """Lines as nvdisasm prints them: labels at the margin, instructions behind an address."""
    lines = [line.strip() for line in code.strip().splitlines()]
    return [line if line.endswith(":") else f"        /*{16 * k:04x}*/    {line} ;" for k, line in enumerate(lines)]


def waits(script: ModuleType, code: str) -> tuple[int, int, int]:
    return script.count_waits(script.parse(listing(code)))


def test_two_loads_that_wait_one_after_the_other(script: ModuleType) -> None:
    code = """
        LDG.E R4, desc[UR4][R2.64]
        FADD R5, R4, R6
        LDG.E R7, desc[UR4][R8.64]
        FADD R5, R5, R7
        STG.E desc[UR4][R2.64], R5
        EXIT"""
    assert waits(script, code) == (2, 2, 2)


def test_two_loads_that_are_issued_before_either_is_used(script: ModuleType) -> None:
    code = """
        LDG.E R4, desc[UR4][R2.64]
        @P0 LDG.E.64 R8, desc[UR4][R2.64+0x8]
        FADD R5, R4, R9
        STG.E desc[UR4][R2.64], R5
        EXIT"""
    assert waits(script, code) == (2, 1, 0)


def test_the_second_register_of_a_wide_load_counts(script: ModuleType) -> None:
    wide = "LDG.E.128 R4, desc[UR4][R2.64]\nFADD R9, R7, R7\nLDG.E R10, desc[UR4][R2.64]\nFADD R9, R9, R10\nEXIT"
    assert waits(script, wide) == (2, 2, 2)
    assert waits(script, wide.replace(".128", ".64")) == (2, 1, 0)  # R7 is none of its own


def test_a_switch_over_widths_is_one_load(script: ModuleType) -> None:
    """Each way loads and jumps to where the value is used: no load of the other way comes first."""
    code = """
        @P0 BRA `(.L_x_1)
        LDG.E.U8 R4, desc[UR4][R2.64]
        BRA `(.L_x_2)
        .L_x_1:
        LDG.E.U16 R4, desc[UR4][R2.64]
        .L_x_2:
        ISETP.NE.AND P1, PT, R4, RZ, PT
        EXIT"""
    assert waits(script, code) == (2, 2, 2)


def test_a_load_on_one_of_two_ways_is_company(script: ModuleType) -> None:
    code = """
        LDG.E R4, desc[UR4][R2.64]
        @P0 BRA `(.L_x_1)
        LDG.E R5, desc[UR4][R2.64+0x4]
        .L_x_1:
        FADD R6, R4, R5
        EXIT"""
    assert waits(script, code) == (2, 1, 0)


def test_stores_read_every_operand(script: ModuleType) -> None:
    code = """
        LDG.E R4, desc[UR4][R2.64]
        STG.E desc[UR4][R4.64], R9
        LDG.E R5, desc[UR4][R2.64]
        EXIT"""
    assert waits(script, code) == (2, 1, 1)


def test_divisions_and_what_is_behind_the_kernel(script: ModuleType) -> None:
    lines = listing("""
        I2F.U32.RP R4, R5
        CALL.REL.NOINC `($__internal_0_$__cuda_sm20_div_s64)
        CALL.REL.NOINC `($__internal_1_$__cuda_sm20_sqrt_rn_f32_slowpath)
        EXIT""")
    lines += ["        .type           $__internal_0_$__cuda_sm20_div_s64,@function", *listing("I2F.U64.RP R9, R20")]
    code = script.parse(lines)
    assert len(code) == 4
    assert script.count_divisions(code) == (1, 1)


def test_registers_and_warps(script: ModuleType) -> None:
    assert [script.warps_per_multiprocessor(n) for n in (32, 33, 64, 65, 128, 255)] == [64, 48, 32, 28, 16, 8]


def test_names_tell_overloads_apart(script: ModuleType) -> None:
    names = [
        "void emix::mixing::(anonymous namespace)::forward<float>(emix::mixing::Linear, float*)",
        "void emix::mixing::(anonymous namespace)::forward<float>(emix::mixing::Expected, float*)",
        "void emix::policy::(anonymous namespace)::terms<c10::Half, (int)3>(emix::policy::Problem, int)",
    ]
    assert script.short_names(names) == ["forward<float> (Linear)", "forward<float> (Expected)", "terms<Half, 3>"]


def test_changed_cells_show_both_states(script: ModuleType) -> None:
    row = {"word": "returns", "kernel": "scan<float>", "instructions": 10, "registers": 8, "spill_stores": 0}
    row |= {"spill_loads": 4, "warps": 64, "loads": 3, "waits": 2, "alone": 1, "divisions_64": 0, "divisions_32": 0}
    table = script.markdown([row | {"waits": 1}], [row])
    assert "| returns: `scan<float>` | 10 | 8 | 4 | 64 | 3 | 2 → 1 | 1 | 0 | 0 |" in table
