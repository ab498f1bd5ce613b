"""Continuous predator-prey: rules by hand, and every step of random play against a plain Python version of them."""

import math

import pytest
import torch

from emix.data import Box
from emix.envs import continuous_prey, episode_seed, make
from emix.errors import UsageError
from tests.envs.test_prey import splitmix64

NAMES = ["prey/continuous-3a", "prey/continuous-6a", "prey/continuous-9a", "prey/heterogeneous"]
SIZES = {"predator": 0.075, "prey": 0.05, "landmark": 0.2}


@pytest.mark.parametrize(
    ("name", "agents", "obs", "limit"),
    [
        ("prey/continuous-3a", 3, 16, 25),  # as FACMAC's
        ("prey/continuous-6a", 6, 4 + 8 + 14 + 4, 25),
        ("prey/continuous-9a", 9, 4 + 12 + 22 + 6, 25),
        ("prey/heterogeneous", 3, 4 + 4 + 10 + 6, 50),
    ],
)
def test_sizes(name, agents, obs, limit):
    spec = make(name).spec
    assert spec.action == Box(2, low=-1.0, high=1.0)
    assert (spec.n_agents, spec.obs_dim, spec.state_dim, spec.episode_limit) == (agents, obs, agents * obs, limit)


def stage(name, positions, velocities=None):
    """One environment with its bodies at these places."""
    env = make(name)
    env.reset()
    env._position[0] = torch.tensor(positions)
    if velocities is not None:
        env._velocity[0] = torch.tensor(velocities)
    env.reset(torch.tensor([False]))  # look again
    return env


FAR = [(5.0, 5.0), (-5.0, 5.0)]  # landmarks


def test_a_predator_alone():
    """Force 3 a, velocity 0.75 v + 0.1 f, cut down to the highest speed; the body moves by 0.1 v."""
    places = [(0.0, 0.0), (10.0, 0.0), (20.0, 0.0), (-10.0, 0.0), (-20.0, 0.0), (-30.0, 0.0), *FAR]
    env = stage("prey/heterogeneous", places, [(0.4, 0.0), (0.9, 0.0), (0.0, 0.6)] + [(0.0, 0.0)] * 3)
    step = env.step(torch.tensor([[[1.0, -0.5], [1.0, 0.0], [0.0, 1.0]]]))
    expected = torch.tensor([[0.6, -0.15], [0.75, 0.0], [0.0, 0.75]])  # 0.975 and 0.75 are at most 0.75
    torch.testing.assert_close(step.obs[0, :, :2], expected)
    torch.testing.assert_close(step.obs[0, :, 2:4], torch.tensor(places[:3]) + 0.1 * expected)
    assert step.reward.tolist() == [0]
    assert not step.terminated.any()


def test_each_touch_pays():
    """A prey at 0.12 and 0.1 of two predators: twice."""
    places = [(0.0, 0.0), (0.02, 0.0), (20.0, 0.0), (0.12, 0.0), (-9.0, 0.0), (-30.0, 0.0), *FAR]
    env = stage("prey/heterogeneous", places)
    env._flee = lambda: torch.zeros(1, 3, 2)
    env._contact = lambda: torch.zeros(1, 6, 2)
    assert env.step(torch.zeros(1, 3, 2)).reward.item() == 20


def test_what_is_farther_than_the_view_is_not_seen():
    places = [(0.0, 0.0), (0.5, 0.0), (20.0, 0.0), (0.0, 1.4), (0.0, 1.6), (-30.0, 0.0), (1.0, 0.0), (2.0, 0.0)]
    env = stage("prey/heterogeneous", places, [(0.0, 0.0)] * 3 + [(0.1, 0.2), (0.3, 0.4), (0.5, 0.6)])
    obs = env.step(torch.zeros(1, 3, 2)).obs[0, 0]
    shown = obs.view(-1, 2)[2:].ne(0).any(-1).tolist()
    assert shown == [True, False, True, False, True, False, False, True, False, False]


def test_a_prey_flees_from_the_nearest_predator():
    places = [(-0.2, 0.0), (3.0, 0.0), (20.0, 0.0), (0.0, 0.0), (9.0, 0.0), (-9.0, 0.0), *FAR]
    env = stage("prey/heterogeneous", places)
    force = env._flee()[0, 0]  # the best of a hundred points of the disc is near (1, 0)
    assert force[0] > 0.7
    assert 0.7 < force.norm() <= 1


def test_a_prey_with_no_way_out_stays(monkeypatch):
    """Where every point that it looks at would touch a predator: one whose radius goes beyond the disc."""
    env = stage("prey/heterogeneous", [(0.0, 0.0)] * 3 + [(0.0, 0.0), (9.0, 0.0), (-9.0, 0.0), *FAR])
    assert env._flee()[0].norm(dim=-1).min() > 0.7
    monkeypatch.setattr(continuous_prey, "PREDATOR_SIZE", 2.0)
    force = env._flee()[0]
    assert force[0].tolist() == [0, 0]
    assert force[1:].norm(dim=-1).min() > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_random_play_is_that_of_the_rules(name):
    env = make(name, num_envs=3, seed=5, first_env=2)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    n, m = env.predators, env.movable - env.predators
    speeds = env._speeds[:, 0].tolist()
    for t in range(4):
        before = env._position.tolist(), env._velocity.tolist()
        actions = env.spec.action.random((3, n), generator)
        step = env.step(actions)
        for e in range(3):
            key = episode_seed(5, 2 + e, 0)
            first = 2 * env.bodies + t * 200 * m
            draws = [(splitmix64(key, first + k) % 2**64 >> 40) * 2.0**-24 for k in range(200 * m)]
            world = World(before[0][e], before[1][e], n, m, speeds)
            reward = world.step(actions[e].tolist(), draws)
            torch.testing.assert_close(env._position[e], torch.tensor(world.position), atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(env._velocity[e], torch.tensor(world.velocity), atol=2e-3, rtol=1e-3)
            assert step.reward[e].item() == reward
            seen = World(env._position[e].tolist(), env._velocity[e].tolist(), n, m, speeds)
            torch.testing.assert_close(step.obs[e], torch.tensor([seen.observation(i) for i in range(n)]))
            assert torch.equal(step.state[e], step.obs[e].flatten())


class World:
    """FACMAC's rules, one body at a time."""

    def __init__(self, position, velocity, predators, prey, speeds):
        self.position, self.velocity, self.n, self.m, self.speeds = position, velocity, predators, prey, speeds
        kinds = ["predator"] * predators + ["prey"] * prey + ["landmark"] * (len(position) - predators - prey)
        self.sizes = [SIZES[kind] for kind in kinds]

    def step(self, actions, draws):
        forces = [[3 * x for x in action] for action in actions]
        forces += [self.flee(self.n + j, j, draws) for j in range(self.m)]
        for i in range(self.n + self.m):
            for k in range(len(self.position)):
                if i != k:
                    gap = math.dist(self.position[i], self.position[k])
                    x = -(gap - self.sizes[i] - self.sizes[k]) / 1e-3
                    strength = 100 * 1e-3 * (math.log1p(math.exp(-abs(x))) + max(x, 0))
                    for axis in range(2):
                        forces[i][axis] += strength * (self.position[i][axis] - self.position[k][axis]) / gap
        for i, force in enumerate(forces):
            v = [0.75 * old + 0.1 * f for old, f in zip(self.velocity[i], force, strict=True)]
            speed = math.hypot(*v)
            self.velocity[i] = [x / speed * self.speeds[i] for x in v] if speed > self.speeds[i] else v
            self.position[i] = [x + 0.1 * u for x, u in zip(self.position[i], self.velocity[i], strict=True)]
        hunts = [(i, self.n + j) for i in range(self.n) for j in range(self.m)]
        return 10 * sum(math.dist(self.position[i], self.position[j]) < 0.125 for i, j in hunts)

    def flee(self, body, j, draws):
        here = self.position[body]
        nearest = min(range(self.n), key=lambda i: math.dist(here, self.position[i]))
        best, chosen = -1.0, [0.0, 0.0]
        for c in range(100):
            radius = math.sqrt(draws[100 * j + c])
            angle = 2 * math.pi * draws[100 * self.m + 100 * j + c]
            vector = [radius * math.cos(angle), radius * math.sin(angle)]
            there = [h + v for h, v in zip(here, vector, strict=True)]
            free = all(math.dist(there, self.position[i]) >= 0.125 for i in range(self.n))
            if free and math.dist(there, self.position[nearest]) > best:
                best, chosen = math.dist(there, self.position[nearest]), vector
        return list(chosen)

    def observation(self, i):
        here = self.position[i]

        def relative(k):
            there = [b - a for a, b in zip(here, self.position[k], strict=True)]
            return there if math.hypot(*there) <= 1.5 else [0.0, 0.0]

        moving = self.n + self.m
        order = [*range(moving, len(self.position)), *(k for k in range(moving) if k != i)]
        near = [math.dist(here, self.position[k]) <= 1.5 for k in range(self.n, moving)]
        velocities = [v if seen else [0.0, 0.0] for v, seen in zip(self.velocity[self.n :], near, strict=True)]
        rows = [self.velocity[i], here, *(relative(k) for k in order), *velocities]
        return [x for row in rows for x in row]


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_ends_by_its_limit_alone(name):
    env = make(name, num_envs=2)
    step = env.reset()
    start = env._position.clone()
    assert start[:, : env.movable].abs().max() <= 1
    assert start[:, env.movable :].abs().max() <= 0.9
    for _ in range(env.spec.episode_limit):
        assert not step.done.any()
        step = env.step(torch.zeros(2, env.spec.n_agents, 2))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert torch.equal(env._position[:, env.movable :], start[:, env.movable :])  # landmarks stay
    env.reset()
    assert not torch.equal(env._position, start)


def test_names_and_options():
    with pytest.raises(UsageError, match=r"unknown environment 'prey/continuous-4a': did you mean prey/continuous-"):
        make("prey/continuous-4a")
    with pytest.raises(UsageError, match="prey/heterogeneous: unknown option 'speed', it has none"):
        make("prey/heterogeneous", speed=2)
