"""One process writes a run, with file locks and without."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emix.errors import UsageError
from emix.training import LostRunError, owner
from emix.training.owner import own


def without_locks(*arguments: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def always(*arguments: object) -> None:
    """As on file systems that grant every lock."""


@pytest.fixture
def elsewhere(monkeypatch) -> None:
    """As if every other process were one of another machine, of which nobody here can say whether it lives."""
    monkeypatch.setattr(owner, "_is_alive", lambda claim: False)
    monkeypatch.setattr(owner, "_held", NothingHeld())


class NothingHeld(set):
    def __contains__(self, key: object) -> bool:
        return False


@pytest.mark.parametrize("lockf", [without_locks, always])
def test_who_came_first_notices(run, tmp_path, monkeypatch, elsewhere, lockf):
    """The second one takes the run over in the middle; the first stops, and the metrics are those of one run."""
    monkeypatch.setattr(fcntl, "lockf", lockf)
    run(tmp_path / "whole")
    folder, taken = tmp_path / "run", []

    def take_over(env_steps: int) -> None:
        if env_steps > 500 and not taken:
            taken.append(1)
            type(run)()(folder)

    with pytest.raises(LostRunError, match=r"was taken over by process \d+ on .*: this process stops"):
        run(folder, hook=take_over)
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_checkpoint_that_another_process_made_is_not_replaced(run, tmp_path, monkeypatch):
    """Even where the claim is the same: as of a copy of the run that was put back."""
    manifest = tmp_path / "checkpoint" / "manifest.json"

    def change(env_steps: int) -> None:
        if env_steps > 500:
            manifest.write_text(manifest.read_text().replace('"owner": "', '"owner": "x'))

    with pytest.raises(LostRunError, match="is not the checkpoint that this process made last"):
        run(tmp_path, hook=change)


@pytest.mark.parametrize("lockf", [without_locks, always, None])
def test_a_process_that_lives_here_is_left_in_peace(tmp_path, monkeypatch, lockf):
    code = f"""
from pathlib import Path
from emix.training.owner import own
with own(Path({str(tmp_path)!r})):
    print(1, flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        if lockf is not None:
            monkeypatch.setattr(fcntl, "lockf", lockf)
        with pytest.raises(UsageError, match=rf"is in use by process {other.pid} on "), own(tmp_path):
            pass
        other.kill()
    with own(tmp_path) as claim:  # its number may be in the file, but it is dead
        claim.check()


def test_a_number_that_was_given_out_again(tmp_path):
    """The file names a process that lives, but that started at another time."""
    claim = f"process {os.getppid()} on {os.uname().nodename}\ntoken 12\n"
    (tmp_path / "lock").write_text(claim)
    with own(tmp_path):
        pass


def test_twice_in_one_process(tmp_path):
    """Where a second lock would be granted, and its end would end the first."""
    with own(tmp_path) as claim:
        with pytest.raises(UsageError, match="is in use by this process"), own(Path(f"{tmp_path}/../{tmp_path.name}")):
            pass
        claim.check()


def test_in_another_thread(tmp_path):
    refused = []

    def second() -> None:
        with pytest.raises(UsageError, match="is in use by this process"), own(tmp_path):
            pass
        refused.append(1)

    with own(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused


def test_a_lock_that_somebody_deletes(tmp_path):
    with own(tmp_path) as claim:
        (tmp_path / "lock").unlink()
        claim.check()
        (tmp_path / "lock").write_text("process 5 on mars\nx 1\n")
        with pytest.raises(LostRunError, match="was taken over by process 5 on mars"):
            claim.check()


@pytest.mark.parametrize(
    "text", ["", "\x00" * 50, "process", "process x on y\n1 2", "\xff" * 3000, "process 99999999999 on h\na 1"]
)
def test_whatever_stands_in_the_lock(tmp_path, text):
    (tmp_path / "lock").write_text(text, encoding="latin-1")
    with own(tmp_path) as claim:
        claim.check()
