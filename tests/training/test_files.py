"""What a run may write, delete and keep."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import emix
from emix.errors import UsageError
from emix.training import checkpoint, files
from emix.training.files import AppendedFile, open_own, replace_file

PARTS = {"a": {"x": torch.arange(5)}, "b": {"y": torch.rand(3, 2)}}


def test_a_users_files_in_the_checkpoint_stay(tmp_path):
    folder = tmp_path / "checkpoint"
    checkpoint.save(folder, {}, PARTS)
    (folder / "best.pt").write_text("mine")
    (folder / "a.7.safetensors").write_text("mine")  # called like a part, but no manifest names it
    (folder / "notes").mkdir()
    (folder / "notes" / "x.txt").write_text("mine")
    for _ in range(3):
        checkpoint.save(folder, {}, PARTS)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.4.safetensors", "a.7.safetensors", "b.4.safetensors", "best.pt", "manifest.json", "notes",
    ]  # fmt: skip
    assert (folder / "notes" / "x.txt").read_text() == (folder / "best.pt").read_text() == "mine"


def test_a_clean_up_that_fails_is_made_up_for(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {}, PARTS)

    def refuse(path: Path) -> None:
        raise OSError(errno.EACCES, "no", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        checkpoint.save(tmp_path, {"n": 2}, PARTS)
    assert checkpoint.read_manifest(tmp_path)["n"] == 2
    assert (tmp_path / "a.1.safetensors").exists()
    checkpoint.save(tmp_path, {"n": 3}, PARTS)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["a.3.safetensors", "b.3.safetensors"]


def test_what_a_killed_save_has_left_is_deleted_on_resume(tmp_path, monkeypatch):
    folder, options = tmp_path / "run", {"test_episodes": 4, "checkpoint_interval": 20, "quiet": True}
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "delete_replaced", lambda folder, manifest: None
        )  # killed before it, in the last save
        emix.train("vdn", "matrix/penalty-2x3", steps=60, run_dir=folder, plan={"batch_size": 4}, **options)
    (folder / "summary.json").unlink()
    parts = {entry["file"] for entry in checkpoint.read_manifest(folder / "checkpoint")["parts"].values()}
    present = {path.name for path in (folder / "checkpoint").glob("*.safetensors")}
    assert parts < present
    emix.train("vdn", "matrix/penalty-2x3", steps=60, run_dir=folder, plan={"batch_size": 4}, resume=True, **options)
    assert {path.name for path in (folder / "checkpoint").glob("*.safetensors")} == parts


def test_nothing_is_deleted_behind_a_link_nor_what_the_checkpoint_has(tmp_path):
    manifest = checkpoint.save(tmp_path / "real", {}, PARTS)
    old = tmp_path / "real" / "old.safetensors"
    old.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    named = manifest | {"replaced": ["old.safetensors", "a.1.safetensors"]}
    checkpoint.delete_replaced(tmp_path / "link", named)
    assert old.exists()
    checkpoint.delete_replaced(tmp_path / "real", named)
    assert sorted(path.name for path in old.parent.glob("*.safetensors")) == ["a.1.safetensors", "b.1.safetensors"]


NAMES = st.sampled_from(
    [
        *("../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".", "x", "a\0.safetensors"),
        *("x\n.safetensors", ".hidden.safetensors", 5, None, ["x"]),
    ]
)


@given(NAMES, st.booleans())
@settings(max_examples=30, deadline=None)
def test_names_in_a_manifest_stay_in_its_folder(tmp_path_factory, name, replaced):
    folder = tmp_path_factory.mktemp("names")
    checkpoint.save(folder, {}, PARTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    if replaced:
        manifest["replaced"] = [name]
    else:
        manifest["parts"]["a"]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for use in (checkpoint.read_manifest, lambda folder: checkpoint.save(folder, {}, PARTS)):
        with pytest.raises(UsageError, match=r"manifest\.json is not the manifest of an emix checkpoint"):
            use(folder)


def test_tensors_are_copies(tmp_path):
    checkpoint.save(tmp_path, {}, PARTS)
    manifest = checkpoint.read_manifest(tmp_path)
    loaded = checkpoint.load(tmp_path, manifest, "b")
    path = tmp_path / manifest["parts"]["b"]["file"]
    assert str(path) not in Path("/proc/self/maps").read_text()
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, as a mapped file would see it
    assert torch.equal(loaded["y"], PARTS["b"]["y"])


def test_a_header_of_many_tensors_is_refused_at_once(tmp_path):
    checkpoint.save(tmp_path, {}, {"a": {f"tensor{k}": torch.zeros(0) for k in range(20_000)}})
    with pytest.raises(UsageError, match="expected a header of at most 1048576 bytes, got"):
        checkpoint.load(tmp_path, checkpoint.read_manifest(tmp_path), "a")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        checkpoint.save(tmp_path / "checkpoint", {}, PARTS)
        replace_file(tmp_path / "config.yaml", b"x")
        AppendedFile(tmp_path / "metrics.jsonl").close()
    finally:
        os.umask(before)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


def test_everything_is_forced_to_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Each file before its rename, and the folder after it."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append(("replace", Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    replace_file(tmp_path / "summary.json", b"x")
    AppendedFile(tmp_path / "metrics.jsonl").close()
    expected = []
    for name in ("summary.json", "metrics.jsonl"):
        draft = tmp_path / f".{name}.new"
        expected += [("fsync", draft), ("replace", tmp_path / name), ("fsync", tmp_path)]
    assert calls == expected


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _twin(path: Path, target: Path) -> None:
    os.link(target, path)


@pytest.mark.parametrize("make", [_link, _twin])
@pytest.mark.parametrize("name", [".metrics.jsonl.new", "metrics.jsonl", "lock", "log.txt"])
def test_no_link_is_written_through(tmp_path, make, name):
    target = tmp_path / "documents.txt"
    target.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    make(folder / name, target)
    if name == "metrics.jsonl":  # made anew
        file = AppendedFile(folder / name)
        file.append(b"row\n")
        file.close()
        assert (folder / name).read_bytes() == b"row\n"
    else:
        with pytest.raises(OSError, match="through which the run would write elsewhere"):
            AppendedFile(folder / "metrics.jsonl") if "metrics" in name else open_own(folder / name, os.O_RDWR)
    assert target.read_text() == "mine"


def test_a_checkpoint_that_is_a_link_is_not_written(tmp_path):
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "letter.txt").write_text("mine")
    (tmp_path / "checkpoint").symlink_to(documents)
    with pytest.raises(OSError, match="it is a link"):
        checkpoint.save(tmp_path / "checkpoint", {}, PARTS)
    assert [path.name for path in documents.iterdir()] == ["letter.txt"]


def test_whoever_has_the_old_file_open_does_not_reach_the_new_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = AppendedFile(path)
    first.append(b"one\ntwo\n")
    second = AppendedFile(path, keep=4)
    first.append(b"three\n")
    second.append(b"2\n")
    assert path.read_bytes() == b"one\n2\n"
    for file in (first, second):
        file.close()


def test_metrics_of_another_run_are_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = AppendedFile(path)
    file.append(b"one\ntwo\n")
    file.close()
    digest = file.digest()
    AppendedFile(path, 8, digest).close()
    path.write_bytes(b"one\n2wo\n")
    with pytest.raises(UsageError, match="is not the file that the checkpoint was made with"):
        AppendedFile(path, 8, digest)
    assert path.read_bytes() == b"one\n2wo\n"


def test_a_folder_that_cannot_be_forced_to_the_disk(tmp_path, monkeypatch):
    """As on some network file systems: no reason not to train."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    files.force_to_disk(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        files.force_to_disk(tmp_path / "x")
