"""Updates on episodes of full length, SMIX's and QMIX's on 32, MAPPO's on 10, beside plain PyTorch.

    pytest benchmarks/bench_update.py [-k 3m]

Peers (``plain_qmix.py``, ``plain_mappo.py``): time unrolled in Python with ``nn.GRUCell``, as the public frameworks do;
``nn.GRU``; torch.compile of both. Each gives the loss of emix's learner, with its weights, before it is timed. All have
the same allocator setting, and take turns. On CUDA emix's update is a graph's replay, and so is that with ``nn.GRU``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from plain_ader import PlainAder
from plain_ensemble_mix import PlainEnsembleMix
from plain_mappo import PlainMappo
from plain_qmix import PlainQmix

from emix import learners
from emix.bench.choices import SPECS
from emix.bench.update import RandomEpisodes
from emix.learners.ensemble_mix import EnsembleMix
from emix.training.captured import CapturedUpdate

PEERS = {
    "unrolled": ("unrolled", False),
    "unrolled, compiled": ("unrolled", True),
    "nn.GRU": ("gru", False),
    "nn.GRU, compiled": ("gru", True),
}
THREADS = [1, 2]


pytestmark = pytest.mark.usefixtures("as_training_does")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("algorithm", ["smix", "qmix"])
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_update(compare: Callable[..., None], map_name: str, algorithm: str, threads: int, device: str) -> None:
    spec = SPECS[map_name]
    batch = RandomEpisodes(spec, device=torch.device(device)).sample(32)
    config = learners.make_config(algorithm, {"hypernet_layers": 1})
    learner = learners.get(algorithm).learner(config, spec, device=device, seed=0)
    weights = {name: value.clone() for name, value in learner.networks.state_dict().items()}
    expected = learner.update(batch)["loss"]
    update = CapturedUpdate(learner) if device == "cuda" else learner.update
    candidates = {"emix": partial(update, batch)}
    for name, (agent, compiled) in PEERS.items():
        peer = PlainQmix(spec, agent, config.target, device=device, compiled=compiled)
        peer.load(weights)
        torch.testing.assert_close(peer.update(batch), expected, rtol=1e-3, atol=1e-4)
        candidates[name] = partial(peer.update, batch)
    compare(f"{device} {threads} {algorithm} {map_name}", candidates, device)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_ensemble_mix_update(compare: Callable[..., None], map_name: str, threads: int, device: str) -> None:
    """48 episodes, 10 members: an optimiser step for each time step, and one for all beside it."""
    spec = SPECS[map_name]
    make = learners.get("ensemble-mix")

    def learner_of(critic_update: str) -> EnsembleMix:
        config = learners.make_config("ensemble-mix", {"critic_update": critic_update})
        return make.learner(config, spec, device=device, seed=0)

    learner = learner_of("per_step")
    peer = PlainEnsembleMix(learner)
    batch = learner.draw(RandomEpisodes(spec, learner.actor.record, device=torch.device(device)))
    torch.testing.assert_close(peer.update(batch), learner.update(batch)["loss"].cpu(), rtol=1e-3, atol=1e-4)
    candidates = {
        "emix": partial(learner.update, batch),
        "emix, batched": partial(learner_of("batched").update, batch),
        "plain": partial(peer.update, batch),
    }
    compare(f"{device} {threads} ensemble-mix {map_name}", candidates, device)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_mappo_update(compare: Callable[..., None], map_name: str, threads: int, device: str) -> None:
    """10 episodes, 4 epochs, EPyMARL's settings."""
    spec = SPECS[map_name]
    config = learners.make_config("mappo", learners.load_recipe("mappo@epymarl").learner)
    learner = learners.get("mappo").learner(config, spec, device=device, seed=0)
    batch = learner.draw(RandomEpisodes(spec, learner.actor.record, device=torch.device(device)))
    peers = {"unrolled": PlainMappo(learner, "unrolled"), "nn.GRU": PlainMappo(learner, "gru")}
    expected = learner.update(batch)["loss"]
    update = CapturedUpdate(learner) if device == "cuda" else learner.update
    candidates = {"emix": partial(update, batch)}
    for name, peer in peers.items():
        torch.testing.assert_close(peer.update(batch), expected, rtol=1e-3, atol=1e-4)
        candidates[name] = partial(peer.update, batch)
    compare(f"{device} {threads} mappo {map_name}", candidates, device)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("map_name", ["3m", "2s3z", "MMM2"])
def test_ader_update(compare: Callable[..., None], map_name: str, threads: int, device: str) -> None:
    """32 episodes: two critics of the reward, two of the entropies, policies, shares and temperatures."""
    spec = SPECS[map_name]
    learner = learners.get("ader").learner(learners.make_config("ader", {}), spec, device=device, seed=0)
    peer = PlainAder(learner)
    batch = RandomEpisodes(spec, device=torch.device(device)).sample(32)
    metrics = learner.update(batch)
    expected = tuple(metrics[name] for name in ("loss", "entropy_loss", "policy_loss"))
    torch.testing.assert_close(peer.update(batch), expected, rtol=1e-3, atol=1e-4)
    update = CapturedUpdate(learner) if device == "cuda" else learner.update
    candidates = {"emix": partial(update, batch), "plain": partial(peer.update, batch)}
    compare(f"{device} {threads} ader {map_name}", candidates, device)
