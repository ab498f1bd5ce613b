"""COMA: acting, what it saves, what it refuses, and that it learns."""

import pytest
import torch

from emix import learners, make
from emix.data import Step
from emix.data.replay import Replay
from emix.errors import UsageError
from emix.learners.coma import Coma, ComaConfig
from emix.learners.plan import Plan
from emix.playing.rollout import collect

REPLAY = Plan(source="replay", batch_size=64, buffer_size=1500)


def make_learner(spec, seed=0, **values):
    return Coma(ComaConfig(**values), spec, device="cpu", seed=seed)


def random_step(spec, num_envs=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    flags = torch.zeros(num_envs, dtype=torch.bool)
    return Step(
        obs=torch.randn(num_envs, spec.n_agents, spec.obs_dim, generator=generator),
        state=torch.randn(num_envs, spec.state_dim, generator=generator),
        avail=torch.rand(num_envs, spec.n_agents, spec.n_actions, generator=generator) < 0.5,
        reward=flags.float(),
        terminated=flags,
        truncated=flags,
    )


@pytest.mark.parametrize("explore", [True, False])
def test_only_available_actions_are_chosen(spec, explore):
    learner, step = make_learner(spec), random_step(spec)
    actions, *_ = learner.actor.act(step, learner.actor.initial_memory(512), explore=explore)
    none = ~step.avail.any(-1)
    assert none.any()
    assert (actions[none] == 0).all()
    assert step.avail[~none].gather(-1, actions[~none, None]).all()


def test_exploring_agents_draw_from_the_policies_with_their_floor(spec):
    learner, step = make_learner(spec, epsilon_anneal_time=100), random_step(spec, num_envs=1)
    learner.advance(env_steps=50, episodes=1)
    floor = learner.epsilon.value
    assert floor == pytest.approx(0.255)
    step.avail[:] = torch.tensor([True, True, False, True])
    many = Step(*(each.expand(40_000, *each.shape[1:]) for each in (step.obs, step.state, step.avail, step.reward)),
                terminated=step.terminated.expand(40_000), truncated=step.truncated.expand(40_000))  # fmt: skip
    actions, *_ = learner.actor.act(many, learner.actor.initial_memory(40_000), explore=True)
    none = torch.full((1, 1, spec.n_agents), spec.n_actions)
    p = (1 - floor) * learner.agent(step.obs[None], none)[0][0, 0].softmax(-1) + floor / 4  # [n, A]
    p = p * step.avail[0]
    share = torch.nn.functional.one_hot(actions, 4).float().mean(0)
    torch.testing.assert_close(share, (p / p.sum(-1, keepdim=True)).detach(), atol=0.01, rtol=0)


def test_same_seed_gives_the_same_bits_and_leaves_torch_alone(spec, random_episodes):
    torch.manual_seed(3)
    untouched = torch.get_rng_state()
    ours = [make_learner(spec, seed=seed) for seed in (7, 7, 8)]
    for learner in ours:
        for seed in range(3):
            learner.update(random_episodes(seed=seed))
            learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    same, again, other = (learner.parts.state_dict() for learner in ours)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["critic.head.weight"], other["critic.head.weight"])
    assert not torch.equal(same["generator"], other["generator"])
    assert torch.equal(torch.get_rng_state(), untouched)


@pytest.mark.parametrize("updates", [0, 3])
def test_a_restored_learner_continues_bit_for_bit(spec, random_episodes, updates):
    learner, restored = (make_learner(spec, seed=seed, target_update_interval=20) for seed in (0, 1))
    restored.update(random_episodes(seed=9))  # its own moments must go
    for seed in range(updates):
        learner.update(random_episodes(seed=seed))
        learner.advance(env_steps=1000, episodes=8)
    learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    state = {name: value.clone() for name, value in learner.parts.state_dict().items()}
    restored.parts.load_state_dict(state, "a test")
    for each in (learner, restored):
        each.update(random_episodes(seed=20))
        each.advance(env_steps=1000, episodes=8)
        each.actions, *_ = each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=True)
    assert torch.equal(learner.actions, restored.actions)
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("field", "value"),
    [("td_lambda", 1.5), ("epsilon_finish", -0.1), ("critic_lr", 0.0), ("critic_dim", 0), ("lr", "5e-4"), ("plan", 3)],
)
def test_a_config_refuses_nonsense(field, value):
    with pytest.raises(UsageError, match=f"{field}: expected .* got {value!r}"):
        ComaConfig(**{field: value})


@pytest.mark.parametrize("plan", [Plan(source="fresh", batch_size=64), REPLAY])
def test_it_learns_a_good_branch_of_the_steps_game(plan):
    """5 needs both agents to repeat one of two joint actions; what they do at random pays 1.1 on average."""
    env = make("matrix/msteps-5", num_envs=64, device="cpu", seed=0)
    settings = {"lr": 2e-3, "critic_lr": 2e-3, "epsilon_anneal_time": 5000, "target_update_interval": 50}
    learner = make_learner(env.spec, seed=1, plan=plan, **settings)
    replay = Replay(1500, env.spec, device="cpu", seed=0)
    assert collect(env, learner.actor, explore=True).returns.mean() < 2
    for _ in range(60):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        learner.update(learner.draw(replay))
        learner.advance(int(rollout.lengths.sum()), env.num_envs)
    assert collect(env, learner.actor, explore=False).returns.min() >= 5


def test_the_recipes_are_pymarls():
    for name in ("coma", "coma@pymarl"):
        recipe = learners.load_recipe(name)
        assert learners.make_config("coma", recipe.learner) == ComaConfig(
            td_lambda=0.8, gamma=0.99, hidden_dim=64, critic_dim=128, lr=5e-4, critic_lr=5e-4, rms_alpha=0.99,
            rms_eps=1e-5, grad_norm_clip=10, target_update_interval=200, epsilon_start=0.5, epsilon_finish=0.01,
            epsilon_anneal_time=100_000, bootstrap_truncated=False, plan=Plan(source="fresh", batch_size=8),
        )  # fmt: skip
        assert recipe.training["num_envs"] == 8
        assert recipe.env_options("battle/3m") == {"state_last_action": False}
    recipe = learners.load_recipe("coma@r")
    expected = Plan(source="replay", batch_size=32, buffer_size=1500)
    assert learners.make_config("coma", recipe.learner) == ComaConfig(plan=expected)
    assert recipe.training["num_envs"] == 4
