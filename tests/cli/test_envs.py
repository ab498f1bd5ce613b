"""``emix envs``, names that nearly match, and help that fits 80 columns."""

from __future__ import annotations

import pytest

from emix.cli import main
from emix.envs.battle.options import BattleOptions
from emix.envs.options import described
from emix.errors import near


def test_families_are_sorted_and_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if line and not line.startswith(" ") and "/" in line and "`" not in line]
    assert names == sorted(names)
    assert {"battle/<map>", "gym/<id>", "pettingzoo/<module>"} <= set(names)
    assert [line for line in lines if len(line) > 80 and "not installed" not in line] == []  # those are to be copied


def test_a_familys_names(capsys):
    assert main(["envs", "matrix"]) == 0
    out = capsys.readouterr().out
    assert "matrix/msteps-5" in out
    assert "matrix/penalty-2x3" in out
    assert "battle" not in out


def test_one_environment(capsys):
    assert main(["envs", "battle/2s3z"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    sizes = {"agents         5", "actions        Discrete(n=11)", "observation    80", "state          120"}
    assert sizes <= set(lines)
    assert {"reward=dense", "spawn_jitter=0.1", "episode_limit=null", "obs_last_action=false"} <= set(lines)
    assert "dense (SMAC's), sparse, or sparse_deaths (ADER's)." in lines


def test_every_option_of_battles_has_its_default():
    assert {name: option.default for name, option in described(BattleOptions).items()} == vars(BattleOptions())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["envs", "2s3z"], "unknown environment '2s3z': did you mean battle/2s3z, sc2/2s3z or smac/2s3z?"),
        (["envs", "battle/3M"], "did you mean battle/3m"),
        (["train", "MAPPO", "battle/3m"], "unknown algorithm 'MAPPO': did you mean mappo"),
        (["train", "perla_mappo", "battle/3m"], "did you mean perla-mappo"),
        (["trian"], "did you mean `emix train`?"),
    ],
)
def test_names_that_nearly_match(arguments, hint, capsys):
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err


def test_the_last_part_of_a_name_comes_first():
    assert near("3m", ["battle/8m", "battle/3m", "x/y"]) == ["battle/3m"]
    assert near("Ensemble_Mix", ["ensemble-mix", "dop"]) == ["ensemble-mix"]
    assert near("", ["dop"]) == []


@pytest.mark.parametrize("command", ["train", "train ader", "resume", "sweep", "eval", "plot", "replay", "envs"])
def test_help_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: emix {command.split()[0]} ")
    assert [line for line in lines if len(line) > 80] == []
