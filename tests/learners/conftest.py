"""Random episodes of every kind of ending."""

import pytest
import torch

from emix.data import Discrete, EnvSpec
from emix.data.episodes import Episodes

SPEC = EnvSpec(name="test", n_agents=3, action=Discrete(4), obs_dim=5, state_dim=6, episode_limit=9)

ENDINGS = ("terminated", "truncated", "cut") * 3


@pytest.fixture(autouse=True)
def one_thread():
    """As training has by default: a second one only waits for the first on networks of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def spec():
    return SPEC


@pytest.fixture(params=["one batch", "parts"])
def split(request, monkeypatch):
    """Small batches stay whole; or there is a part for each length, as there may be of large ones."""
    if request.param == "parts":
        monkeypatch.setattr("emix.data.episodes._OBSERVATIONS_OF_A_PART", 0)


@pytest.fixture
def random_episodes():
    return _random_episodes


def _random_episodes(
    steps=SPEC.episode_limit,
    seed=0,
    dtype=torch.float32,
    spec=SPEC,
    lengths=(1, 1, 1, 4, 5, 6, 9, 9, 9),
    endings=ENDINGS,
):
    """Episodes that end in a terminal state, at a time limit, or without a flag; one step long, short or full."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    count, n, a = len(lengths), spec.n_agents, spec.n_actions
    time = torch.arange(steps + 1)
    real, valid = time <= lengths[:, None], time[:-1] < lengths[:, None]  # [B, T+1], [B, T]

    def normal(*shape):
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64).to(dtype)

    avail = torch.rand(count, steps + 1, n, a, generator=generator) < 0.6
    avail[..., 0] |= ~avail.any(-1)
    flags = {name: torch.zeros(count, steps, dtype=torch.bool) for name in ("terminated", "truncated")}
    for b, ending in enumerate(endings):
        if ending in flags:
            flags[ending][b, lengths[b] - 1] = True
    scores = torch.rand(avail.shape, generator=generator)
    values = {
        "obs": normal(steps + 1, n, spec.obs_dim) * real[..., None, None],
        "state": normal(steps + 1, spec.state_dim) * real[..., None],
        "avail": avail & real[..., None, None],
        "actions": scores.masked_fill(~avail, -1).argmax(-1) * real[..., None],
        "reward": normal(steps) * valid,
        "probability": (0.05 + 0.9 * torch.rand(count, steps + 1, n, generator=generator)) * real[..., None],
    }
    values["log_prob"] = torch.where(real[..., None], values["probability"].to(dtype), 1.0).log()
    return Episodes.of(values | flags, valid)
