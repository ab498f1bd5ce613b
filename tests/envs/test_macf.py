"""Car following: rules by hand, and random play against a plain Python version of the source's rules."""

import numpy as np
import pytest
import torch

from emix.envs import episode_seed, make
from tests.envs.test_prey import splitmix64

NAME = "prey/macf"
MOST, LEAST = 20, 0


def stage(place, speed, arrived=(False, False)):
    """One environment with cars at these places."""
    env = make(NAME)
    env.reset()
    env._place[0], env._speed[0] = torch.tensor(place), torch.tensor(speed)
    env._arrived[0] = torch.tensor(arrived)
    return env


def drive(env, *actions):
    step = env.step(torch.tensor([actions]))
    return step, env._place[0].tolist(), env._speed[0].tolist()


def test_sizes():
    spec = make(NAME).spec
    sizes = (spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim, spec.episode_limit)
    assert sizes == (2, 21, 4, 4, 200)


def test_acceleration():
    """-1 + 2 a / 21: -1 at action 0, 19/21 at action 20."""
    step, place, speed = drive(stage([0.0, 0.0], [0.0, 0.0]), LEAST, MOST)
    assert speed == pytest.approx([-0.1, 19 / 210])
    assert place == pytest.approx([-0.005, 0.005 * 19 / 21])
    assert float(step.reward) == pytest.approx(-1 - (2.5 - place[0]) - (2.5 - place[1]) + 1)  # they are together


def test_top_speed():
    """From 1.75 the top speed of 1.8 is reached after 0.05 / (19/21) = 0.0553 s, which the source rounds to 0.06."""
    _, place, speed = drive(stage([0.0, 0.0], [1.75, 1.8]), MOST, MOST)
    assert speed == pytest.approx([1.8, 1.8])
    assert place == pytest.approx([1.75 * 0.06 + 0.5 * 19 / 21 * 0.06**2 + 1.8 * 0.04, 0.18])


def test_arrival():
    """A car that ends a step within 0.01 of 2.5 has arrived, is paid 5 once, and then stands there."""
    coast = 11  # accelerates by 1/21: 0.5 * 0.1^2 / 21 = 0.0002
    env = stage([2.405, 1.0], [1.0, 0.0])
    step, place, _ = drive(env, coast, coast)
    assert place[0] == pytest.approx(2.50524, abs=1e-5)
    assert float(step.reward) == pytest.approx(-1 - 0.00524 - 1.49976 + 5, abs=1e-4)
    assert step.info["arrived"].tolist() == [1]
    step, place, speed = drive(env, LEAST, coast)
    assert (place[0], speed[0]) == (2.5, 0)
    assert float(step.reward) == pytest.approx(-1 - (2.5 - place[1]))


def test_both_arrive():
    env = stage([2.5, 2.405], [0.0, 0.9])
    env._arrived[0, 0] = True
    step, place, _ = drive(env, 0, 11)
    assert float(step.reward) == pytest.approx(-1 - abs(place[1] - 2.5) + 5 + 1 + 10)
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True], [False])
    assert drive(env, 0, 0)[0].reward.tolist() == [0]


def test_nobody_arrives_by_passing_the_target():
    step, place, _ = drive(stage([2.45, 0.0], [1.0, 0.0]), 11, 11)
    assert place[0] > 2.51
    assert step.info["arrived"].tolist() == [0]


def test_crashes_by_speed():
    """At 1.8 the probability is 0.32 for each car, at 1 and below and in reverse it is 0."""
    env = make(NAME, num_envs=20_000, seed=4)
    env.reset()
    env._speed[:, 0], env._speed[:, 1] = 1.8, -1.8
    env.step(torch.full((20_000, 2), MOST))
    assert abs(float(env._crashes.float().mean()) - 0.32) < 4 * (0.32 * 0.68 / 20_000) ** 0.5
    env.reset()
    env._speed[:, 0], env._speed[:, 1] = 0.9, -1.8
    env.step(torch.full((20_000, 2), MOST))
    assert not env._crashes.any()


def test_what_is_seen():
    env = stage([1.0, 1.29], [0.5, 0.4])
    step = env.reset(torch.tensor([False]))
    assert torch.equal(step.obs[0], torch.tensor([[1.0, 0.5, 1.29, 0.4]] * 2))
    env = stage([1.0, 1.31], [0.5, 0.4])
    step = env.reset(torch.tensor([False]))
    expected = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.31, 0.4]])
    assert torch.equal(step.obs[0], expected)
    assert torch.equal(step.state[0], torch.tensor([1.0, 0.5, 1.31, 0.4]))


def test_the_limit_truncates():
    env = make(NAME)
    env.reset()
    for _ in range(200):
        step = env.step(torch.tensor([[0, 0]]))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False], [True])


def test_random_play_against_plain_python():
    env = make(NAME, num_envs=3, seed=8)
    env.reset()
    generator = torch.Generator().manual_seed(1)
    place, speed, arrived = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2), bool)
    crashes = 0
    for t in range(80):
        actions = torch.randint(8, 21, (3, 2), generator=generator)
        step = env.step(actions)
        for e in range(3):
            for i in range(2):
                acceleration = float(actions[e, i]) * 2 / 21 - 1
                spent, after = 0.1, speed[e, i] + 0.1 * acceleration
                if after >= 1.8:
                    spent, after = round((1.8 - speed[e, i]) / acceleration, 2), 1.8
                place[e, i] += speed[e, i] * spent + 0.5 * acceleration * spent**2 + 1.8 * (0.1 - spent)
                speed[e, i] = after
                if arrived[e, i]:
                    place[e, i], speed[e, i] = 2.5, 0
            reward = -1 - np.abs(place[e] - 2.5).sum() + (abs(place[e, 0] - place[e, 1]) <= 0.3)
            near = (np.abs(place[e] - 2.5) < 0.01) & ~arrived[e]
            arrived[e] |= near
            reward += 5 * near.sum()
            for i in range(2):
                draw = (splitmix64(episode_seed(8, e, 0), 2 * t + i) % 2**64 >> 40) / 2**24
                if speed[e, i] > 1 and draw <= 0.4 * (speed[e, i] - 1):
                    reward, crashes = reward - 1, crashes + 1
            assert float(step.reward[e]) == pytest.approx(reward, abs=2e-4)
        assert not step.done.any()
        assert np.abs(env._place.numpy() - place).max() < 1e-4
        assert np.abs(env._speed.numpy() - speed).max() < 1e-4
    assert crashes > 10
    assert int(step.info["crashes"].sum()) == crashes


def test_a_step_never_waits_for_a_gpu():
    """Meta tensors have no values: whatever would copy one to the host raises."""
    env = make(NAME, num_envs=4, device="meta")
    env.reset()
    assert env.step(torch.zeros(4, 2, dtype=torch.int64, device="meta")).obs.shape == (4, 2, 4)
