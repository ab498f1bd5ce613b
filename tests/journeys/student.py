"""A student of MARL finds an environment, trains, looks, loads, films, compares: python -m tests.journeys.student."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.journeys.steps import emix, python, travel

SHORT = ("--plan.batch-size", 8, "--plan.buffer-size", 200, "--test-episodes", 4, "--log-interval", 100)
RUN = Path("runs/smix,plan.batch_size=8,plan.buffer_size=200/matrix/msteps-5/1")


def look(folder: Path) -> None:
    """Which environments are there? The name of a map is not the whole name, and is found all the same."""
    assert "battle/<map>" in emix("envs", folder=folder)
    assert "did you mean battle/2s3z" in emix("envs", "2s3z", folder=folder, code=2)
    text = emix("envs", "battle/2s3z", folder=folder)
    assert "agents         5" in text
    assert "reward=dense" in text


def train(folder: Path) -> None:
    """Train, and see how long it will take, what is learned from, and the curve."""
    text = emix("train", "smix", "matrix/msteps-5", "--steps", 600, "--seed", 1, *SHORT, folder=folder)
    assert "steps: 600" in text
    assert "test return" in text
    assert str(RUN / "curve.png") in text


def plot(folder: Path) -> None:
    """Draw a folder of runs for a paper."""
    emix("plot", "runs", "--out", "curve.pdf", "--interval", "iqm", folder=folder)
    assert (folder / "curve.pdf").read_bytes().startswith(b"%PDF")


def load(folder: Path) -> None:
    """Play the trained policy in ten lines of Python."""
    code = f"""
import emix

policy = emix.load({str(RUN)!r})
env = policy.make_env(num_envs=4)
step, memory, total = env.reset(), policy.initial_memory(4), 0.0
while not step.done.all():
    actions, memory, _ = policy.act(step, memory)
    step = env.step(actions)
    total += float(step.reward.mean())
print(policy.settings.learner.td_lambda, total)
"""
    td_lambda, total = map(float, python(code, folder=folder).split())
    summary = json.loads((folder / RUN / "summary.json").read_text())
    assert (td_lambda, total) == (0.8, summary["test_return_mean"])  # the game has no chance


def film(folder: Path) -> None:
    """See the policy play."""
    emix("replay", RUN, "film.gif", folder=folder)
    with Image.open(folder / "film.gif") as picture:
        assert picture.is_animated


def sweep(folder: Path) -> None:
    """Compare two algorithms with two seeds each; the sweep ends with a table and a picture."""
    text = emix("sweep", "iql,vdn", "matrix/penalty-2x3", "--seeds", "1-2", "--steps", 200, *SHORT, folder=folder)
    assert "test return" in text
    assert (folder / "runs" / "sweep.png").exists()


def battle(folder: Path) -> None:
    """Train on a battle until it is mostly won, and film it (about ten minutes)."""
    emix("train", "smix", "battle/3m", "--steps", 300_000, "--seed", 1, folder=folder)
    run = folder / "runs/smix/battle/3m/1"
    assert json.loads((run / "summary.json").read_text())["test_battle_won_mean"] > 0.5
    emix("replay", run, "battle.gif", folder=folder)


if __name__ == "__main__":
    travel("student", (look, train, plot, load, film), (sweep, battle))
