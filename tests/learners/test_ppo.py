"""MAPPO, IPPO and PERLA: acting, what they save, what they refuse, and that they learn."""

from dataclasses import replace

import pytest
import torch

import emix
from emix import learners
from emix.data import Box, Replay, Step
from emix.errors import UsageError
from emix.learners.plan import Plan
from emix.learners.ppo import PPO
from emix.learners.ppo_config import PPOConfig
from emix.playing.rollout import collect
from tests.learners.test_ppo_update import CASES, CONTINUOUS, GAE, PERLA, continuous

SMALL = {"hidden_dim": 8}
VALUED = {"value_norm": "debiased", "normalise_advantage": True, "minibatches": 3}
EVERY = CASES | PERLA | {"gae, scaled": GAE | VALUED, "rmsprop": {"optimizer": "rmsprop", "momentum": 0.9}}
EVERY |= {"resampled": {"samples": 3, "resample": True}, "greedy": {"test_sample": False}, "hard": {"target": "hard"}}


def make_learner(spec, seed=0, batch=9, **values):
    return PPO(
        PPOConfig(**(SMALL | values), plan=Plan(source="fresh", batch_size=batch)), spec, device="cpu", seed=seed
    )


def random_step(spec, num_envs=512, seed=0):
    g = torch.Generator().manual_seed(seed)
    flags, box = torch.zeros(num_envs, dtype=torch.bool), isinstance(spec.action, Box)
    return Step(
        obs=torch.randn(num_envs, spec.n_agents, spec.obs_dim, generator=g),
        state=torch.randn(num_envs, spec.state_dim, generator=g),
        avail=None if box else torch.rand(num_envs, spec.n_agents, spec.n_actions, generator=g) < 0.5,
        reward=flags.float(),
        terminated=flags,
        truncated=flags,
    )


def everything(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize(
    "values", [{}, {"network": "mlp"}, {"share": False, "layer_norm": True}, {"test_sample": False}]
)
@pytest.mark.parametrize("explore", [True, False])
def test_only_available_actions_are_chosen(spec, explore, values):
    learner, step = make_learner(spec, **values), random_step(spec)
    memory = learner.actor.initial_memory(512)
    for _ in range(3):
        actions, memory, _ = learner.actor.act(step, memory, explore=explore)
        none = ~step.avail.any(-1)
        assert none.any()
        assert (actions[none] == 0).all()
        assert step.avail[~none].gather(-1, actions[~none, None]).all()


def test_tests_draw_or_take_the_likeliest_and_leave_training_alone(spec):
    for sample in (True, False):
        learner, step = make_learner(spec, test_sample=sample), random_step(spec)
        before = [g.get_state() for g in (learner.actor.generator, learner.actor.test_generator)]
        first, again = (learner.actor.act(step, learner.actor.initial_memory(512), explore=False) for _ in range(2))
        assert torch.equal(learner.actor.generator.get_state(), before[0])
        assert torch.equal(learner.actor.test_generator.get_state(), before[1]) != sample
        assert torch.equal(first.actions, again.actions) != sample


@pytest.mark.parametrize("values", [{}, {"network": "mlp"}, {"layer_norm": True}, {"share": False}])
def test_what_is_recorded_is_what_an_update_computes(spec, random_episodes, values):
    """Step by step along an episode, and for the whole of it at once."""
    episodes, learner = random_episodes()[6:], make_learner(spec, **values)
    memory, flags = learner.actor.initial_memory(3), torch.zeros(3, dtype=torch.bool)
    actions, recorded = [], []
    for t in range(spec.episode_limit + 1):
        step = Step(episodes.obs[:, t], episodes.state[:, t], episodes.avail[:, t], flags.float(), flags, flags)
        taken, memory, record = learner.actor.act(step, memory, explore=True)
        actions.append(taken)
        recorded.append(record["log_prob"])
    outputs, _ = learner.networks(episodes.obs)
    terms = learner.networks.policy.terms(outputs, torch.stack(actions, 1), episodes.avail, {}, None)
    torch.testing.assert_close(torch.stack(recorded, 1), terms.log_prob, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distribution", ["gaussian", "tanh_gaussian"])
def test_continuous_actions_lie_in_the_box(distribution):
    learner, step = make_learner(CONTINUOUS, distribution=distribution), random_step(CONTINUOUS)
    for explore in (True, False):
        acted = learner.actor.act(step, learner.actor.initial_memory(512), explore=explore)
        assert acted.actions.shape == (512, 3, 2)
        CONTINUOUS.action.check_values("a test", acted.actions, None, step.done)
        assert acted.record.keys() == {"log_prob", "latent"}


def used(spec, random_episodes, seed, updates, **values):
    learner = make_learner(spec, seed=seed, **values)
    for number in range(updates):
        learner.update(random_episodes(seed=number))
        learner.advance(env_steps=50, episodes=9)
    learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    return learner


@pytest.mark.parametrize("name", ["mappo", "own", "gae, scaled", "q", "resampled"])
def test_same_seed_gives_the_same_bits_and_leaves_torch_alone(spec, random_episodes, name):
    torch.manual_seed(3)
    untouched = torch.get_rng_state()
    learned = [used(spec, random_episodes, seed, 2, **EVERY[name]) for seed in (7, 7, 8)]
    same, again, other = (each.parts.state_dict() for each in learned)
    assert all(torch.equal(same[name], again[name]) for name in same)
    weight = next(name for name in same if name.startswith("networks.network"))
    assert not torch.equal(same[weight], other[weight])
    assert not torch.equal(same["acting_generator"], other["acting_generator"])
    assert torch.equal(torch.get_rng_state(), untouched)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("updates", [0, 2])
def test_a_restored_learner_continues_bit_for_bit(spec, random_episodes, updates, name):
    learner = used(spec, random_episodes, 0, updates, **EVERY[name])
    restored = used(spec, random_episodes, 1, 1, **EVERY[name])
    restored.parts.load_state_dict(everything(learner.parts.state_dict()), "a test")
    for number in range(2):
        for each in (learner, restored):
            each.metrics = each.update(random_episodes(seed=10 + number))
            each.found = [
                each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=explore).actions
                for explore in (True, False)
            ]
        assert all(torch.equal(*pair) for pair in zip(learner.found, restored.found, strict=True))
        assert learner.metrics == restored.metrics
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("distribution", ["gaussian", "tanh_gaussian"])
def test_a_restored_continuous_learner_continues_bit_for_bit(random_episodes, distribution):
    values = {"samples": 3, "distribution": distribution, "minibatches": 2, "network": "mlp"}
    batch = continuous(random_episodes, dtype=torch.float32)
    learner, restored = (make_learner(CONTINUOUS, seed=seed, **values) for seed in (0, 1))
    learner.update(batch)
    restored.parts.load_state_dict(everything(learner.parts.state_dict()), "a test")
    assert learner.update(batch) == restored.update(batch)
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_are_all_that_another_actor_needs(spec):
    one, other = make_learner(spec, seed=0), make_learner(spec, seed=1)
    other.actor.load_weights(one.actor.weights(), version=3)
    found = [each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=True) for each in (one, other)]
    assert torch.equal(found[0].actions, found[1].actions)
    assert torch.equal(found[0].record["log_prob"], found[1].record["log_prob"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": -1}, "samples: expected 0 or a number above it, got -1"),
        ({"samples": 2.0}, "samples: expected a value like 0, got 2.0"),
        ({"critic": "q"}, "samples: expected at least 1 with critic q"),
        ({"fit": "executed"}, "fit executed and resample False, which are PERLA's, got 0"),
        ({"resample": True}, "samples: expected at least 1"),
        ({"samples": 3, "critic_network": "gru"}, "critic_network: expected mlp with samples, got gru"),
        ({"samples": 3, "share": False}, "share: expected true with samples"),
        ({"minibatches": 2}, r"minibatches: expected a divisor of plan.batch_size \(9\), got 2"),
        ({"minibatches": 0}, "minibatches: expected a number above 0"),
        ({"momentum": 0.5}, "momentum: adam has none: expected 0, got 0.5"),
        ({"returns": "td"}, "returns: expected one of n_step, gae, got 'td'"),
        ({"clip": 0.0}, "clip: expected a number above 0"),
        ({"huber_delta": -1.0}, "huber_delta: expected a number above 0"),
        ({"gae_lambda": 1.5}, "gae_lambda: expected a number from 0 to 1"),
    ],
)
def test_wrong_hyperparameters_are_refused(spec, values, message):
    with pytest.raises(UsageError, match=message):
        make_learner(spec, **values)


def test_a_plan_that_replays_is_refused():
    with pytest.raises(UsageError, match=r"plan.source: PPO expects fresh episodes, got replay"):
        PPOConfig(plan=Plan(source="replay"))


def test_a_q_critic_of_continuous_actions_is_refused():
    with pytest.raises(UsageError, match=r"critic q expects discrete actions, .* box has Box\(dim=2.*choose critic v"):
        make_learner(CONTINUOUS, samples=3, critic="q")


def test_an_agent_without_an_action_is_refused_where_others_would_be_sampled(spec, random_episodes):
    def data(batch):
        replay = Replay(9, spec, learner.actor.record, device="cpu", seed=0)
        replay.add(batch, batch.lengths)
        return replay

    learner, batch = make_learner(spec, samples=3), random_episodes()
    batch.avail[batch.avail.any(-1), 0] = True
    assert len(learner.draw(data(batch))) == 9  # nothing is wrong with padding, which has none
    batch.avail[4, 2, 1] = False
    with pytest.raises(UsageError, match=r"samples=3: agent 1 of test has no available action at step 2 of an episode"):
        learner.draw(data(batch))
    learner = make_learner(spec)
    assert len(learner.draw(data(batch))) == 9


@pytest.mark.parametrize("name", ["iql", "dop"])
def test_learners_of_values_refuse_a_box(name):
    with pytest.raises(UsageError, match="expects discrete actions"):
        learners.get(name).learner(learners.make_config(name, {}), CONTINUOUS, device="cpu", seed=0)


def test_recipes_are_what_their_names_say():
    def config(name):
        return learners.make_config(name, learners.load_recipe(name).learner)

    assert config("mappo") == config("mappo@epymarl")
    assert config("ippo") == config("ippo@epymarl")
    for base, see in (("mappo", "state"), ("ippo", "obs")):
        names = [name for name in learners.list_algorithms() if name.removeprefix("perla-").startswith(f"{base}@")]
        assert len(names) == 7
        assert {config(name).critic_input for name in names} == {see}
        assert {config(name).samples for name in names if name.startswith("perla")} == {100}
        assert {config(name).samples for name in names if not name.startswith("perla")} == {0}
        assert replace(config(f"{base}@on-policy"), critic_input="state") == config("mappo@on-policy")
    assert replace(config("perla-ippo"), critic_input="state") == config("perla-mappo")


def train(env, name, rollouts, **values):
    """A learner after so many rollouts, each an update."""
    values |= {"plan": {"batch_size": env.num_envs}}
    config = learners.make_config(name, learners.merged(learners.load_recipe(name).learner, values))
    learner = learners.get(name).learner(config, env.spec, device="cpu", seed=1)
    replay = Replay(2 * env.num_envs, env.spec, learner.actor.record, device="cpu", seed=0)
    for _ in range(rollouts):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        learner.update(learner.draw(replay))
        learner.advance(int(rollout.lengths.sum()), env.num_envs)
    return learner


QUICK = {"hidden_dim": 32, "lr": 5e-3, "critic_lr": 5e-3, "test_sample": False}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mappo", {}),
        ("ippo@on-policy", {"epochs": 5}),
        ("perla-mappo", {"samples": 10}),
        ("perla-ippo", {"samples": 10, "critic": "q"}),
    ],
)
def test_it_learns_the_five_steps(name, values):
    """matrix/msteps-5: 8 at best, 5 on the plain branch; random agents get 1.6."""
    env = emix.make("matrix/msteps-5", num_envs=32, seed=0)
    learner = train(env, name, 30, **QUICK | values)
    assert collect(env, learner.actor, explore=False).returns.mean() > 4.5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mappo", {}),
        ("perla-mappo", {"samples": 10}),
        ("perla-ippo@mujoco", {"samples": 10, "minibatches": 4, "lr": 5e-4}),  # whose momentum is worth tenfold
    ],
)
def test_it_learns_continuous_actions(name, values):
    """matrix/continuous: the nearest to keep still is 0, drawing at random is below -0.5; a path leads on."""
    env = emix.make("matrix/continuous", num_envs=64, seed=0)
    values = QUICK | {"log_std_init": -1.0, "network": "mlp", "entropy": 0.0} | values
    before = collect(env, train(env, name, 0, **values).actor, explore=True).returns.mean()
    learner = train(env, name, 40, **values)
    after = collect(env, learner.actor, explore=False).returns.mean()
    assert after > before + 0.3
