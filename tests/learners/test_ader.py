"""ADER: the budget's allocation, its operators and recursions, what it refuses, and that it learns."""

import math
import re

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

import emix
from emix import learners
from emix.data import Box, Discrete, EnvSpec, Episodes, Replay, TransitionReplay
from emix.errors import UsageError
from emix.learners.ader import Ader
from emix.learners.ader_config import AderConfig
from emix.learners.ader_critics import targets
from emix.learners.entropy_budget import EntropyBudget, Temperatures, allocate
from emix.learners.optimiser import Optimiser
from emix.learners.plan import Plan
from emix.playing import collect

BOX = EnvSpec("test", n_agents=2, action=Box(2, low=-1.0, high=3.0), obs_dim=3, state_dim=4, episode_limit=5)
DISCRETE = EnvSpec("test", n_agents=3, action=Discrete(4), obs_dim=3, state_dim=4, episode_limit=5)
slopes = st.lists(st.floats(0, 1e3, width=32), min_size=2, max_size=8)


def budget(total, n=2, **values):
    return EntropyBudget(AderConfig(**({"ema": 0.0} | values)), total, n, torch.device("cpu"))


def follow(one, slope, valid=None):
    """Of a batch of one step each, [B, n]."""
    slope = torch.as_tensor(slope)[:, None]
    valid = torch.ones(slope.shape[:2], dtype=torch.bool) if valid is None else valid
    one.follow(slope, valid, Optimiser(torch.nn.Linear(1, 1), "sgd"))


@hypothesis.given(slopes, st.sampled_from([0.1, 1.0]), st.sampled_from([-1.0, 1.0]))
def test_shares_sum_to_one_and_follow_the_order(slope, scale, sign):
    share = allocate(torch.tensor(slope), scale, sign)
    assert share.sum().item() == pytest.approx(1, abs=1e-5)
    order = torch.tensor(slope).argsort()
    assert (sign * share[order].diff() >= 0).all()  # the greater the slope, the more with +1, the less with -1


@pytest.mark.parametrize("total", [0.6, -2.0])
@pytest.mark.parametrize("allocation", ["adaptive", "reversed"])
def test_the_targets_sum_to_the_budget(total, allocation):
    one = budget(total, n=3, allocation=allocation)
    follow(one, [[0.1, 0.5, 2.0], [0.0, 3.0, 1.0]])
    assert one.targets.sum().item() == pytest.approx(total)
    follow(one, [[0.7, 0.7, 0.7]])
    torch.testing.assert_close(one.shares, torch.full((3,), 1 / 3))


@pytest.mark.parametrize(("total", "allocation", "more"), [
    (0.6, "adaptive", 0), (-2.0, "adaptive", 0), (0.6, "reversed", 1), (-2.0, "reversed", 1),
])  # fmt: skip
def test_who_contributes_less_gets_more_entropy(total, allocation, more):
    """Whatever the sign of the budget: a negative one is shared out the other way round."""
    one = budget(total, allocation=allocation)
    follow(one, [[0.2, 0.9]])
    assert one.targets.argmax() == more


def test_fixed_shares_stay():
    one, equal = budget(-2.0, allocation="fixed", shares=(0.35, 0.65)), budget(-2.0, allocation="fixed")
    for each in (one, equal):
        follow(each, [[0.2, 0.9]])
    torch.testing.assert_close(one.targets, torch.tensor([-0.7, -1.3]))  # SER-DCE's
    torch.testing.assert_close(equal.targets, torch.tensor([-1.0, -1.0]))  # SER-MARL's


def test_the_filter_keeps_most_of_the_old_shares():
    """Eq. 15, and the steps of padding count for nothing."""
    one = budget(-2.0, ema=0.9, share_scale=1.0)
    valid = torch.tensor([[True], [False]])
    follow(one, [[0.2, 0.4], [9.0, 0.0]], valid)
    new = torch.tensor([0.5, 1.0]).softmax(0)
    torch.testing.assert_close(one.shares, 0.9 * torch.tensor([0.5, 0.5]) + 0.1 * new, atol=1e-4, rtol=0)


def test_a_temperature_rises_while_its_agent_has_too_little_entropy():
    config = AderConfig(alpha_init=0.1, alpha_min=0.01, alpha_max=0.2)
    one = Temperatures(config, 2)
    optimiser = Optimiser(one, "rmsprop", lr=0.05)
    entropy = torch.tensor([0.2, 0.8]).expand(4, 3, 2)
    for _ in range(200):
        one.learn(entropy, torch.tensor([0.5, 0.5]), torch.ones(4, 3, 2, dtype=torch.bool), optimiser)
    torch.testing.assert_close(one.alpha, torch.tensor([0.2, 0.01]))  # the bounds
    one.learn(1 - entropy, torch.tensor([0.5, 0.5]), torch.ones(4, 3, 2, dtype=torch.bool), optimiser)
    assert one.alpha[0] < 0.2  # at once: it was not wound up beyond its bound


# A game that can be solved: 3 states, 2 agents with 2 actions each, every transition once.

STATES, ACTIONS, GAMMA = 3, 4, 0.9
NEXT = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1], [1, 0, 0, 2]])  # [S, joint actions]
REWARD = torch.tensor([[1.0, 0.0, -2.0, 0.5], [0.0, 3.0, 0.0, 0.0], [0.2, 0.0, 0.0, -1.0]], dtype=torch.float64)
LAST = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)  # ends the game
POLICY = torch.tensor([[[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], [[0.6, 0.4], [1.0, 0.0], [0.3, 0.7]]], dtype=torch.float64)
ENTROPY = -torch.xlogy(POLICY, POLICY).sum(-1).T  # [S, n]
JOINT = (POLICY[0][:, :, None] * POLICY[1][:, None]).flatten(1)  # [S, joint actions]


def operators(q_reward, q_entropy, **values):
    """T_R and T_H,i of tables [S, joint] and [S, joint, n], by the learner's own targets."""
    config = AderConfig(gamma=GAMMA, td_lambda=0.0, **values)
    v_reward, v_entropy = (JOINT * q_reward).sum(1), (JOINT[..., None] * q_entropy).sum(1)  # [S], [S, n]
    entries = torch.stack([torch.zeros_like(NEXT), NEXT], dim=-1).flatten(0, 1)  # [B, T+1]: where each leads
    none = torch.zeros(STATES * ACTIONS, 1, dtype=torch.bool)
    batch = Episodes.of(
        {"reward": REWARD.reshape(-1, 1), "terminated": LAST.reshape(-1, 1), "truncated": none}, ~none
    )  # the rest is not read
    values = {"reward": v_reward[entries], "entropy": v_entropy[entries]}
    y = targets(config, batch, values, ENTROPY[entries], torch.tensor([0.1, 0.3]))
    return y["reward"].view(STATES, ACTIONS), y["entropy"].view(STATES, ACTIONS, 2)


def test_the_operators_are_contractions():
    """Proposition 1: two tables come nearer by gamma at least, in the largest difference."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        shapes = [(STATES, ACTIONS), (STATES, ACTIONS, 2)]
        one, other = ([torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(2))
        images = operators(*one), operators(*other)
        for q, p, tq, tp in zip(one, other, *images, strict=True):
            assert (tq - tp).abs().max() <= GAMMA * (q - p).abs().max() + 1e-12


def test_their_fixed_points_are_the_values():
    """Eq. 8 and 9, solved as linear equations."""
    move = torch.zeros(STATES * ACTIONS, STATES * ACTIONS, dtype=torch.float64)
    for k, (state, last) in enumerate(zip(NEXT.flatten().tolist(), LAST.flatten().tolist(), strict=True)):
        move[k, state * ACTIONS : (state + 1) * ACTIONS] = JOINT[state] * (not last)
    resolvent = torch.eye(STATES * ACTIONS, dtype=torch.float64) - GAMMA * move
    follows = (~LAST).reshape(-1, 1) * ENTROPY[NEXT.flatten()]
    expected = torch.linalg.solve(resolvent, REWARD.flatten()), torch.linalg.solve(resolvent, GAMMA * follows)
    tables = torch.zeros(STATES, ACTIONS, dtype=torch.float64), torch.zeros(STATES, ACTIONS, 2, dtype=torch.float64)
    for _ in range(300):
        tables = operators(*tables)
    torch.testing.assert_close(tables[0].flatten(), expected[0])
    torch.testing.assert_close(tables[1].flatten(0, 1), expected[1])


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_the_entropy_recursion_has_the_right_fixed_point(lam):
    """Of a constant entropy h it is gamma h / (1 - gamma); the published code's recursion has 1 - lam of that."""
    h, steps = torch.tensor([0.5, 2.0]), 6
    config = AderConfig(gamma=0.9, td_lambda=lam)
    fixed = 0.9 * h / (1 - 0.9)
    none = torch.zeros(1, steps, dtype=torch.bool)
    batch = Episodes.of({"reward": torch.zeros(1, steps), "terminated": none, "truncated": none}, ~none)
    constant = torch.ones(1, steps + 1, 1)
    values = {"reward": torch.zeros(1, steps + 1), "entropy": fixed * constant}
    y = targets(config, batch, values, h * constant, torch.ones(2))["entropy"]
    torch.testing.assert_close(y, fixed.expand_as(y))


def test_the_budget():
    assert AderConfig(k_ratio=0.1).entropy_budget(DISCRETE) == pytest.approx(0.3 * math.log(4))
    assert AderConfig().entropy_budget(BOX) == -4
    assert AderConfig(budget=-1.5).entropy_budget(DISCRETE) == -1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha_init": -0.1}, "alpha_init: expected a number above 0, got -0.1"),
        ({"alpha_init": 0.6}, "alpha_init: expected a temperature from alpha_min (0.0001) to alpha_max (0.5), got 0.6"),
        ({"budget": math.inf}, "budget: expected a finite number, got inf"),
        ({"budget": "low"}, "budget: expected a value like 0.5, got 'low'"),
        ({"allocation": "equal"}, "allocation: expected one of adaptive, reversed, fixed, got 'equal'"),
        ({"shares": (0.5, 0.5)}, "shares: expected none with allocation adaptive"),
        ({"allocation": "fixed", "shares": (0.5, 0.4)}, "shares: expected numbers that sum to 1"),
        ({"allocation": "fixed", "shares": (1.5, -0.5)}, "shares: expected numbers above 0"),
        ({"target_tau": 0.0}, "target_tau: expected a share above 0"),
        ({"critics": "single", "alpha_in_critic": True}, "alpha_in_critic: a single soft critic"),
    ],
)
def test_bad_hyperparameters_are_refused(values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        AderConfig(**values)


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (BOX, {"allocation": "fixed", "shares": (0.2, 0.3, 0.5)}, "shares: expected one for each of 2 agents of test"),
        (BOX, {"metric": "entropy"}, "metric entropy is of discrete actions, test has Box(dim=2"),
        (BOX, {"plan": Plan(unit="transition")}, "plan.unit transition: expected policies without a memory"),
        (
            BOX,
            {"plan": Plan(unit="transition"), "recurrent": False},
            "plan.unit transition: a single step does not know",
        ),
        (DISCRETE, {"plan": Plan(unit="transition")}, "plan.unit transition: expected policies without a memory"),
        (DISCRETE, {"recurrent": False}, "recurrent False: policies of discrete actions are recurrent"),
        (DISCRETE, {"critic_second_dim": 32}, "critic_second_dim: expected critic_dim (64) for discrete actions"),
    ],
)
def test_what_does_not_go_with_the_environment_is_refused(spec, values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Ader(AderConfig(**values), spec, device="cpu", seed=0)


def test_actions_are_within_the_bounds_and_repeat():
    step = emix.data.Step(torch.randn(8, 2, 3), torch.randn(8, 4), None, *[torch.zeros(8)] * 3)
    one, same = (Ader(AderConfig(), BOX, device="cpu", seed=1) for _ in range(2))
    with torch.no_grad():
        for each in (one, same):
            each.policies.agent.head.bias[2:] = 2.0  # deviations so large that tanh rounds to its bounds
    actions, memory, _ = one.actor.act(step, one.actor.initial_memory(8), explore=True)
    assert actions.shape == (8, 2, 2)
    assert actions.min() >= -1
    assert actions.max() <= 3
    assert torch.equal(actions, same.actor.act(step, same.actor.initial_memory(8), explore=True).actions)
    assert torch.equal(memory.last_actions, actions)
    state = one.actor.generator.get_state()
    tests = [one.actor.act(step, memory, explore=False).actions for _ in range(2)]
    assert torch.equal(*tests)
    assert torch.equal(one.actor.generator.get_state(), state)


def test_an_actor_elsewhere_plays_the_same():
    step = emix.data.Step(torch.randn(8, 2, 3), torch.randn(8, 4), None, *[torch.zeros(8)] * 3)
    one, other = (Ader(AderConfig(), BOX, device="cpu", seed=seed) for seed in range(2))
    other.actor.load_weights(one.actor.weights(), version=3)
    acted = [each.actor.act(step, each.actor.initial_memory(8), explore=True).actions for each in (one, other)]
    assert torch.equal(*acted)


def test_a_million_transitions_of_half_cheetah_fit_in_4_gib():
    """HalfCheetah 6x1 at k = 1 without global features: observations of 4 numbers, a state of 17, one action each."""
    spec = EnvSpec("half-cheetah", n_agents=6, action=Box(1), obs_dim=4, state_dim=17, episode_limit=1000)
    learner = Ader(
        learners.make_config("ader", learners.load_recipe("ader@mujoco").learner), spec, device="cpu", seed=0
    )
    assert (learner.plan.unit, learner.plan.buffer_size) == ("transition", 1_000_000)
    replay = TransitionReplay(1_000_000, spec, learner.actor.record, device="cpu", seed=0)
    step = (6 * 4 + 17 + 6 + 1) * 4 + 2  # observations, state, actions, reward; two flags
    assert replay.bytes == 2 * 1_000_000 * step
    assert replay.bytes < 4 * 2**30
    default = EnvSpec("half-cheetah", n_agents=6, action=Box(1), obs_dim=9, state_dim=17, episode_limit=1000)
    assert TransitionReplay(1_000_000, default, (), device="cpu", seed=0).bytes < 4 * 2**30


def play(learner, env, rollouts, updates):
    """Train in the plainest loop; the mean return of greedy episodes."""
    make = TransitionReplay if learner.plan.unit == "transition" else Replay
    replay = make(learner.plan.buffer_size, env.spec, learner.actor.record, device="cpu", seed=0)
    for _ in range(rollouts):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        for _ in range(updates if len(replay) >= learner.plan.batch_size else 0):
            learner.update(learner.draw(replay))
        learner.advance(int(rollout.lengths.sum()), len(rollout.lengths))
    return collect(env, learner.actor, explore=False).returns.mean().item()


def test_learns_the_continuous_matrix_game():
    """Some of the way: with a wide path, from (0, 0), which pays 0, in 150 updates; acting at random pays -0.7."""
    values = learners.load_recipe("ader@matrix").learner | {"plan": {"unit": "transition", "batch_size": 64}}
    env = emix.make("matrix/continuous", num_envs=16, half_width=0.3)
    learner = Ader(learners.make_config("ader", values), env.spec, device="cpu", seed=1)
    assert play(learner, env, rollouts=150, updates=1) > 1


def test_learns_a_game_of_discrete_actions():
    """Two steps pay 5 at best; acting at random pays 1.1."""
    env = emix.make("matrix/msteps-2", num_envs=16)
    values = {"epsilon_anneal_time": 1000, "target_update_episodes": 32, "budget": 0.1}
    learner = Ader(AderConfig(**values), env.spec, device="cpu", seed=1)
    assert play(learner, env, rollouts=80, updates=2) >= 2
