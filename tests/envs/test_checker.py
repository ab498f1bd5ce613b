"""``check_env`` accepts the built-in environments and finds what a wrong one does."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from emix.data import Box, Discrete, EnvSpec, Step
from emix.envs import check_env, episode_seed, make

ON_TENSORS = [
    *("matrix/msteps-2", "matrix/msteps-5", "matrix/penalty-2x3", "matrix/penalty-20x15"),
    *("matrix/continuous", "prey/stag-hunt", "prey/macf", "prey/continuous-6a", "prey/heterogeneous"),
    *("foraging/Foraging-8x8-2p-2f-v3", "foraging/Foraging-2s-8x8-3p-2f-coop-v3", "foraging/Foraging-20x20-10p-3f-v2"),
]


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("name", ON_TENSORS)
def test_builtin_environments(name, num_envs):
    check_env(make(name, num_envs=num_envs), partial(make, name))


@pytest.mark.cuda
@pytest.mark.parametrize("name", ON_TENSORS)
def test_builtin_environments_on_a_gpu(name):
    env = make(name, num_envs=4, device="cuda")
    check_env(env, partial(make, name, device="cuda"))
    action = env.spec.action
    actions = torch.zeros(4, env.spec.n_agents, *action.shape, dtype=getattr(torch, action.dtype), device="cuda")
    env.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        env.step(actions)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Walk:
    """A correct random walk of one number per environment; each subclass below breaks one rule of the contract."""

    action = Discrete(3)

    def __init__(self, num_envs=3, seed=0, first_env=0):
        self.spec = EnvSpec("test/walk", n_agents=2, action=self.action, obs_dim=1, state_dim=1, episode_limit=8)
        self.num_envs, self.device, self.seed, self.first_env = num_envs, torch.device("cpu"), seed, first_env
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.place = torch.zeros(num_envs)
        self.time = torch.zeros(num_envs, dtype=torch.int64)
        self.streams = [torch.Generator() for _ in range(num_envs)]

    def reset(self, where=None):
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        for e in where.nonzero()[:, 0].tolist():
            self.start(e)
        self.episode = self.episode + where
        self.time = torch.where(where, 0, self.time)
        return self.observe(torch.zeros(self.num_envs))

    def start(self, e):
        self.streams[e].manual_seed(episode_seed(self.seed, self.first_env + e, int(self.episode[e])))
        self.place[e] = torch.rand((), generator=self.streams[e])

    def step(self, actions):
        running = ~self.over().any(0)
        noise = torch.stack([torch.rand((), generator=stream) for stream in self.streams])
        self.place = torch.where(running, self.place + actions.sum(1) + noise, self.place)
        self.time = self.time + running
        return self.observe(torch.where(running, self.place, 0.0))

    def over(self):
        terminated = self.place > 12
        return torch.stack([terminated, (self.time == 8) & ~terminated])

    def observe(self, reward):
        terminated, truncated = self.over()
        place = self.place[:, None].clone()
        obs, avail = place[:, None].repeat(1, 2, 1), torch.ones(self.num_envs, 2, 3, dtype=torch.bool)
        return Step(obs, place, avail, reward, terminated, truncated)

    def close(self):
        pass


class WrongShape(Walk):
    def observe(self, reward):
        return replace(super().observe(reward), state=self.place.clone())


class WrongType(Walk):
    def observe(self, reward):
        return replace(super().observe(reward), reward=reward.double())


class BothFlags(Walk):
    def over(self):
        return torch.stack([self.place > 3, self.place > 3])


class NeverEnds(Walk):
    def over(self):
        return torch.zeros(2, self.num_envs, dtype=torch.bool)


class PaysAfterTheEnd(Walk):
    def observe(self, reward):
        return super().observe(torch.where(self.time == 0, 0.0, self.place))


class ResetsItself(Walk):
    def step(self, actions):
        done = self.over().any(0)
        return self.reset(done) if done.any() else super().step(actions)


class ResetsEverything(Walk):
    def reset(self, where=None):
        step = super().reset()
        if where is not None:
            self.episode = self.episode - (~where).long()
        return step


class ForgetsToCount(Walk):
    def reset(self, where=None):
        before = self.episode
        step = super().reset(where)
        self.episode = before
        return step


class OneStream(Walk):
    """Draws from a generator that all episodes share."""

    def start(self, e):
        self.place[e] = torch.rand(())


class ReusesItsTensors(Walk):
    def observe(self, reward):
        step = super().observe(reward)
        if not hasattr(self, "buffer"):
            self.buffer = torch.zeros_like(step.state)
        return replace(step, state=self.buffer.copy_(step.state))


class LooksAtNeighbours(Walk):
    def step(self, actions):
        return super().step(actions + actions[-1:])


class DependsOnBatchSize(Walk):
    def start(self, e):
        super().start(e)
        self.place[e] += self.num_envs


class CountsFromZero(Walk):
    """Knows nothing of the other batches of a run."""

    def __init__(self, num_envs=3, seed=0, first_env=0):
        super().__init__(num_envs, seed)


class Glide(Walk):
    """A correct walk of any step size."""

    action = Box(2, low=-1.0, high=1.5)

    def step(self, actions):
        return super().step(actions.sum(2))

    def observe(self, reward):
        return replace(super().observe(reward), avail=None)


class OffersChoices(Glide):
    def observe(self, reward):
        return Walk.observe(self, reward)


class OldAction(Walk):
    action = 3


class NothingAvailable(Walk):
    def observe(self, reward):
        step = super().observe(reward)
        return replace(step, avail=step.avail & (self.time < 2)[:, None, None])


def test_a_correct_environment():
    check_env(Walk(), Walk)
    check_env(Glide(), Glide)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (WrongShape, r"state of reset\(\): expected shape \[3, 1\], got \[3\]"),
        (WrongType, r"reward of reset\(\): expected torch.float32, got torch.float64"),
        (BothFlags, "expected never both True"),
        (NeverEnds, "done after spec.episode_limit steps: expected True everywhere"),
        (PaysAfterTheEnd, "reward of finished environments at step .*: expected 0"),
        (ResetsItself, "(terminated|truncated) of finished environments at step"),
        (ResetsEverything, r"where reset\(where\) was False: expected as it was"),
        (ForgetsToCount, r"episode after reset\(\): expected \[1, 1, 1\], got \[0, 0, 0\]"),
        (OneStream, "the same episodes, played again,: expected exactly the same values"),
        (ReusesItsTensors, "looked at again after its end,: expected exactly the same values"),
        (LooksAtNeighbours, "whose neighbours play other ones: expected exactly the same values"),
        (DependsOnBatchSize, "in a batch of 1 instead of 3: expected exactly the same values"),
        (
            CountsFromZero,
            "environments 2 to 4 of a batch play, in a batch with first_env=2,: expected exactly the same",
        ),
        (OffersChoices, r"avail of reset\(\): expected None, where actions are a Box, got Tensor"),
        (OldAction, "spec.action: expected Discrete or Box, got 3"),
        (NothingAvailable, "an available action for every agent of a running environment"),
    ],
)
def test_a_broken_environment(broken, text):
    with pytest.raises(AssertionError, match=text):
        check_env(broken(), broken)
