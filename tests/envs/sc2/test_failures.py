"""Games that are lost: what is told, that nothing is left, and that training goes on."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import emix
from emix.envs import EnvWorkerError
from emix.errors import UsageError
from emix.playing import RandomActor, collect
from tests.sc2_standin.failures import fail, running


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where games put their folders."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_dozen_failures(temporary, monkeypatch, capfd):
    monkeypatch.setenv("SC2PATH", "")
    faults = fail(temporary / "StarCraftII", count=12, num_envs=2)
    assert faults == {"die": 3, "cut": 3, "silence": 3, "nonsense": 3}
    assert not list(temporary.glob("emix-sc2-*/"))
    assert capfd.readouterr().err.count("the episode is thrown away, another game takes its place") >= 12


def test_a_game_that_never_works(house, temporary):
    made = house(fault=lambda game, kind: "die" if kind == "game_info" else None)
    env = emix.make("sc2/3m", most_failures=2)
    with pytest.raises(EnvWorkerError, match=r"3 failures in a row \(most_failures is 2\), .*the connection was lost"):
        env.reset()
    assert len(made.games) == 3
    assert not running(made)


def test_restarts_and_replays(house, tmp_path):
    made = house(episode_limit=3)
    options = {"restart_every": 2, "replay_every": 2, "replay_dir": str(tmp_path / "replays"), "episode_limit": 3}
    env = emix.make("sc2/3m", **options)
    actor = RandomActor(env.spec, device=env.device, seed=0)
    for _ in range(5):
        rollout = collect(env, actor, explore=True)
        assert rollout.episodes.truncated.sum() == 1  # the limit, not an end by the rules
    env.close()
    assert len(made.games) == 3
    replays = sorted((tmp_path / "replays").iterdir())
    assert [path.stem.rpartition("_")[2] for path in replays] == ["2", "4"]
    assert replays[0].read_bytes() == b"a replay of the stand-in"


def test_games_end_with_their_worker(house):
    made = house()
    env = emix.make("sc2/3m", num_envs=2)
    env.reset()
    assert len(running(made)) == 2
    for process in env._vector.processes:
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while running(made) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(made)
    env.close()


TRAINING = "smix sc2/3m --steps 700 --num-envs 4 --test-episodes 4 --test-envs 4 --test-interval 100000"


def test_four_processes_train_are_killed_and_resumed(house, tmp_path):
    made, run = house(), tmp_path / "run"
    options = f"{TRAINING} --log-interval 200 --checkpoint-interval 100 --run-dir {run} --seed 1".split()
    command = [sys.executable, "-m", "emix"]
    process = subprocess.Popen([*command, "train", *options], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / "checkpoint").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    while running(made) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(made)
    played = len(made.ended)
    done = subprocess.run([*command, "resume", str(run)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(made.ended) > played
    assert (run / "summary.json").exists()
    assert not running(made)


def test_what_is_not_there(house, monkeypatch, tmp_path):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match=r"sc2/3m cannot be made: StarCraft II is not in .*nothing .*SC2.4.10.zip"):
        emix.make("sc2/3m")
    made = house()
    with pytest.raises(UsageError, match=r"sc2/3m: StarCraft II of build 1 is not in .*, which has 75689"):
        emix.make("sc2/3m", build=1)
    with pytest.raises(UsageError, match="sc2/3m: unknown option 'spawn_jitter'"):
        emix.make("sc2/3m", spawn_jitter=0.0)
    with pytest.raises(UsageError, match="unknown difficulty 'X'"):
        emix.make("sc2/3m", difficulty="X")
    (made.folder / "Maps" / "SMAC_Maps" / "8m.SC2Map").unlink()
    with pytest.raises(UsageError, match=r"sc2/8m: the map 8m.SC2Map is not in .*SMAC_Maps.zip"):
        emix.make("sc2/8m")
