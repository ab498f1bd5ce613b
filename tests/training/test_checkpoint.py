import json
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from emix.errors import UsageError
from emix.training import checkpoint

OLD = {"a": {"x": torch.arange(5), "flag": torch.tensor(True)}, "b": {"y": torch.rand(3, 2)}}
NEW = {"a": {"x": torch.arange(7)}, "c": {"z": torch.rand(0, 4)}}


def contents(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    manifest = checkpoint.read_manifest(folder)
    assert manifest is not None
    return manifest, {name: checkpoint.load(folder, manifest, name) for name in manifest["parts"]}


def same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return a.keys() == b.keys() and all(
        a[part].keys() == b[part].keys() and all(torch.equal(a[part][name], b[part][name]) for name in a[part])
        for part in a
    )


def test_save_and_load(tmp_path):
    folder = tmp_path / "checkpoint"
    assert checkpoint.read_manifest(folder) is None
    checkpoint.save(folder, {"counters": {"env_steps": 5}}, OLD)
    manifest, parts = contents(folder)
    assert same(parts, OLD)
    assert manifest["counters"] == {"env_steps": 5}
    assert manifest["torch"] == str(torch.__version__)

    checkpoint.save(folder, {"counters": {"env_steps": 9}}, NEW, keep=["b"])
    manifest, parts = contents(folder)
    assert same(parts, {**NEW, "b": OLD["b"]})
    named = {entry["file"] for entry in manifest["parts"].values()}
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *named}


def _die_at(monkeypatch: pytest.MonkeyPatch, call: int, killed: type[BaseException]) -> Callable[[], bool]:
    """Kill at the ``call``-th operation on the disk, before or in the middle of it; tells whether that was reached."""
    count = 0

    def counted(function: Callable[..., Any], torn: bool = False) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                if torn:  # half of the file is on the disk
                    function(*args, **kwargs)
                    path = Path(args[1])
                    os.truncate(path, path.stat().st_size // 2)
                raise killed
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(checkpoint, "save_file", counted(checkpoint.save_file, torn=True))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(Path, "write_text", counted(Path.write_text))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    return lambda: count >= call


def test_killed_at_any_moment_the_old_or_the_new_one_is_whole(tmp_path, killed):
    outcomes = []
    for call in range(1, 100):
        folder = tmp_path / str(call)
        checkpoint.save(folder, {"counters": "old"}, OLD)
        with pytest.MonkeyPatch.context() as patch:
            reached = _die_at(patch, call, killed)
            with suppress(killed):
                checkpoint.save(folder, {"counters": "new"}, NEW, keep=["b"])
        manifest, parts = contents(folder)
        assert same(parts, OLD if manifest["counters"] == "old" else {**NEW, "b": OLD["b"]})
        outcomes.append(manifest["counters"])
        if not reached():
            break
        checkpoint.save(folder, {"counters": "next"}, NEW)  # what the killed save left behind is no obstacle
        assert same(contents(folder)[1], NEW)
        assert len(list(folder.iterdir())) == 3
    assert outcomes == sorted(outcomes, reverse=True)  # old ... old, new ... new
    assert outcomes.count("old") >= 5
    assert outcomes.count("new") >= 3


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[-1] ^= 1
        path.write_bytes(data)
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"is damaged: expected \d+ bytes, got \d+; restore the file"),
        ("flipped", r"is damaged: expected SHA-256 \w{12}\.\.\., got \w{12}\.\.\.; restore the file"),
        ("missing", r"is missing, but manifest\.json names it: restore the file"),
    ],
)
def test_damaged_part(tmp_path, how, message):
    checkpoint.save(tmp_path, {}, OLD)
    manifest = checkpoint.read_manifest(tmp_path)
    damage(tmp_path / manifest["parts"]["b"]["file"], how)
    with pytest.raises(UsageError, match=message) as info:
        checkpoint.load(tmp_path, manifest, "b")
    assert manifest["parts"]["b"]["file"] in str(info.value)
    assert same({"a": checkpoint.load(tmp_path, manifest, "a")}, {"a": OLD["a"]})


def test_a_full_disk_keeps_the_old_one(tmp_path):
    checkpoint.save(tmp_path, {}, OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a larger file is refused as if the disk were full
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoint.save(tmp_path, {}, {"a": {"x": torch.zeros(1_000_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(contents(tmp_path)[1], OLD)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 3}', '{"format": 3, "parts": {"a": 3}}', "\xff"])
def test_damaged_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"manifest\.json is not the manifest of an emix checkpoint"):
        checkpoint.read_manifest(tmp_path)


def test_format_of_another_version(tmp_path):
    checkpoint.save(tmp_path, {}, OLD)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(UsageError, match=r"has format 2, this emix .* reads 3: use the emix that wrote it"):
        checkpoint.read_manifest(tmp_path)


def test_unknown_part(tmp_path):
    checkpoint.save(tmp_path, {}, OLD)
    with pytest.raises(UsageError, match="names no part 'learner'"):
        checkpoint.load(tmp_path, checkpoint.read_manifest(tmp_path), "learner")
