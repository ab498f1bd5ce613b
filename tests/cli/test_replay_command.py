"""``emix replay``: films of a run's battles, and every way in which there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import emix
from emix.cli import main
from emix.cli.film import write_film
from emix.errors import UsageError
from emix.training import make_settings
from emix.training.settings import write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short run on a battle."""
    folder = tmp_path_factory.mktemp("replay") / "run"
    options = {
        "steps": 100,
        "num-envs": 2,
        "plan.batch-size": 2,
        "plan.buffer-size": 8,
        "test-envs": 2,
        "test-episodes": 2,
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    arguments += ["--env-option", "episode_limit=20"]
    assert main(["train", "iql", "battle/3m", *arguments, "--run-dir", str(folder)]) == 0
    return folder


def pictures(path: Path) -> int:
    with Image.open(path) as film:
        for number in range(film.n_frames):
            film.seek(number)
            film.load()
        return film.n_frames


def replay(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main(["replay", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["replay", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_gif(run, tmp_path, capsys):
    out = tmp_path / "new folder" / "film.gif"
    title, result, path = replay(capsys, run, out, "--pictures-per-step", "2")
    assert title.startswith("iql,env.episode_limit=20,num_envs=2,plan.batch_size=2,plan.buffer_size=8 on battle/3m ")
    assert title.endswith(" environment steps, 1 episodes")
    assert path == str(out)
    words = result.split(" after ")
    assert words[0] in ("won", "lost", "draw", "time limit")
    steps = int(words[1].split()[0])
    # Two pictures a step and the end. Equal neighbours are one picture of a GIF, and mostly somebody moves or shoots.
    assert 1.6 * steps < pictures(out) <= 2 * steps + 1
    assert list(out.parent.iterdir()) == [out]  # no draft is left

    assert main(["eval", str(run), "--episodes", "1"]) == 0  # the same episode
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("test_return_mean"))
    assert result.endswith(f", return {float(line.split()[1]):.2f}")

    again = tmp_path / "again.gif"
    assert replay(capsys, run, again, "--pictures-per-step", "2")[:2] == [title, result]
    assert again.read_bytes() == out.read_bytes()


def test_options(run, tmp_path, capsys):
    def film(name: str, *options: str) -> tuple[list[str], Path]:
        out = tmp_path / f"{name}.gif"
        lines = replay(capsys, run, out, "--pictures-per-step", "1", *options)
        return lines[1:-1], out

    results, short = film("short")
    assert len(results) == 1
    results, long = film("long", "--episodes", "2")
    assert len(results) == 2
    assert pictures(long) > pictures(short)
    _, explored = film("explored", "--explore", "--seed", "7")
    _, dark = film("dark", "--no-ranges", "--fps", "50")
    assert len({path.read_bytes() for path in (short, explored, dark)}) == 3
    with Image.open(short) as at_20, Image.open(dark) as at_50:
        assert (at_20.info["duration"], at_50.info["duration"]) == (50, 20)


def test_an_mp4(run, tmp_path, capsys):
    imageio = pytest.importorskip("imageio", reason='needs pip install "emix[replay]"')
    pytest.importorskip("imageio_ffmpeg", reason='needs pip install "emix[replay]"')
    out = tmp_path / "film.mp4"
    result = replay(capsys, run, out, "--pictures-per-step", "2")[1]
    steps = int(result.split(" after ")[1].split()[0])
    with imageio.get_reader(out) as film:
        assert film.count_frames() == 2 * steps + 30  # the end stays for 1.5 s
        assert film.get_meta_data()["fps"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film.avi"], "OUT expects a name that ends in .gif or .mp4, got 'film.avi'"),
        (["film"], "OUT expects a name that ends in .gif or .mp4, got 'film'"),
        (["folder.gif"], "OUT expects a file, folder.gif is a folder"),
        (["film.gif", "--episodes", "0"], "--episodes expects at least 1, got 0"),
        (["film.gif", "--pictures-per-step", "0"], "--pictures-per-step expects at least 1, got 0"),
        (["film.gif", "--fps", "0"], "--fps expects at least 1, got 0"),
    ],
)
def test_wrong_request(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.gif").mkdir()
    assert message in error(capsys, run, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.gif"]


def test_a_run_that_cannot_be_shown(tmp_path, capsys):
    out = tmp_path / "film.gif"
    assert "nowhere holds no run" in error(capsys, tmp_path / "nowhere", out)
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(folder, make_settings("iql", "battle/3m"), episode_limit=60)
    assert f"{folder} has no checkpoint yet" in error(capsys, folder, out)
    assert not out.exists()


GAMES = {
    "foraging/Foraging-5x5-2p-1f-v3": "iql",
    "lbf/Foraging-2s-5x5-2p-1f-v3": "iql",
    "prey/stag-hunt": "iql",
    "prey/macf": "iql",
    "prey/continuous-3a": "mappo",
    "matrix/msteps-5": "iql",
    "matrix/penalty-2x3": "iql",
    "matrix/penalty-3x4": "iql",
    "matrix/continuous": "mappo",
}


def train_shortly(algorithm: str, env: str, folder: Path, *more: str) -> None:
    train = ["train", algorithm, env, "--steps", "1", "--num-envs", "2", "--test-envs", "2", "--test-episodes", "2"]
    assert main([*train, "--run-dir", str(folder), *more]) == 0


@pytest.mark.parametrize(("env", "algorithm"), GAMES.items())
def test_a_film_of_a_game(env, algorithm, tmp_path, capsys):
    train_shortly(algorithm, env, tmp_path / "run")
    capsys.readouterr()
    out = tmp_path / "film.gif"
    title, result, _ = replay(capsys, tmp_path / "run", out)
    assert f" on {env} after " in title
    assert result.startswith(("ended after ", "time limit after "))
    steps = int(result.split()[-4])
    assert 1 <= pictures(out) <= steps + 1  # of which equal neighbours are one
    with Image.open(out) as film:
        assert film.info["duration"] % 250 == 0
        assert min(film.size) >= 200


def test_pictures_of_what_was_done():
    env = emix.make("matrix/penalty-2x3")
    with pytest.raises(UsageError, match="render was called before reset"):
        env.render()
    env.reset()
    before = env.render()
    env.step(torch.tensor([[0, 0]]))
    after = env.render()
    assert before.shape == after.shape
    assert (before != after).any()  # the cell that was chosen is lit


def test_runs_that_have_no_pictures(tmp_path, capsys):
    folder = tmp_path / "run"
    train_shortly("iql", "gym/CartPole-v1", folder, "--env-option", "episode_limit=5")
    message = error(capsys, folder, tmp_path / "film.gif")
    assert (
        f"{folder} plays gym/CartPole-v1: emix replay shows runs on battle, foraging, lbf, prey and matrix" in message
    )


def test_a_gif_is_written_while_it_is_drawn(tmp_path):
    """A film of 400 steps must not lie in memory."""
    out, sizes = tmp_path / "film.gif", []

    def drawn():
        noise = np.random.default_rng(0)
        for _ in range(40):
            draft = tmp_path / "film.new.gif"
            sizes.append(draft.stat().st_size if draft.exists() else 0)
            yield noise.integers(0, 255, (300, 300, 3), dtype=np.uint8)

    write_film(out, drawn(), [np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)], fps=20)
    assert sizes[20] > 0.3 * out.stat().st_size
    assert pictures(out) == 40


def test_equal_pictures_are_one_that_stays(tmp_path):
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    half = np.concatenate([black[:4], white[:4]])
    write_film(tmp_path / "film.gif", [black, black, half, white, white, white], [black, white], fps=10)
    shown = []
    with Image.open(tmp_path / "film.gif") as film:
        for number in range(film.n_frames):
            film.seek(number)
            shown.append((film.info["duration"], np.asarray(film.convert("L")).mean()))
    assert shown == [(200, 0), (100, 127.5), (300, 255)]


def test_an_mp4_without_its_packages(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("emix.cli.film.find_spec", lambda name: None)
    assert 'pip install "emix[replay]", or write a .gif' in error(capsys, run, tmp_path / "film.mp4")


def test_a_film_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch, capsys):
    def fail(path: Path, *rest: object) -> None:
        path.write_bytes(b"GIF89a")
        raise OSError(28, "No space left on device")

    out = tmp_path / "film.gif"
    out.write_bytes(b"old")
    monkeypatch.setattr("emix.cli.film._write_gif", fail)
    assert f"cannot write {out}: No space left on device; choose another file" in error(capsys, run, out)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("film.gif", b"old")]
    inside_a_file = out / "film.gif"
    assert f"cannot write {inside_a_file}: " in error(capsys, run, inside_a_file)
