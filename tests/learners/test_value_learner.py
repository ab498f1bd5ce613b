"""The value learner: acting, schedules, what it saves, and that it learns."""

import pytest
import torch

from emix import make
from emix.data import EnvSpec, Step
from emix.data.replay import Replay
from emix.errors import UsageError
from emix.learners.value import ValueConfig, ValueLearner
from emix.playing.rollout import collect


def make_learner(spec, seed=0, **values):
    return ValueLearner(ValueConfig(**values), spec, device="cpu", seed=seed)


def random_step(spec, num_envs=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    avail = torch.rand(num_envs, spec.n_agents, spec.n_actions, generator=generator) < 0.5
    flags = torch.zeros(num_envs, dtype=torch.bool)
    return Step(
        obs=torch.randn(num_envs, spec.n_agents, spec.obs_dim, generator=generator),
        state=torch.randn(num_envs, spec.state_dim, generator=generator),
        avail=avail,
        reward=flags.float(),
        terminated=flags,
        truncated=flags,
    )


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("explore", [True, False])
def test_only_available_actions_are_chosen(spec, explore):
    learner, step = make_learner(spec), random_step(spec)
    memory = learner.actor.initial_memory(512)
    for _ in range(5):
        actions, memory, _ = learner.actor.act(step, memory, explore=explore)
        none = ~step.avail.any(-1)
        assert none.any()
        assert (actions[none] == 0).all()
        assert step.avail[~none].gather(-1, actions[~none, None]).all()


def test_exploration_is_uniform_over_the_available_actions(spec):
    learner, step = make_learner(spec, epsilon_finish=1.0), random_step(spec, num_envs=20_000)
    step.avail[:] = torch.tensor([True, False, True, True])
    actions, *_ = learner.actor.act(step, learner.actor.initial_memory(20_000), explore=True)
    share = torch.bincount(actions.flatten(), minlength=4) / actions.numel()
    torch.testing.assert_close(share, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]), atol=0.01, rtol=0)


def test_epsilon_is_the_share_of_random_actions(spec):
    learner, step = make_learner(spec), random_step(spec, num_envs=20_000)
    learner.advance(env_steps=40_000, episodes=1)
    assert learner.epsilon.value == pytest.approx(1.0 - 0.95 * 40 / 50)
    step.avail[:] = True
    memory = learner.actor.initial_memory(20_000)
    greedy, *_ = learner.actor.act(step, memory, explore=False)
    chosen, *_ = learner.actor.act(step, memory, explore=True)
    differ = (greedy != chosen).float().mean().item()
    assert differ == pytest.approx(
        learner.epsilon.value * 3 / 4, abs=0.01
    )  # one random action of four is the greedy one


def test_epsilon_falls_linearly_and_stays(spec):
    learner = make_learner(spec, epsilon_start=0.9, epsilon_finish=0.1, epsilon_anneal_time=100)
    seen = []
    for _ in range(5):
        seen.append(learner.epsilon.value)
        assert learner.epsilon.tensor.item() == learner.epsilon.value  # which is what acting reads
        learner.advance(env_steps=40, episodes=1)
    assert seen == pytest.approx([0.9, 0.58, 0.26, 0.1, 0.1])


def test_greedy_acting_draws_nothing(spec):
    learner, step = make_learner(spec), random_step(spec)
    before = learner.actor.generator.get_state()
    learner.actor.act(step, learner.actor.initial_memory(512), explore=False)
    assert torch.equal(learner.actor.generator.get_state(), before)


def test_acting_sees_what_an_update_sees(spec, random_episodes):
    """The greedy actions along an episode are those of the whole-episode forward pass."""
    episodes = random_episodes()[6:]  # full length
    learner = make_learner(spec)
    first = torch.full_like(episodes.actions[:, :1], spec.n_actions)
    q, _ = learner.networks["agent"](episodes.obs, torch.cat([first, episodes.actions[:, :-1]], dim=1))
    expected = q.masked_fill(~episodes.avail, -torch.inf).argmax(-1)  # [B, T+1, n]
    memory, flags = learner.actor.initial_memory(3), torch.zeros(3, dtype=torch.bool)
    for t in range(spec.episode_limit + 1):
        step = Step(episodes.obs[:, t], episodes.state[:, t], episodes.avail[:, t], flags.float(), flags, flags)
        actions, memory, _ = learner.actor.act(step, memory, explore=False)
        assert torch.equal(actions, expected[:, t])
        memory = memory._replace(last_actions=episodes.actions[:, t])


def test_targets_are_renewed_when_due_and_only_then(spec, random_episodes):
    learner = make_learner(spec, target_update_episodes=10)
    for episodes, renewed in ((4, False), (4, False), (4, True), (4, False), (4, False), (4, True)):
        learner.update(random_episodes())
        learner.advance(env_steps=1, episodes=episodes)
        live, target = learner.networks.state_dict(), learner.targets.module.state_dict()
        assert all(torch.equal(live[name], target[name]) for name in live) == renewed


def test_same_seed_gives_the_same_bits_and_leaves_torch_alone(spec, random_episodes):
    torch.manual_seed(3)
    untouched = torch.get_rng_state()
    learners = [make_learner(spec, seed=seed) for seed in (7, 7, 8)]
    for learner in learners:
        for seed in range(3):
            learner.update(random_episodes(seed=seed))
            learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    same, again, other = (learner.parts.state_dict() for learner in learners)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["networks.agent.head.weight"], other["networks.agent.head.weight"])
    assert not torch.equal(same["generator"], other["generator"])
    assert torch.equal(torch.get_rng_state(), untouched)


@pytest.mark.parametrize("updates", [0, 3])
def test_a_restored_learner_continues_bit_for_bit(spec, random_episodes, updates):
    learner, restored = make_learner(spec, seed=0), make_learner(spec, seed=1)
    restored.update(random_episodes(seed=9))  # its own moments must go
    for seed in range(updates):
        learner.update(random_episodes(seed=seed))
        learner.advance(env_steps=1000, episodes=90)
    learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    restored.parts.load_state_dict(copied(learner.parts.state_dict()), "a test")
    for each in (learner, restored):
        each.update(random_episodes(seed=20))
        each.advance(env_steps=1000, episodes=90)
        each.actions, *_ = each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=True)
    assert torch.equal(learner.actions, restored.actions)
    assert learner.epsilon.value == restored.epsilon.value
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_restored_learner_shares_no_tensors(spec, random_episodes):
    learner, restored = make_learner(spec), make_learner(spec)
    learner.update(random_episodes())
    restored.parts.load_state_dict(learner.parts.state_dict(), "a test")
    before = copied(restored.parts.state_dict())
    learner.update(random_episodes())
    assert all(torch.equal(tensor, before[name]) for name, tensor in restored.parts.state_dict().items())


def test_a_foreign_state_is_refused_and_changes_nothing(spec):
    learner = make_learner(spec)
    before = copied(learner.parts.state_dict())
    larger = EnvSpec("larger", spec.n_agents, spec.action, spec.obs_dim + 1, spec.state_dim, spec.episode_limit)
    for foreign in (make_learner(larger), make_learner(spec, mixer="vdn"), make_learner(spec, hidden_dim=32)):
        with pytest.raises(UsageError, match="does not fit"):
            learner.parts.load_state_dict(foreign.parts.state_dict(), "a test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.parts.state_dict().items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mixer", "qmx"),
        ("target", "td"),
        ("td_lambda", 1.5),
        ("gamma", -0.1),
        ("lr", "5e-4"),
        ("lr", 0.0),
        ("n_step", 0),
        ("n_step", 2.0),
        ("hypernet_layers", 3),
        ("target_update_episodes", True),
        ("bootstrap_truncated", 1),
    ],
)
def test_a_config_refuses_nonsense(field, value):
    with pytest.raises(UsageError, match=f"{field}: expected .* got {value!r}"):
        ValueConfig(**{field: value})


@pytest.mark.parametrize("mixer", ["vdn", "qmix"])
def test_smix_learns_the_best_return_of_the_steps_game(mixer):
    """8 needs both agents to stay on the first branch and then to change together; the other branch pays 5."""
    env = make("matrix/msteps-5", num_envs=64, device="cpu", seed=0)
    settings = {"target_update_episodes": 640, "lr": 1e-3, "epsilon_anneal_time": 30_000, "epsilon_finish": 0.2}
    learner = make_learner(env.spec, seed=1, mixer=mixer, **settings)
    replay = Replay(2000, env.spec, device="cpu", seed=0)
    for _ in range(200):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        for _ in range(2):
            learner.update(replay.sample(64))
        learner.advance(int(rollout.lengths.sum()), env.num_envs)
    assert collect(env, learner.actor, explore=False).returns.tolist() == [8.0] * 64
