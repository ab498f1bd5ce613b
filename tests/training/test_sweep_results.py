"""What a sweep says of its runs."""

import json
from pathlib import Path

import pytest

from emix.errors import UsageError
from emix.training import make_settings
from emix.training.settings import write_config
from emix.training.sweep import Job, default_jobs, results, write_results


def finished(folder: Path, algorithm: str, env: str, seed: int, learner: dict | None = None, **metrics: float) -> Job:
    """A run of 100 steps that has ended with these metrics."""
    settings = make_settings(algorithm, env, learner=learner, training={"seed": seed, "steps": 100})
    folder = folder / settings.name / env / str(seed)
    folder.mkdir(parents=True)
    write_config(folder, settings, episode_limit=5)
    (folder / "summary.json").write_text(json.dumps({"env_steps": 100, **metrics}))
    job = Job(settings, folder, [])
    job.inspect()
    return job


def test_results_by_environment_and_algorithm(tmp_path):
    jobs = [
        finished(tmp_path, "vdn", "matrix/msteps-5", 1, test_return_mean=5.0),
        finished(tmp_path, "vdn", "matrix/msteps-5", 2, test_return_mean=8.0),
        finished(tmp_path, "vdn", "battle/3m", 1, test_return_mean=20.0, test_battle_won_mean=0.75),
        Job(make_settings("iql", "battle/3m", training={"seed": 1}), tmp_path / "iql", []),
    ]
    rows = results(jobs)
    assert [(row["env"], row["algorithm"], row["metric"], row["runs"], row["values"]) for row in rows] == [
        ("matrix/msteps-5", "vdn", "test_return_mean", 2, [5.0, 8.0]),
        ("battle/3m", "vdn", "test_battle_won_mean", 1, [0.75]),
        ("battle/3m", "iql", "test_battle_won_mean", 1, []),
    ]
    assert (rows[0]["mean"], rows[0]["median"], rows[0]["seeds"]) == (6.5, 6.5, [1, 2])
    assert (rows[0]["recipe"], rows[0]["recipe_version"]) == ("vdn@paper", 1)

    write_results(tmp_path, ["sweep"], jobs, rows)
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored["results"] == rows
    assert [run["state"] for run in stored["runs"]] == ["done", "done", "done", "waiting"]
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert lines[0] == (
        "env,algorithm,configuration,recipe,recipe_version,metric,runs,seeds,values,mean,std,ci95,median,iqm"
    )
    assert lines[1].startswith("matrix/msteps-5,vdn,,vdn@paper,1,test_return_mean,2,1 2,5.0 8.0,6.5,2.1213")
    assert "2.1213203435596424,19.0593071042" in lines[1]  # t 12.706, std / sqrt(2) = 1.5


def test_a_row_for_each_configuration(tmp_path):
    jobs = [
        finished(tmp_path, "vdn", "matrix/msteps-5", seed, learner={"gamma": gamma}, test_return_mean=gamma + seed)
        for gamma in (0.5, 1.0)
        for seed in (1, 2)
    ]
    rows = results(jobs)
    assert [(row["algorithm"], row["configuration"], row["values"]) for row in rows] == [
        ("vdn", "gamma=0.5", [1.5, 2.5]),
        ("vdn", "gamma=1", [2.0, 3.0]),
    ]


def test_which_runs_are_finished(tmp_path):
    job = finished(tmp_path, "vdn", "matrix/msteps-5", 1)
    assert job.state == "done"
    longer = Job(make_settings("vdn", "matrix/msteps-5", training={"seed": 1, "steps": 101}), job.folder, [])
    longer.inspect()
    assert longer.state == "waiting"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"training": {"steps": 99}},
            "holds a run of 100 steps, more than the 99 that are asked for: give the sweep another",
        ),
        ({"training": {"num_envs": 8}}, "holds a run with changes.num_envs None, not 8 as is asked for"),
        ({"training": {"test_envs": 8}}, "holds a run with training.test_envs 4, not 8 as is asked for"),
    ],
)
def test_a_folder_with_another_run(tmp_path, change, text):
    folder = finished(tmp_path, "vdn", "prey/stag-hunt", 1).folder
    change = {**change, "training": {"seed": 1, "steps": 100, **change.get("training", {})}}
    with pytest.raises(UsageError, match=text):
        Job(make_settings("vdn", "prey/stag-hunt", **change), folder, []).inspect()


def test_default_jobs(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
    assert [default_jobs(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]
