"""Every wrong request: exit code 2, one sentence that says what is wrong and what to do, and nothing overwritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emix.cli import main
from emix.training import make_settings
from emix.training.settings import write_config


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command printed to stderr, on one line; it must have ended with 2."""
    try:
        code = main(arguments)
    except SystemExit as exit:  # how tyro leaves
        code = exit.code
    output = capsys.readouterr()
    assert code == 2, output
    assert "Traceback" not in output.err
    return " ".join(output.err.replace("│", " ").split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has not begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(folder, make_settings("iql", "matrix/msteps-5", training={"steps": 100}), episode_limit=5)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean `emix train`?"),
        (
            ["xyzzy"],
            "unknown command 'xyzzy': expected one of train, resume, sweep, eval, plot, report, reproduce, replay, "
            "bench, sc2, envs, doctor",
        ),
        (["train"], "expects ALGORITHM ENV first, such as `emix train smix matrix/msteps-5 --seed 1`, got 'nothing'"),
        (["train", "--seed", "1"], "expects ALGORITHM ENV first"),
        (["train", "smx", "matrix/msteps-5"], "unknown algorithm 'smx': did you mean smix"),
        (["train", "smix@papre", "matrix/msteps-5"], "unknown recipe 'smix@papre': did you mean smix@paper"),
        (["train", "smix"], "Missing from emix train: ENV"),
        (["train", "smix", "matrix/mstep-5"], "unknown environment 'matrix/mstep-5': did you mean matrix/msteps-5"),
        (["train", "smix", "matrix/msteps-1"], "the game needs at least 2 steps"),
        (["train", "smix", "matrix/msteps-5", "--setps", "9"], "Unrecognized options: --setps, 9"),
        (["train", "smix", "matrix/msteps-5", "--setps", "9"], "Perhaps you meant: --steps INT"),
        (["train", "smix", "matrix/msteps-5", "--learner.lrr", "9"], "Perhaps you meant: --learner.lr FLOAT"),
        (["train", "smix", "matrix/msteps-5", "--steps", "many"], "invalid literal for int() with base 10: 'many'"),
        (["train", "smix", "matrix/msteps-5", "--steps", "0"], "steps expects at least 1, got 0"),
        (["train", "smix", "matrix/msteps-5", "--num-envs", "-4"], "num_envs expects at least 1, got -4"),
        (["train", "smix", "matrix/msteps-5", "--test-episodes", "7"], "got 7 and 4"),
        (["train", "smix", "matrix/msteps-5", "--learner.lr", "-1"], "lr: expected a number above 0, got -1.0"),
        (["train", "smix", "matrix/msteps-5", "--learner.mixer", "qmx"], "invalid choice 'qmx'"),
        (
            ["train", "smix", "matrix/msteps-5", "--learner.plan.batch-size", "9"],
            "Perhaps you meant: --plan.batch-size",
        ),
        (["train", "smix", "matrix/msteps-5", "--plan.batch-size", "0"], "batch_size expects an integer of at least 1"),
        (
            ["train", "smix", "matrix/msteps-5", "--plan.buffer-size", "31"],
            "buffer_size expects at least batch_size (32)",
        ),
        (
            ["train", "smix", "matrix/msteps-5", "--plan.batch-size", "2", "--plan.buffer-size", "3"],
            "plan.buffer_size expects room for a rollout, 4 episodes of 4 environments, got 3",
        ),
        (["train", "smix", "matrix/msteps-5", "--import", "nowhere.py"], "--import nowhere.py: there is no such file"),
        (["plot", "nowhere", "--import", "no_such_module"], "--import no_such_module fails (ModuleNotFoundError"),
        (["train", "smix", "matrix/msteps-5", "--device", "gpu"], "device expects cpu, cuda or cuda:<number>, got"),
        (["train", "smix", "matrix/msteps-5", "--precision", "bf16"], "precision bf16 needs a GPU: on device 'cpu' it"),
        (["train", "smix", "matrix/msteps-5", "--precision", "fp16"], "invalid choice 'fp16'"),
        (["bench", "update", "--precision", "tf32", "--device", "cpu"], "precision tf32 needs a GPU: on device 'cpu'"),
        (["train", "smix", "matrix/msteps-5", "--device", "cuda:99"], "device 'cuda:99' is not there: torch"),
        (["eval"], "Missing from emix eval: RUN"),
        (["eval", "nowhere"], "nowhere holds no run: expected a folder with config.yaml"),
        (["resume", "nowhere"], "nowhere holds no run: expected a folder with config.yaml"),
        (["plot"], "expects the folder of at least one run"),
        (["plot", "nowhere"], "nowhere holds no run: expected a folder with metrics.jsonl"),
        (["envs", "--all"], "Unrecognized options: --all"),
        (["sc2"], "Missing from emix sc2: WHAT"),
        (["sc2", "chekc"], "invalid choice 'chekc'"),
        (["sc2", "check", "--script", "betwen"], "unknown script 'betwen', did you mean between?"),
        (["sc2", "check", "--seed", "-1"], "seed must be an integer from 0 to 2^63 - 1, got -1"),
    ],
)
def test_wrong_request(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in error(capsys, *arguments)
    assert not list(tmp_path.iterdir())  # no folder is left behind


def test_a_folder_that_holds_a_run(capsys, folder):
    before = tree(folder)
    message = error(capsys, "train", "smix", "matrix/msteps-5", "--run-dir", str(folder))
    assert f"{folder} already holds a run: continue it with `emix resume {folder}`" in message
    assert tree(folder) == before


def test_a_folder_that_cannot_be_written(capsys, folder):
    inside_a_file = str(folder / "config.yaml" / "runs")
    message = error(capsys, "train", "smix", "matrix/msteps-5", "--run-dir", inside_a_file)
    assert f"cannot write the run folder {inside_a_file}: Not a directory; choose another with --runs" in message


def test_a_damaged_config(capsys, folder):
    (folder / "config.yaml").write_text("algorithm: 5\n")
    for command in ("resume", "eval"):
        assert "config.yaml is not the configuration of an emix run" in error(capsys, command, str(folder))


def test_a_run_without_checkpoint_cannot_be_evaluated(capsys, folder):
    assert f"{folder} has no checkpoint yet" in error(capsys, "eval", str(folder))
    for count in ("0", str(10**20)):
        told = error(capsys, "eval", str(folder), "--episodes", count)
        assert f"--episodes expects 1 to 1,000,000, got {count}" in told


def test_a_lost_checkpoint_does_not_cost_the_metrics(capsys, folder):
    (folder / "metrics.jsonl").write_text('{"env_steps": 100000}\n')
    before = tree(folder)
    assert f"{folder} has no checkpoint any more" in error(capsys, "resume", str(folder))
    (folder / "config.yaml").unlink()
    assert f"{folder} already holds a run" in error(
        capsys, "train", "smix", "matrix/msteps-5", "--run-dir", str(folder)
    )
    assert (folder / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]


@pytest.mark.parametrize("text", ["", '{"format": 3}', '{"format": 2, "parts": {}}'])
def test_a_foreign_checkpoint(capsys, folder, text):
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "manifest.json").write_text(text)
    before = tree(folder)
    for command in ("resume", "eval"):
        assert "manifest.json" in error(capsys, command, str(folder))
    assert tree(folder) == before


def test_the_command_itself(tmp_path):
    """In processes of their own: the exit code and stderr that a shell sees, and what is not imported."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    wrong = run("-m", "emix", "train", "smix", "matrix/mstep-5")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr == (
        "emix: unknown environment 'matrix/mstep-5': did you mean "
        "matrix/msteps-5, matrix/msteps-9 or matrix/msteps-8?\n"
    )
    quick = run(
        "-c",
        "import sys; from emix.cli import main\n"
        "assert main(['--version']) == main([]) == main(['envs']) == 0\n"
        "assert 'torch' not in sys.modules",
    )
    assert quick.returncode == 0, quick.stderr
    lines = quick.stdout.splitlines()
    assert lines[0].startswith("emix ")
    assert lines[1] == "usage: emix COMMAND [...]"
    assert "matrix/msteps-<m>" in lines
