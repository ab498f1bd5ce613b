import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from emix.errors import UsageError
from emix.training import make_settings, plot_runs
from emix.training.plot import draw_curves
from emix.training.settings import write_config


def make_run(folder: Path, algorithm: str, rows: list[dict], env: str = "matrix/msteps-5", **options) -> Path:
    folder.mkdir()
    write_config(folder, make_settings(algorithm, env, **options), episode_limit=5)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows(steps: list[int], values: list[float], metric: str = "test_return_mean") -> list[dict]:
    return [{"env_steps": step, metric: value} for step, value in zip(steps, values, strict=True)]


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "a", "smix", rows([0, 100, 205, 290], [0, 1, 2, 3])),
        make_run(tmp_path / "b", "smix", rows([0, 90, 200, 310], [1, 1, 3, 2])),
        make_run(tmp_path / "c", "iql", rows([0, 110, 190], [0, 0, 1])),
    ]


def check_picture(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # something is drawn, smoothly
    return pixels.shape[:2]


def test_several_seeds_and_algorithms(runs, tmp_path):
    out = tmp_path / "new folder" / "curve.png"
    assert plot_runs(runs, out) == out
    check_picture(out)


def test_one_run(runs, tmp_path):
    check_picture(plot_runs(runs[:1], tmp_path / "curve.png"))


def test_a_panel_for_each_environment(runs, tmp_path):
    one = check_picture(plot_runs(runs, tmp_path / "one.png"))
    other = make_run(tmp_path / "d", "smix", rows([0, 100], [0, 1]), env="matrix/msteps-4")
    two = check_picture(plot_runs([*runs, other], tmp_path / "two.png"))
    assert two[1] > 1.8 * one[1]


def test_many_environments_fill_a_grid(runs, tmp_path):
    one = check_picture(plot_runs(runs, tmp_path / "one.png"))
    others = [
        make_run(tmp_path / f"m{m}", "smix", rows([0, 100], [0, 1]), env=f"matrix/msteps-{m}") for m in (1, 2, 3, 4)
    ]
    five = check_picture(plot_runs([*runs, *others], tmp_path / "five.png"))
    assert five == pytest.approx((2 * one[0], 3 * one[1]), abs=2)


def test_configurations_are_lines_of_their_own(tmp_path, monkeypatch):
    """lambda 0.8 and lambda 0, both seed 1, are not two seeds of one line."""
    drawn = []
    monkeypatch.setattr("emix.training.plot.draw_curves", lambda panels, label, out, **_: drawn.append(panels))
    values = rows([0, 9], [1, 2])
    folders = [
        make_run(tmp_path / "a", "smix", values, training={"seed": 1}),
        make_run(tmp_path / "b", "smix", values, training={"seed": 1}, learner={"td_lambda": 0.0}),
        make_run(tmp_path / "c", "smix", values, training={"seed": 2, "steps": 7}),
        make_run(tmp_path / "d", "smix@foraging", values, env_options={"sight": 2}),
    ]
    plot_runs(folders, tmp_path / "x.png")
    (lines,) = (panels["matrix/msteps-5"] for panels in drawn)
    assert {name: len(curves) for name, curves in lines.items()} == {
        "smix": 2, "smix,td_lambda=0": 1, "smix@foraging,env.sight=2": 1
    }  # fmt: skip


def test_the_legend_says_what_the_band_is(runs, tmp_path, monkeypatch):
    labels = []
    original = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *args, **options: labels.append(options["label"]) or original(self, *args, **options)
    )
    plot_runs(runs, tmp_path / "x.png")
    assert labels == ["iql (1 seed)", "smix (mean, 95 % interval of 2 seeds)"]


def test_lines_of_one_colour_differ_in_dashes_and_mark(tmp_path, monkeypatch):
    """Of 14 methods no two look alike, and names come in the order that was asked for, then by the alphabet."""
    looks, curve = {}, [np.array([[0.0, 9.0], [1.0, 2.0]])]

    def plot(self, *args, label, **look):
        looks[label.removesuffix(" (1 seed)")] = look["color"], look["marker"], look["linestyle"]
        return original(self, *args, label=label, **look)

    original = Axes.plot
    monkeypatch.setattr(Axes, "plot", plot)
    methods = [f"m{i:02}" for i in range(14)]
    panels = {"one": dict.fromkeys(methods[:9], curve), "two": dict.fromkeys(methods[9:], curve)}
    draw_curves(panels, "test return", tmp_path / "x.png", order=["unknown", "m13", "m07"])
    assert list(looks) == ["m07", *methods[:7], "m08", "m13", *methods[9:13]]
    assert looks["m13"] == ("#0072B2", "o", "-")
    assert looks["m07"][1] == "s"
    assert len({(colour, mark) for colour, mark, _ in looks.values()}) == 14


def test_win_rate_is_the_default_where_every_run_has_it(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr("emix.training.plot.draw_curves", lambda panels, label, out, **_: labels.append(label))
    both = [{**a, **b} for a, b in zip(rows([0, 9], [1, 2]), rows([0, 9], [0, 1], "test_battle_won_mean"), strict=True)]
    won = make_run(tmp_path / "won", "smix", both)
    other = make_run(tmp_path / "other", "smix", rows([0, 9], [1, 2]))
    plot_runs([won], tmp_path / "x.png")
    plot_runs([won, other], tmp_path / "x.png")
    plot_runs([won], tmp_path / "x.png", metric="test_return_mean")
    assert labels == ["test win rate", "test return", "test return"]


def test_errors(runs, tmp_path):
    with pytest.raises(UsageError, match="has no metric 'loss': expected one of test_return_mean"):
        plot_runs(runs, tmp_path / "x.png", metric="loss")
    with pytest.raises(UsageError, match="nothing holds no run"):
        plot_runs([tmp_path / "nothing"], tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"cannot write .*x\.png: .*; choose another file with --out"):
        plot_runs(runs, runs[0] / "config.yaml" / "x.png")


def test_a_line_for_each_agent(tmp_path, monkeypatch):
    """``target_entropy`` stands for target_entropy_0, target_entropy_1, ... of every configuration."""
    labels = []
    plotted = Axes.plot

    def plot(self, *args, **kwargs):
        labels.append(kwargs["label"])
        return plotted(self, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", plot)
    made = [
        {"env_steps": step, "target_entropy_0": -0.7, "target_entropy_1": -1.3, "alpha_0": 0.1} for step in (0, 100)
    ]
    folders = [make_run(tmp_path / name, "ader@matrix", made, env="matrix/continuous") for name in "ab"]
    check_picture(plot_runs(folders, tmp_path / "curve.png", metric="target_entropy"))
    assert labels == [f"ader@matrix, agent {k} (mean, 95 % interval of 2 seeds)" for k in range(2)]
    labels.clear()
    plot_runs(folders[:1], tmp_path / "curve.png", metric="target_entropy_1")
    assert labels == ["ader@matrix (1 seed)"]


@pytest.mark.parametrize("backend", ["nonsense", "module://nowhere.at_all", "", "svg"])
def test_a_backend_of_another_process_changes_nothing(runs, tmp_path, backend):
    """A notebook's MPLBACKEND; and what draws here leaves it to those who import matplotlib afterwards."""
    code = (
        "import os, sys; from pathlib import Path; from emix.training import plot_runs\n"
        "plot_runs([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "import matplotlib; print(os.environ['MPLBACKEND'], dict.__getitem__(matplotlib.rcParams, 'backend') == 'svg')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs[0]), str(tmp_path / "out.png")],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"{backend} {backend == 'svg'}\n"), done.stderr
    check_picture(tmp_path / "out.png")


BEGINNINGS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8\xff", "eps": b"%!PS"}


@pytest.mark.parametrize("ending", BEGINNINGS)
def test_the_format_is_that_of_the_files_name(runs, tmp_path, ending):
    out = plot_runs(runs, tmp_path / f"x.{ending}")
    assert out.read_bytes().startswith(BEGINNINGS[ending])


def test_a_format_that_there_is_not(runs, tmp_path):
    with pytest.raises(UsageError, match=r"x\.txt: a picture's name ends in \.png, \.pdf, .* got \.txt"):
        plot_runs(runs, tmp_path / "x.txt")


def test_a_folder_of_runs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("emix.training.plot.draw_curves", lambda panels, label, out, **_: drawn.append(panels))
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    make_run(tmp_path / "runs" / "deep" / "1", "smix", rows([0, 9], [1, 2]))
    make_run(tmp_path / "runs" / "2", "smix", rows([0, 9], [1, 2]))
    (make_run(tmp_path / "runs" / "3", "smix", []) / "metrics.jsonl").unlink()  # just started
    plot_runs([tmp_path / "runs", tmp_path / "runs" / "2"], tmp_path / "x.png")
    assert {name: len(curves) for name, curves in drawn[0]["matrix/msteps-5"].items()} == {"smix": 2}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no run"):
        plot_runs([tmp_path / "empty"], tmp_path / "x.png")


@pytest.fixture
def axes(monkeypatch):
    """Every panel's axes."""
    found = []
    monkeypatch.setattr("emix.training.plot.save_figure", lambda figure, out: found.extend(figure.axes))
    return found


def test_a_rate_stays_between_0_and_1(tmp_path, axes):
    won = [
        make_run(tmp_path / name, "smix", rows([0, 9], [0, last], "test_battle_won_mean"))
        for name, last in (("a", 0.1), ("b", 1.0))
    ]
    plot_runs(won, tmp_path / "x.png")
    assert axes[0].get_ylim() == (-0.02, 1.02)
    (band,) = axes[0].collections
    assert (band.get_datalim(axes[0].transData).y0, band.get_datalim(axes[0].transData).y1) == (0, 1)
    plot_runs(won, tmp_path / "x.png", metric="env_steps")
    assert axes[1].get_ylim()[1] > 9


def test_lines_that_cover_each_other_have_marks(runs, tmp_path, axes):
    same = make_run(tmp_path / "d", "qmix", rows([0, 110, 190], [0, 0, 1]))
    plot_runs([*runs, same], tmp_path / "x.png")
    assert len({line.get_marker() for line in axes[0].lines}) == 3
    plot_runs(runs[:1], tmp_path / "x.png")
    assert axes[1].lines[0].get_marker() in ("None", None, "")


@pytest.mark.parametrize(("interval", "words"), [("iqm", "IQM, quartiles"), ("std", "mean, std")])
def test_intervals(runs, tmp_path, axes, interval, words):
    plot_runs(runs, tmp_path / "x.png", interval=interval)
    assert f"smix ({words} of 2 seeds)" in [line.get_label() for line in axes[0].lines]
    with pytest.raises(UsageError, match="interval expects 95, iqm, std, got '90'"):
        plot_runs(runs, tmp_path / "x.png", interval="90")
