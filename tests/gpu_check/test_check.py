"""``make gpu-check``: the choice of parts, their outcomes, the table. Nothing is built."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import report
from benchmarks.gpu_check.parts import PARTS, TOTAL, Part, Setting, UnknownPartError, choose
from benchmarks.gpu_check.published import FIGURES, published
from benchmarks.gpu_check.running import Outcome

MACHINE = {"card": "none", "torch": "2.11.0"}


def test_eight_minutes_are_the_limit_of_all_parts(tmp_path):
    assert TOTAL < 480
    setting = Setting("cuda", tmp_path)
    assert [part.limit(setting, 7.0) for part in PARTS.values()] == [7.0] * len(PARTS)
    assert all(part.limit(setting, TOTAL) == part.seconds for part in PARTS.values())
    outcome = gpu_check._run("ops", setting, 3.0)
    assert (outcome.failed, outcome.detail) == (True, f"not run: the {TOTAL} s of all parts were over")


@pytest.fixture
def check(tmp_path, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Run the whole command with these parts in place of its own; the table and the exit status."""

    def call(parts: dict[str, str], *arguments: str, limit: int = 20) -> tuple[int, str]:
        monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
        monkeypatch.setattr(gpu_check, "describe", lambda root: MACHINE)
        for name in list(PARTS):
            monkeypatch.delitem(PARTS, name)
        for name, code in parts.items():
            monkeypatch.setitem(PARTS, name, Part(limit, lambda setting, code=code: [sys.executable, "-c", code]))
        out = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "emulated", "--out", str(out), *arguments])
        library = Setting("emulated", tmp_path).libemix
        library.parent.mkdir(parents=True)
        library.touch()
        code = gpu_check.main()
        table = out / "gpu-check.md"
        return code, table.read_text() if table.exists() else ""

    return call


def test_a_failing_part_does_not_end_the_others(check, tmp_path):
    code, table = check({"one": "raise ValueError('no')", "two": "print('well')", "three": "raise SystemExit(77)"})
    assert code == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [["one", "failed"], ["two", "passed"], ["three", "skipped"]]
    assert [row[-1] for row in rows[2:4]] == ["ValueError: no", "well"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "gpu-check.json", "gpu-check.log", "gpu-check.md",
    ]  # fmt: skip
    found = json.loads((tmp_path / "out/gpu-check.json").read_text())
    assert found["machine"] == MACHINE
    assert found["parts"]["one"]["detail"] == "ValueError: no"
    assert "Traceback" in (tmp_path / "out/gpu-check.log").read_text()


def test_all_well_exits_with_0(check):
    assert check({"one": "print('well')"})[0] == 0


def test_parts_are_chosen_and_keep_their_order(check):
    code, table = check({"one": "print(1)", "two": "print(2)", "three": "print(3)"}, "--parts", "three, one")
    assert code == 0
    assert [line.split()[1] for line in table.splitlines() if line.startswith("| t") or line.startswith("| o")] == [
        "one", "three",
    ]  # fmt: skip


def test_an_unknown_part_names_the_closest(check, capsys):
    assert check({"one": "print(1)", "three": "print(3)"}, "--parts", "tree")[0] == 2
    assert capsys.readouterr().err == (
        "gpu-check: PARTS names 'tree', which is no part: did you mean 'three'? Parts: one three\n"
    )


def test_a_part_without_a_build(tmp_path):
    outcome = gpu_check._run("ops", Setting("cuda", tmp_path), 60.0)
    assert outcome.failed
    assert outcome.detail.endswith("site: let PARTS name build, too")


def test_choose():
    assert choose("battle,build train") == ["build", "train", "battle"]
    with pytest.raises(UnknownPartError, match="PARTS names 'updates', which is no part: did you mean 'update'"):
        choose("build updates")


def test_a_machine_without_a_gpu_or_torch(tmp_path):
    setting = Setting("cuda", tmp_path)
    assert "sees no CUDA device here" in setting.problem({"torch": "2.11.0", "card": "none"})
    assert setting.problem({"torch": "2.11.0", "card": "H100"}) == ""
    assert f"{sys.executable} has no torch: make gpu-check PYTHON=" in setting.problem(
        {"torch": "none", "card": "none"}
    )
    assert "cannot be imported" in setting.problem({"torch": "not importable", "card": "none"})
    assert Setting("emulated", tmp_path).problem({"torch": "2.11.0", "card": "none"}) == ""


# The table


def outcomes(*names: str, detail: str = "well") -> dict[str, Outcome]:
    return {name: Outcome("passed", 12.3, 60, detail) for name in names}


def measured(setting: Setting, part: str, rows: object) -> None:
    path = setting.rows(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def test_each_figure_stands_beside_floor_and_peers(tmp_path):
    setting = Setting("cuda", tmp_path)
    peers = {"eager": 900.0, "compile, graph": 25.04, "torchrl": None}
    row = {"op": "lambda_returns", "case": "B 32, T 60", "device_us": 1.712, "call_us": 15.2, "floor_us": 1.14}
    measured(setting, "ops", [{**row, "peers": peers}, {"op": "gae", "case": "B 32, T 120", "device_us": None}])
    measured(setting, "battle", [{"map": "3m", "envs": 65536, "steps_per_s": 21_345_678.9}])
    measured(setting, "update", {"rows": [{"learner": "smix", "map": "MMM2", "case": "B 32", "ms": 2.6, "peers": {}}]})
    text = report.markdown(MACHINE, outcomes("ops", "battle", "update"), setting)
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line][7:] == [
        ["lambda_returns B 32, T 60", "1.71 us, call 15.2", "1.14 us", "compile, graph 25 us", "rl-triton 1.64 us"],
        ["gae B 32, T 120", "- us, call -", "- us", "", ""],
        ["battle/3m, 65,536 at once", "21,345,679 steps/s", "", "", "SMAX 13.1M (4096 envs), 26.7M (32768)"],
        ["update smix MMM2 B 32", "2.6 ms", "", "", "with nn.GRU 3.8 ms"],
    ]
    assert "emulated" not in text
    assert "| ops    | passed | 12 | 60       | figures, below: 2 |" in text


def test_the_table_stays_short(tmp_path):
    setting = Setting("cuda", tmp_path)
    row = {"op": "expected_linear_mix", "case": "states 3,840, n 10, A 18, forward, backward", "device_us": 1.0}
    measured(setting, "ops", [{**row, "peers": {"compile, graph": 25.0}}] * 60)
    text = report.markdown(MACHINE, outcomes(*PARTS, detail="an error | of\n many words " * 50), setting)
    assert len(text) < 12_000
    assert "|" not in text.split("an error", 1)[1].split("...", 1)[0]


def test_a_file_that_was_cut_off_is_no_figure(tmp_path):
    setting = Setting("emulated", tmp_path)
    measured(setting, "ops", [])
    setting.rows("ops").write_text('[{"op": "ga')
    assert "no figures of a GPU" in report.markdown(MACHINE, outcomes("ops"), setting)


def test_published_figures_are_found_by_their_sizes():
    assert published("ops", "lambda_returns", "B 4,096, T 1,024") == "rl-triton 24.8 us"
    assert published("ops", "lambda_returns", "B 4, T 1024") == ""
    assert published("ops", "gru_sequence", "R 96, T 60, H 64, forward").startswith("nn.GRU 55 us")
    assert published("update", "smix 3m") == "with nn.GRU 0.65 ms"
    assert {part for part, _, _ in FIGURES} <= set(PARTS)
