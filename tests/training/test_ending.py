"""When a run is finished, wherever it was stopped; and what decides nothing of it."""

from __future__ import annotations

import builtins
import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import emix
from emix.cli import main
from emix.errors import UsageError
from emix.training import checkpoint, read_rows, read_settings
from emix.training.deterministic import deterministic
from emix.training.folder import finished, read_summary
from emix.training.progress import Progress
from emix.training.running import Run
from emix.training.signals import StopRequest

ENV = "matrix/penalty-2x3"
OPTIONS = {"plan": {"batch_size": 4, "buffer_size": 50}, "test_episodes": 4, "quiet": True}
QUICK = ["--plan.batch-size", "4", "--plan.buffer-size", "50", "--test-episodes", "4"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run of 40 environment steps."""
    return emix.train("vdn", ENV, steps=40, run_dir=tmp_path / "run", **OPTIONS).folder


def test_killed_before_its_summary(folder, capsys):
    """Everything goes on with it, and says that it is finished then."""
    whole = json.loads((folder / "summary.json").read_text())
    metrics = (folder / "metrics.jsonl").read_bytes()
    for again in (
        lambda: main(["resume", str(folder)]),
        lambda: main(["resume", str(folder), "--steps", "40"]),
        lambda: emix.train("vdn", ENV, steps=40, run_dir=folder, resume=True, **OPTIONS) and 0,
    ):
        (folder / "summary.json").unlink()
        assert finished(folder) is None
        assert again() == 0
        summary = json.loads((folder / "summary.json").read_text())
        assert {**summary, "seconds": 0} == {**whole, "seconds": 0}
        assert finished(folder) == finished(folder, 40) == summary
        assert finished(folder, 41) is None
        assert (folder / "metrics.jsonl").read_bytes() == metrics
    assert main(["resume", str(folder), "--steps", "40"]) == 0
    assert "is finished (40 environment steps)" in capsys.readouterr().out


def test_a_sweep_over_a_run_that_was_killed_before_its_summary(tmp_path, capsys):
    arguments = ["sweep", "vdn", ENV, "--seeds", "1", "--steps", "40", "--runs", str(tmp_path), *QUICK]
    assert main(arguments) == 0
    summary = next(tmp_path.rglob("summary.json"))
    summary.unlink()
    assert main(arguments) == 0
    assert read_summary(summary.parent)["env_steps"] == 40
    assert main(arguments) == 0
    assert "1 runs, 1 of them finished before" in capsys.readouterr().out


@pytest.mark.parametrize("log_interval", [1, 10_000])
def test_a_run_that_was_stopped_ends_where_it_was_stopped(tmp_path, run, log_interval):
    """``resume --steps <what is done>``: the evaluation that it lacks is made, once."""
    stop = StopRequest()

    def ask(env_steps: int) -> None:
        if env_steps > 30:
            stop.signal = signal.SIGTERM

    settings = run.settings("vdn", ENV, steps=400, log_interval=log_interval, test_interval=10_000)
    done = run(tmp_path, settings, hook=ask, stop=stop).counters.env_steps
    assert main(["resume", str(tmp_path), "--steps", str(done)]) == 0
    summary = read_summary(tmp_path)
    assert (summary["env_steps"], read_settings(tmp_path).training.steps) == (done, done)
    assert read_rows(tmp_path)[-1]["test_return_mean"] == summary["test_return_mean"]
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "summary.json").unlink()
    assert main(["resume", str(tmp_path)]) == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert read_summary(tmp_path)["test_return_mean"] == summary["test_return_mean"]


def test_stopped_before_it_began(tmp_path, run):
    stop = StopRequest()
    stop.signal = signal.SIGINT
    assert run(tmp_path, stop=stop).counters.env_steps == 0
    assert not read_rows(tmp_path)
    whole = run(tmp_path / "whole")
    assert run(tmp_path).counters == whole.counters or whole.counters.env_steps
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


class Gone(io.StringIO):
    """What a pipe is whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class Closed(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.close()


class Ascii(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")


class Terminal(Gone):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("output", [Gone, Closed, Ascii, Terminal])
def test_what_is_shown_decides_nothing(tmp_path, monkeypatch, output, folder):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, output())
    arguments = ["--steps", "40", *QUICK, "--run-dir", str(tmp_path / "λ")]
    code = main(["train", "vdn", ENV, *arguments])
    monkeypatch.undo()
    assert code == 0
    assert (tmp_path / "λ" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert finished(tmp_path / "λ") is not None


def test_nor_do_a_curve_and_tensorboard(tmp_path, monkeypatch, capsys, folder):
    original = builtins.__import__

    def refuse(name: str, *rest, **options):
        if name.startswith(("matplotlib", "torch.utils.tensorboard")):
            raise ValueError("Key backend: 'module://nowhere' is not a valid value")
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["train", "vdn", ENV, "--steps", "40", *QUICK, "--run-dir", str(tmp_path / "other")]) == 0
    out = capsys.readouterr().out
    assert "note: no TensorBoard events from here on: Key backend" in out
    assert "note: no curve.png: Key backend" in out
    assert finished(tmp_path / "other") is not None
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_commands_in_a_thread(tmp_path):
    codes = []
    arguments = [
        ["train", "vdn", ENV, "--steps", "20", *QUICK, "--run-dir", str(tmp_path / "run")],
        ["resume", str(tmp_path / "run"), "--steps", "40"],
        ["sweep", "vdn", ENV, "--seeds", "1", "--steps", "20", "--runs", str(tmp_path / "runs"), *QUICK],
        ["eval", str(tmp_path / "run"), "--episodes", "4"],
    ]
    thread = threading.Thread(target=lambda: codes.extend(main(each) for each in arguments))
    thread.start()
    thread.join()
    assert codes == [0, 0, 0, 0]


def test_trainings_side_by_side_give_torch_back_as_the_first_has_found_it():
    torch.set_num_threads(2)
    cpu = torch.device("cpu")
    first, second = deterministic(1, cpu), deterministic(3, cpu)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.are_deterministic_algorithms_enabled()
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


MEMORY = """
from pathlib import Path
import torch
from emix.training import memory


def resident():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Rss:")))  # KiB


def left_by_a_block():  # of 200 MB
    before = resident()
    torch.ones(50_000_000)
    return resident() - before


with memory.freed_memory_kept():
    print(left_by_a_block())
print(left_by_a_block())
"""


def test_the_c_library_gives_memory_back_again():
    """In a process where nothing was kept before: while it is kept, a block's pages stay with the process."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept > 150_000
    assert given_back < 50_000


def test_a_run_goes_on_on_another_kind_of_device(tmp_path, folder, capsys):
    """As a CUDA run does without a GPU: its checkpoint says cuda, and its generators have a state of 16 bytes."""
    path = folder / "checkpoint"
    manifest = checkpoint.read_manifest(path)
    training = checkpoint.load(path, manifest, "training")
    training["source.random_actor.generator"] = torch.arange(16, dtype=torch.uint8)
    header = {name: manifest[name] for name in ("settings", "counters", "offsets", "digests", "replay", "taken")}
    header["settings"]["training"] |= {"device": "cuda", "precision": "tf32"}
    keep = [name for name in manifest["parts"] if name != "training"]
    checkpoint.save(path, header, {"training": training}, keep)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda").replace("float32", "tf32"))

    assert main(["resume", str(folder), "--steps", "60"]) == 2
    assert "use --device cpu" in capsys.readouterr().err
    assert main(["resume", str(folder), "--steps", "60", "--device", "cpu"]) == 0
    assert "note: the checkpoint was made on cuda, this is cpu: the numbers will differ" in capsys.readouterr().out
    assert finished(folder)["env_steps"] == 60
    settings = read_settings(folder).training
    assert (settings.device, settings.precision, settings.steps) == ("cpu", "float32", 60)
    assert main(["resume", str(folder), "--steps", "80"]) == 0


def test_a_map_of_ones_own(tmp_path, monkeypatch, capsys):
    """Given by a path from the working folder: the run has copies, and needs neither the file nor the folder."""
    package = Path(emix.envs.battle.__file__).parent
    monkeypatch.chdir(tmp_path)
    for name, source in (("mine", "maps/3m"), ("balance", "balance/liberty")):
        (tmp_path / f"{name}.yaml").write_text((package / f"{source}.yaml").read_text())
    options = {"episode_limit": 8, "balance": "balance.yaml"}
    small = {"plan": {"batch_size": 2, "buffer_size": 8}, "test_episodes": 4, "quiet": True}
    first = emix.train("vdn", "battle/mine.yaml", steps=40, run_dir="run", env_options=options, **small)
    for name in ("mine", "balance"):
        (tmp_path / f"{name}.yaml").write_text("limit: none of it any more")
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert emix.load(tmp_path / "moved").spec.episode_limit == 8
    assert main(["eval", str(tmp_path / "moved"), "--episodes", "4"]) == 0
    assert main(["resume", str(tmp_path / "moved"), "--steps", "80"]) == 0
    capsys.readouterr()
    copy = next((tmp_path / "moved" / "files").iterdir())
    copy.write_text("other")
    assert main(["eval", str(tmp_path / "moved")]) == 2
    assert "is not the copy of" in capsys.readouterr().err
    assert first.summary["env_steps"] >= 40


def test_the_same_run_with_another_map_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(emix.envs.battle.__file__).parent / "maps" / "3m.yaml").read_text()
    Path("mine.yaml").write_text(text)
    small = {"plan": {"batch_size": 2, "buffer_size": 8}, "test_episodes": 4, "quiet": True}
    options = {"steps": 20, "env_options": {"episode_limit": 5}, "resume": True, **small}
    emix.train("vdn", "battle/mine.yaml", run_dir="run", **options)
    Path("mine.yaml").write_text(text.replace("limit: 60", "limit: 61"))
    with pytest.raises(UsageError, match=r"holds a run with files\.mine\.yaml"):
        emix.train("vdn", "battle/mine.yaml", run_dir="run", **options)


def test_home_in_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = emix.train("vdn", ENV, steps=20, runs="~/runs", **OPTIONS)
    assert str(result.folder).startswith(f"{tmp_path}/runs/")
    name = f"~/{result.folder.relative_to(tmp_path)}"
    assert emix.load(name).env_steps == 20
    for command in (["eval", name, "--episodes", "4"], ["resume", name], ["plot", name, "--out", "~/curve.png"]):
        assert main(command) == 0
    assert (tmp_path / "curve.png").exists()
    assert main(["train", "vdn", ENV, "--steps", "20", *QUICK, "--run-dir", "~/other"]) == 0
    assert (tmp_path / "other" / "summary.json").exists()


def test_an_old_configuration_says_what_to_do(folder):
    config = folder / "config.yaml"
    text = config.read_text().replace("  num_envs:", "  batch_episodes: 4\n  num_envs:")
    config.write_text(text.replace("emix: 0.1.0", "emix: 0.0.7"))
    message = r"unknown training settings batch_episodes.*emix 0\.0\.7 wrote it.* use that one, or train again"
    with pytest.raises(UsageError, match=message):
        read_settings(folder)


def test_the_pieces_still_fit_together(tmp_path, run):
    """As docs/training.md has them."""
    with Run.create(tmp_path / "run", run.settings("vdn", ENV, steps=20)) as made:
        emix.training.loop.train(made, Progress(20, output=io.StringIO()), StopRequest())
    assert made.manifest["counters"]["env_steps"] == 20
