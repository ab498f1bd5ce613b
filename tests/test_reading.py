"""Whatever lies in a file: one sentence, in bounded time and memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emix import reading
from emix.envs.battle.maps import load_map
from emix.errors import UsageError


def bomb(levels: int, width: int = 9) -> str:
    """YAML whose aliases stand for ``width ** levels`` values."""
    lines = ["a0: &a0 x"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "at most 50,000 values, with what aliases repeat"),
        ("a: &a [*a]", "an alias stands for a part of itself"),
        ("a: &a {b: *a}", "an alias stands for a part of itself"),
        ("[" * 5000, "nested too deeply"),
        ("{" * 5000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("x: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("x: !!int ''", "is not YAML"),
        ("x: !!timestamp x", "is not YAML"),
        ("x: !!bool x", "is not YAML"),
        ("x: 2024-99-99", "is not YAML"),
        ("{[a]: b}", "is not YAML"),
        (f"x: {'9' * 5000}", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("\x00", "is not YAML"),
        ("x" * (reading.MOST_YAML + 1), "is too large: expected at most 262,144 bytes"),
    ],
)
def test_hostile_yaml(tmp_path, text, message):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    before = time.process_time()
    with pytest.raises(UsageError, match=message) as info:
        reading.read_yaml(path)
    assert time.process_time() - before < 10
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 600


def test_ordinary_aliases(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("base: &base {x: 1, y: [1, 2]}\nown: {<<: *base, x: 2}\n")
    assert reading.read_yaml(path) == {"base": {"x": 1, "y": [1, 2]}, "own": {"x": 2, "y": [1, 2]}}
    path.write_text("")
    assert reading.read_yaml(path) is None


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": NaN}', '{"a": Infinity}', "9" * 5000, "{", "", "\x00", '"\\ud800', "[1,]"]
)
def test_hostile_json(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"file\.json is not a summary: ") as info:
        reading.read_json(path, "a summary")
    assert len(str(info.value)) < 600


def special_files(tmp_path: Path) -> dict[str, Path]:
    """Things that are no regular files, or cannot be read as one."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, target in (("zero", "/dev/zero"), ("null", "/dev/null"), ("loop", "loop.yaml"), ("dangling", "no")):
        (tmp_path / f"{name}.yaml").symlink_to(target)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    return {path.stem: path for path in tmp_path.iterdir()} | {"nul": tmp_path / "a\0.yaml"}


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    files = special_files(tmp_path)
    assert len(files) == 8
    for path in files.values():
        for read in (reading.read_yaml, lambda path: reading.read_json(path, "x"), lambda path: load_map(str(path))):
            with pytest.raises(UsageError, match=r"cannot be read|is not x") as info:
                read(path)
            assert "\n" not in str(info.value)


@given(st.binary(max_size=200) | st.text(alphabet="{}[]&*!:-,\"'\n aet1.<", max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    for read in (reading.read_yaml, lambda path: reading.read_json(path, "x")):
        with suppress(UsageError):
            read(path)


@pytest.mark.parametrize("value", [True, -1, 1 << 63, 1.5, "1", None, [1]])
def test_whole_numbers(value):
    with pytest.raises(UsageError, match=r"^here: steps expects"):
        reading.expect_keys({"steps": value}, {"steps": int}, "here")
    assert reading.expect_keys({"steps": 5}, {"steps": int}, "here") == {"steps": 5}


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reading.path_of("~/runs") == tmp_path / "runs"
    with pytest.raises(UsageError, match="there is no such user"):
        reading.path_of("~nobody-of-this-name/x")
