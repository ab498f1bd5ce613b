"""``--import``: a learner and its recipes that are in a file of the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import copy
from pathlib import Path

import pytest

from emix import learners, plugins
from emix.cli import main
from emix.envs import registry
from emix.training import read_settings

MODULE = '''
"""Independent learners under another name, with a recipe."""
from pathlib import Path

from emix.learners import register_learner
from emix.learners.value import ValueConfig, ValueLearner

register_learner("mine", ValueLearner, ValueConfig, Path(__file__).parent / "recipes")
'''
RECIPE = """
version: 3
source: a test
learner: {mixer: none, target: max, plan: {batch_size: 4, buffer_size: 50}}
training: {num_envs: 2, test_envs: 2, test_episodes: 2, steps: 40}
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "code"
    (folder / "recipes").mkdir(parents=True)
    (folder / "my_learner.py").write_text(MODULE)
    (folder / "recipes" / "quick.yaml").write_text(RECIPE)
    yield folder / "my_learner.py"
    learners._ALGORITHMS.pop("mine", None)
    sys.modules.pop("my_learner", None)


def emix(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which has imported nothing before."""
    command = [sys.executable, "-m", "emix", *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)


def test_a_learner_of_ones_own(module, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "mine@quick", "matrix/penalty-2x3", "--import", str(module), "--run-dir", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("mine@quick (recipe mine@quick, version 3) on matrix/penalty-2x3, seed 0")
    assert read_settings(folder).imports == (str(module),)
    assert read_settings(folder).name == "mine@quick"

    # The account that named the module need not do so again; another one must.
    film, picture = tmp_path / "film.gif", tmp_path / "curves.png"
    for arguments in (["eval", folder, "--episodes", 2], ["plot", folder, "--out", picture], ["resume", folder]):
        done = emix(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert picture.exists()
    stranger = {"XDG_CONFIG_HOME": str(tmp_path / "stranger")}
    for arguments in (["eval", folder], ["plot", folder], ["resume", folder], ["replay", folder, film]):
        done = emix(*arguments, **stranger)
        assert done.returncode == 2
        assert f"{folder} was trained with --import {module}, which nobody on this account has imported" in done.stderr
    assert emix("eval", folder, "--episodes", 2, "--import", module, **stranger).returncode == 0
    assert emix("eval", folder, "--episodes", 2, **stranger).returncode == 0


def test_a_sweep_with_a_learner_of_ones_own(module, tmp_path, capsys):
    arguments = ["sweep", "mine@quick", "matrix/penalty-2x3", f"--import={module}", "--learner.gamma", "0.5,0.99"]
    assert main([*arguments, "--seeds", "1", "--runs", str(tmp_path / "runs")]) == 0
    rows = json.loads((tmp_path / "runs" / "sweep.json").read_text())["results"]
    assert [(row["algorithm"], row["configuration"], len(row["values"])) for row in rows] == [
        ("mine@quick", "gamma=0.5", 1),
        ("mine@quick", "", 1),
    ]


def test_without_the_import_there_is_no_such_algorithm(capsys):
    assert main(["train", "mine@quick", "matrix/penalty-2x3"]) == 2
    assert "unknown algorithm 'mine'" in capsys.readouterr().err


def test_the_example_is_trained_evaluated_drawn_resumed_and_swept(tmp_path, monkeypatch, capsys):
    """examples/own_learner.py: an environment and a learner (IPPO, on policy) of one's own."""
    example = Path(__file__).parents[2] / "examples" / "own_learner.py"
    monkeypatch.chdir(tmp_path)
    for module, name in ((learners, "_ALGORITHMS"), (registry, "_registered"), (plugins, "_files")):
        monkeypatch.setattr(module, name, copy(getattr(module, name)))  # other tests shall not find them
    short = ["--import", str(example), "--num-envs", "16", "--test-interval", "400", "--log-interval", "400"]
    assert main(["train", "own-ippo", "cues/3", "--steps", "640", "--seed", "1", *short]) == 0
    run = tmp_path / "runs" / "own-ippo,num_envs=16" / "cues" / "3" / "1"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (rows[-1]["episodes"], rows[-1]["updates"]) == (128, 2)  # 64 fresh episodes an update, from 16 environments
    assert main(["eval", str(run), "--episodes", "8"]) == 0
    assert "return_mean" in capsys.readouterr().out
    assert main(["resume", str(run), "--steps", "1280"]) == 0
    assert main(["sweep", "own-ippo", "cues/3", "--seeds", "1-2", "--steps", "1280", "--jobs", "2", *short]) == 0
    assert main(["plot", str(run), str(run.with_name("2"))]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 10_000
