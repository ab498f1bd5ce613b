"""ADER's continuous matrix game against numbers computed by hand from its definition."""

import pytest
import torch

from emix.data import Box
from emix.envs import make
from emix.errors import UsageError

NAME = "matrix/continuous"


def payoff(positions, **options):
    """The reward at each position, and whether it is in the goal."""
    env = make(NAME, num_envs=len(positions), **options)
    env.reset()
    step = env.step(torch.tensor(positions)[:, :, None])
    assert step.terminated.all()
    assert not step.truncated.any()
    return step.reward.tolist(), step.info["goal_reached"].tolist()


def test_sizes():
    spec = make(NAME).spec
    assert spec.action == Box(1, low=-1.0, high=1.0)
    assert (spec.name, spec.n_agents, spec.obs_dim, spec.state_dim, spec.episode_limit) == (NAME, 2, 2, 2, 1)


# Where, and the reward: 5 / 1.2 for each unit of the path that leads there.
ON_PATH = [
    ((0.0, 0.0), 0.0),
    ((0.3, 0.0), 1.25),
    ((0.3, 0.04), 1.25),  # the path is 0.05 wide on either side
    ((0.3, -0.04), 1.25),
    ((-0.04, 0.0), 0.0),  # and around its start
    ((0.6, 0.0), 2.5),
    ((0.63, -0.03), 2.5),  # outside the corner: the corner is nearest
    ((0.58, 0.03), 2.625),  # inside the corner, nearer to the second part: 0.03 up
    ((0.57, 0.02), 2.375),  # nearer to the first
    ((0.6, 0.3), 3.75),
    ((0.64, 0.3), 3.75),
    ((0.56, 0.3), 3.75),
    ((0.6, 0.54), 4.75),
    ((0.64, 0.56), 5 * 1.15 / 1.2),  # around its end, beside the disc
]
IN_GOAL = [
    ((0.6, 0.6), 5.0),
    ((0.6, 0.62), 5 * (1 - 0.4 / 24)),  # 5 (1 - c d / 0.05), where c = 1/24 makes the rim pay what the path's end pays
    ((0.62, 0.6), 5 * (1 - 0.4 / 24)),
    ((0.6, 0.6499), 5 * (1 - 0.998 / 24)),  # near the rim
    ((0.6, 0.56), 5 * (1 - 0.8 / 24)),  # the disc covers the path's end
    ((0.576, 0.568), 5 * (1 - 0.8 / 24)),
]
OUTSIDE = [
    ((0.3, 0.06), -(0.0936**0.5)),
    ((0.0, 0.4), -0.4),
    ((-0.3, -0.4), -0.5),
    ((0.7, 0.0), -0.7),
    ((1.0, 1.0), -(2**0.5)),
    ((0.6, 0.66), -(0.7956**0.5)),
]


@pytest.mark.parametrize(("cases", "reached"), [(ON_PATH, False), (IN_GOAL, True), (OUTSIDE, False)])
def test_rewards_by_hand(cases, reached):
    rewards, goals = payoff([place for place, _ in cases])
    assert rewards == pytest.approx([expected for _, expected in cases], abs=1e-5)
    assert goals == [reached] * len(cases)


def test_the_goal_is_the_best_there_is():
    axis = torch.linspace(-1, 1, 401)
    positions = torch.cartesian_prod(axis, axis)
    rewards, goals = map(torch.tensor, payoff(positions.tolist()))
    best = positions[rewards.argmax()]
    assert rewards.max() <= 5
    assert (best - 0.6).norm() < 0.003
    assert goals.float().mean().item() == pytest.approx(torch.pi * 0.05**2 / 4, rel=0.05)


@pytest.mark.parametrize("options", [{}, {"goal": 0.9, "path_end": 0.85}, {"corner": 0.2}, {"goal_reward": 40}])
def test_the_reward_grows_all_the_way_to_the_goal(options):
    """As the paper says; so the goal must pay at its rim what the path pays at its end."""
    corner, goal = options.get("corner", 0.6), options.get("goal", 0.6)
    along = [(x.item(), 0.0) for x in torch.linspace(0, corner, 200)]
    up = [(corner, y.item()) for y in torch.linspace(0, goal, 400)]
    rewards = torch.tensor(payoff(along + up, **options)[0])
    assert (rewards.diff() > -1e-5).all()
    assert rewards[-1].item() == pytest.approx(options.get("goal_reward", 5))


def test_options():
    assert payoff([(0.3, 0.06)], half_width=0.07)[0] == pytest.approx([1.25])
    assert payoff([(0.6, 0.56)], rim=0.9)[0] == pytest.approx([4.6])
    assert payoff([(0.6, 0.7)], goal=0.7, goal_reward=10)[0] == pytest.approx([10])
    assert payoff([(0.3, 0.0)], goal=0.9)[0] == pytest.approx([1.0])
    assert payoff([(0.6, 0.7)], goal_radius=0.2, rim=0.9) == (pytest.approx([4.75]), [True])
    assert payoff([(0.25, 0.5)], corner=0.25, path_end=0.5)[0] == pytest.approx([5 * 0.75 / 0.85])
    assert payoff([(-0.3, -0.4)], penalty=0)[0] == [0]
    assert payoff([(-1.5, 2.0)], bound=2, penalty=3)[0] == pytest.approx([-7.5])
    assert make(NAME, bound=2).spec.action == Box(1, low=-2, high=2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"width": 0.1}, r"matrix/continuous: unknown option 'width', did you mean half_width\?"),
        ({"half_width": 0}, "matrix/continuous: half_width expects a number of at least 0.001, got 0"),
        ({"goal_radius": float("nan")}, "goal_radius expects a finite number of at most 1e.06 in size, got nan"),
        ({"goal_reward": float("inf")}, "goal_reward expects a finite number of at most 1e.06 in size, got inf"),
        ({"goal": "far"}, "goal expects float, got 'far'"),
        ({"rim": 1.5}, "rim expects a share from 0 to 1, got 1.5"),
        ({"penalty": -1}, "penalty expects a number of at least 0, got -1"),
        ({"bound": 0.5}, "corner and goal expect at most bound=0.5, got 0.6, 0.6"),
        ({"path_end": 0.7}, "path_end expects at most goal=0.6, got 0.7"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(UsageError, match=text):
        make(NAME, **options)


def test_agents_see_the_position():
    env = make(NAME, num_envs=2)
    step = env.reset()
    assert step.avail is None
    assert step.obs.tolist() == [[[0, 0], [0, 0]]] * 2
    assert step.state.tolist() == [[0, 0]] * 2
    step = env.step(torch.tensor([[[0.5], [0.25]], [[0.6], [0.6]]]))
    assert step.state.tolist() == [[0.5, 0.25], [pytest.approx(0.6), pytest.approx(0.6)]]
    assert torch.equal(step.obs, step.state[:, None].expand(2, 2, 2))
    step = env.reset(torch.tensor([False, True]))
    assert step.state.tolist() == [[0.5, 0.25], [0, 0]]
    assert step.info["goal_reached"].tolist() == [False, False]


def test_wrong_actions_name_environment_agent_and_action():
    env = make(NAME, num_envs=2)
    env.reset()
    actions = torch.zeros(2, 2, 1)
    actions[1, 0] = 1.5
    with pytest.raises(UsageError, match=r"matrix/continuous: environment 1, agent 0: action \[1.5\] is out of bounds"):
        env.step(actions)
    actions[1, 0] = float("nan")
    with pytest.raises(UsageError, match=r"action \[nan\] is out of bounds, expected 1 number from -1 to 1"):
        env.step(actions)
    with pytest.raises(UsageError, match=r"float32 of shape \[2, 2, 1\] \[E, n, D\], got int64 of shape \[2, 2\]"):
        env.step(torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_takes_the_nearest_action():
    env = make(NAME, num_envs=2, device="cuda")
    env.reset()
    step = env.step(torch.tensor([[[3.0], [-3.0]], [[0.3], [0.0]]], device="cuda"))
    assert step.state.tolist() == [[1, -1], [pytest.approx(0.3), 0]]


def test_a_step_never_waits_for_a_gpu():
    """Meta tensors have no values: whatever would copy one to the host raises."""
    env = make(NAME, num_envs=4, device="meta")
    env.reset()
    assert env.step(torch.zeros(4, 2, 1, device="meta")).obs.shape == (4, 2, 2)
