"""The matrix games against numbers computed by hand from their definitions."""

from itertools import product

import pytest
import torch

from emix.envs import make
from emix.errors import UsageError

JOINT = list(product((0, 1), repeat=2))  # 00, 01, 10, 11: branches 0 to 3


def play(name, joint_actions):
    """The return and the number of steps of one episode with the given joint actions."""
    env = make(name)
    step, total, steps = env.reset(), 0.0, 0
    for joint in joint_actions:
        if step.done:
            break
        step = env.step(torch.tensor([joint]))
        total, steps = total + float(step.reward), steps + 1
    assert step.terminated.item() is True
    assert step.truncated.item() is False
    return total, steps


@pytest.mark.parametrize("m", [2, 3, 5, 9])
def test_msteps_best_returns(m):
    assert play(f"matrix/msteps-{m}", [(0, 0)] * (m - 1) + [(1, 1)]) == (m + 3, m)
    assert play(f"matrix/msteps-{m}", [(0, 0)] * m) == (m, m)
    assert play(f"matrix/msteps-{m}", [(1, 1)] * m) == (m, m)


def test_msteps_all_sixteen_payoffs_of_the_last_step():
    """Rows: the branch; columns: the joint action of the last step. Branches 1 and 2 end at once with nothing."""
    returns = [[play("matrix/msteps-2", [first, last])[0] for last in JOINT] for first in JOINT]
    assert returns == [[2, 2, 2, 5], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 2]]


@pytest.mark.parametrize("branch", [(0, 0), (1, 1)])
@pytest.mark.parametrize("leave_at", [1, 2, 3])
def test_msteps_leaving_the_branch_ends_the_game(branch, leave_at):
    for other in JOINT:
        if other != branch:
            assert play("matrix/msteps-5", [branch] * leave_at + [other] * 5) == (leave_at, leave_at + 1)


def test_msteps_observation_is_step_and_branch():
    env = make("matrix/msteps-3", num_envs=2)
    step = env.reset()
    start = [1, 0, 0, 0, 1, 0, 0, 0]  # step 0 of 0..3, and branch 0 until one is chosen
    assert step.state.tolist() == [start, start]
    step = env.step(torch.tensor([[0, 0], [1, 1]]))
    step = env.step(torch.tensor([[0, 0], [0, 1]]))
    expected = [[0, 0, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 1]]
    assert step.state.tolist() == expected
    assert step.obs.tolist() == [[row, row] for row in expected]
    assert step.done.tolist() == [False, True]


def test_penalty_is_the_table_of_perla():
    env = make("matrix/penalty-2x3", num_envs=9)
    env.reset()
    step = env.step(torch.tensor(list(product(range(3), repeat=2))))
    assert step.reward.view(3, 3).tolist() == [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]
    assert step.terminated.all()


def test_penalty_of_more_agents():
    env = make("matrix/penalty-3x6", num_envs=6**3)
    env.reset()
    joint = torch.tensor(list(product(range(6), repeat=3)))
    reward = env.step(joint).reward
    first = (joint == 0).sum(1)
    assert reward[first == 3].tolist() == [8]
    assert set(reward[(first == 1) | (first == 2)].tolist()) == {-12}
    assert set(reward[first == 0].tolist()) == {0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("matrix/msteps-1", "at least 2 steps"),
        ("matrix/penalty-1x3", "at least 2 agents and 2 actions, got 1 and 3"),
        ("matrix/penalty-2x1", "got 2 and 1"),
    ],
)
def test_games_that_make_no_sense(name, text):
    with pytest.raises(UsageError, match=text):
        make(name)


def test_wrong_actions_name_environment_agent_and_action():
    env = make("matrix/penalty-3x4", num_envs=2)
    with pytest.raises(UsageError, match="call reset"):
        env.step(torch.zeros(2, 3, dtype=torch.int64))
    env.reset()
    for action in (4, -1):
        with pytest.raises(UsageError, match=rf"penalty-3x4: environment 1, agent 2: action {action} is not available"):
            env.step(torch.tensor([[0, 0, 0], [0, 0, action]]))
    with pytest.raises(UsageError, match=r"int64 of shape \[2, 3\] \[E, n\], got int64 of shape \[2, 2\]"):
        env.step(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(UsageError, match="got float32"):
        env.step(torch.zeros(2, 3))
    with pytest.raises(UsageError, match="got list"):
        env.step([[0, 0, 0], [0, 0, 0]])
    with pytest.raises(UsageError, match="device cpu, got meta"):
        env.step(torch.zeros(2, 3, dtype=torch.int64, device="meta"))


def test_wrong_resets():
    env = make("matrix/msteps-2", num_envs=2)
    with pytest.raises(UsageError, match="first reset"):
        env.reset(torch.tensor([True, False]))
    env.reset()
    with pytest.raises(UsageError, match=r"bool of shape \[2\] \[E\], got bool of shape \[3\]"):
        env.reset(torch.tensor([True, False, True]))
    with pytest.raises(UsageError, match="got int64"):
        env.reset(torch.tensor([1, 0]))
    env.episode = torch.tensor([3, -1])
    with pytest.raises(UsageError, match=r"not be negative, got \[3, -1\]"):
        env.reset()
    env.episode = [0, 0]
    with pytest.raises(UsageError, match="got list"):
        env.reset()


@pytest.mark.parametrize("name", ["matrix/msteps-3", "matrix/penalty-3x4"])
def test_a_step_never_waits_for_a_gpu(name):
    """Meta tensors have no values: whatever would copy one to the host raises."""
    env = make(name, num_envs=4, device="meta")
    env.reset()
    step = env.step(torch.zeros(4, env.spec.n_agents, dtype=torch.int64, device="meta"))
    assert step.reward.shape == (4,)
    assert step.obs.device.type == "meta"


@pytest.mark.parametrize("payoffs", [{}, {"best": 10}, {"best": 0.1, "penalty": 0.3, "otherwise": -0.7}])
def test_payoffs_of_the_penalty_game(payoffs):
    env = make("matrix/penalty-3x4", num_envs=4, **payoffs)
    env.reset()
    step = env.step(torch.tensor([[0, 0, 0], [0, 3, 0], [1, 2, 0], [1, 2, 3]]))
    best, penalty, otherwise = ({"best": 8, "penalty": -12, "otherwise": 0} | payoffs).values()
    assert torch.equal(step.reward, torch.tensor([best, penalty, penalty, otherwise], dtype=torch.float32))
    for value in (float("inf"), float("nan"), 1e30, "8"):
        with pytest.raises(UsageError, match="matrix/penalty-3x4: penalty expects"):
            make("matrix/penalty-3x4", penalty=value)
