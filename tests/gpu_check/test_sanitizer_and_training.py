"""The parts ``sanitizer`` and ``train`` of ``make gpu-check``, without a GPU."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.gpu_check import sanitizer, train
from benchmarks.gpu_check.parts import SMALL, Setting
from benchmarks.gpu_check.running import SKIPPED, first_error

ROOT = Path(__file__).parents[2]


def test_runs_are_compared_row_by_row(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"loss": 1}\n{"loss": 2}\n')
    assert train.compare(whole, killed) == 2
    (killed / "metrics.jsonl").write_text('{"loss": 1}\n{"loss": 3}\n')
    with pytest.raises(AssertionError, match=r"row 2 of metrics\.jsonl is .*3.* after the resume, .*2.* expected"):
        train.compare(whole, killed)
    (killed / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(AssertionError, match="has 1 rows, 2 expected"):
        train.compare(whole, killed)


def test_the_small_cases_reach_every_kernel():
    """Each word that has a cuda.cu: some device test of its own has a name that SMALL chooses."""
    words = {path.parent.name for path in (ROOT / "csrc").rglob("cuda.cu")} - {"battle"}  # in tests/envs
    names = SMALL.partition(" or (")[0].split(" or ")
    for word in words:
        tests = ast.parse((ROOT / f"tests/ops/test_{word}.py").read_text()).body
        chosen = [
            test.name
            for test in tests
            if isinstance(test, ast.FunctionDef)
            and any(name in test.name for name in names)
            and any(argument.arg.endswith("device") for argument in test.args.args)
        ]
        assert chosen, word


@pytest.fixture
def sanitize(tmp_path, monkeypatch, capsys) -> Callable[[str], tuple[int, list[str]]]:
    """Run the part with this shell script as compute-sanitizer; its exit status and what it printed."""

    def call(script: str) -> tuple[int, list[str]]:
        program = tmp_path / "compute-sanitizer"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(tmp_path)
        Setting("cuda", tmp_path).work.mkdir(parents=True)
        code = sanitizer.main("cuda")
        return code, capsys.readouterr().out.splitlines()

    return call


def test_sanitizer_without_a_finding(sanitize):
    code, lines = sanitize("echo '12 passed in 1s'; echo '========= ERROR SUMMARY: 0 errors'")
    assert (code, lines[-1]) == (0, "memcheck 0 errors, racecheck 0 errors, synccheck 0 errors in 72 cases")


def test_sanitizer_with_a_finding(sanitize):
    code, lines = sanitize(
        'test "$2" = racecheck || exit 0\n'
        "echo '========= Error: Race reported between Write access at x'\n"
        "echo '========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)'\nexit 9"
    )
    assert (code, lines[-1]) == (1, "memcheck 0 errors, racecheck 6 errors, synccheck 0 errors in 0 cases")
    assert first_error("\n".join(lines)) == "========= Error: Race reported between Write access at x"


def test_sanitizer_that_refuses_the_device(sanitize):
    code, lines = sanitize("echo '========= Error: Device not supported. Please refer to the manual'; exit 1")
    assert (code, lines[-1]) == (SKIPPED, "compute-sanitizer does not support this device here")


def test_sanitizer_without_a_gpu(capsys):
    assert sanitizer.main("emulated") == SKIPPED
    assert capsys.readouterr().out.startswith("there is no GPU")
