"""MAPPO's update beside EPyMARL's own code, on the same 10 episodes of full length, in turns.

    git clone https://github.com/uoe-agents/epymarl && EPYMARL=epymarl pytest benchmarks/bench_epymarl.py

It needs EPyMARL's folder alone: its learner, controller and buffer import torch, numpy and yaml. Both have EPyMARL's
settings of MAPPO (4 epochs, 128 units, a GRU). Measured is a call of each learner's update on a batch in memory.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from emix import learners
from emix.bench.choices import SPECS
from emix.bench.update import RandomEpisodes
from emix.data import EnvSpec, Episodes

BATCH = 10
pytestmark = pytest.mark.usefixtures("as_training_does")


@pytest.fixture
def epymarl(monkeypatch: pytest.MonkeyPatch) -> Path:
    """EPyMARL's ``src``, on the path."""
    source = Path(os.environ.get("EPYMARL", "epymarl")) / "src"
    if not (source / "learners" / "ppo_learner.py").is_file():
        pytest.skip(f"EPYMARL names no clone of https://github.com/uoe-agents/epymarl: there is no {source}")
    monkeypatch.setattr(sys, "path", [str(source), *sys.path])
    return source


class Silent:
    """EPyMARL's logger."""

    def log_stat(self, *_: object) -> None: ...


class EpymarlMappo:
    """EPyMARL's ``PPOLearner`` with ``config/algs/mappo.yaml`` on episodes like ours."""

    def __init__(self, source: Path, spec: EnvSpec, episodes: Episodes) -> None:
        files = [source / "config" / "default.yaml", source / "config" / "algs" / "mappo.yaml"]
        settings = {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}
        sizes = {"n_agents": spec.n_agents, "n_actions": spec.action.n, "use_cuda": False}
        args = SimpleNamespace(**settings | sizes)
        self.batch = self._batch(spec, episodes)
        controller = importlib.import_module("controllers.basic_controller").BasicMAC(self.batch.scheme, None, args)
        learner = importlib.import_module("learners.ppo_learner").PPOLearner
        self.learner = learner(controller, self.batch.scheme, Silent(), args)

    def update(self) -> None:
        self.learner.train(self.batch, 0, 0)

    @staticmethod
    def _batch(spec: EnvSpec, episodes: Episodes) -> Any:
        t, n, actions = spec.episode_limit, spec.n_agents, spec.action.n
        scheme = {
            "state": {"vshape": spec.state_dim},
            "obs": {"vshape": spec.obs_dim, "group": "agents"},
            "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
            "avail_actions": {"vshape": (actions,), "group": "agents", "dtype": torch.int},
            "reward": {"vshape": (1,)},
            "terminated": {"vshape": (1,), "dtype": torch.uint8},
        }
        batch = importlib.import_module("components.episode_buffer").EpisodeBatch(scheme, {"agents": n}, BATCH, t + 1)
        values: dict[str, Tensor] = {
            "state": episodes.state,
            "obs": episodes.obs,
            "actions": episodes.actions.long()[..., None],
            "avail_actions": episodes.avail.int(),
            "reward": episodes.reward[..., None],
            "terminated": episodes.terminated[..., None].byte(),
        }
        for name, value in values.items():  # [B, T or T + 1, ...]
            batch.data.transition_data[name][:, : value.shape[1]] = value
        batch.data.transition_data["filled"][:] = 1
        return batch


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_mappo_update(compare: Callable[..., None], epymarl: Path, map_name: str, threads: int) -> None:
    spec = SPECS[map_name]
    config = learners.make_config("mappo", learners.load_recipe("mappo@epymarl").learner)
    learner = learners.get("mappo").learner(config, spec, device="cpu", seed=0)
    source = RandomEpisodes(spec, learner.actor.record, device=torch.device("cpu"))
    ours = partial(learner.update, learner.draw(source))
    peer = EpymarlMappo(epymarl, spec, source.sample(BATCH))
    ours()  # the optimisers' states are made
    peer.update()
    compare(f"cpu {threads} mappo {map_name}", {"emix": ours, "EPyMARL": peer.update}, "cpu")
