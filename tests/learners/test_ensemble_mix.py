"""Ensemble-MIX and DOP: acting, the exploration gate, what they save, what they refuse, and that they learn."""

import warnings

import pytest
import torch

from emix import learners
from emix.data import Discrete, EnvSpec, Field, Step
from emix.data.replay import Replay
from emix.errors import UsageError
from emix.learners.ensemble_mix import EnsembleMix
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from emix.learners.plan import Plan
from emix.playing.rollout import collect
from tests.learners import slow_ensemble_mix as slow

DOP = {"members": 1, "bonus": "none", "c1": 0.0, "c2": 0.0, "actor": "on_policy", "norm": "bti"}
SMALL = {"critic_dim": 16, "hidden_dim": 8, "mixing_embed_dim": 4}


def make_learner(spec, seed=0, batch=12, **values):
    config = EnsembleMixConfig(**(SMALL | values), plan=Plan(batch_size=batch))
    return EnsembleMix(config, spec, device="cpu", seed=seed)


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


def everything(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def set_members(learner, q):
    """Let the live critics say ``q`` [N, n, A] whatever they see."""

    def forward(state, obs):
        return q.unsqueeze(1).expand(-1, len(state), -1, -1)

    learner.critic.networks.critic.forward = forward


def set_logits(learner, logits):
    """Let the actors say ``logits`` [A] whatever they see."""
    head = learner.agent.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(logits)


@pytest.mark.parametrize("values", [{}, DOP, {"bonus": "variance"}, {"gate_over": "all"}, {"test_sample": True}])
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


# Eq. 13 and 14: six agents whose members differ in how their values are spread.
TAILS = {
    "laplace": torch.distributions.Laplace(0.0, 1.0),
    "student": torch.distributions.StudentT(3.0),
    "normal": torch.distributions.Normal(0.0, 1.0),
    "uniform": torch.distributions.Uniform(-1.0, 1.0),
}


def open_share(distribution, members, n_actions, seed=0):
    """How often the gate of an agent opens whose members' values are drawn from a distribution."""
    torch.manual_seed(seed)
    spec = EnvSpec("gate", n_agents=50, action=Discrete(n_actions), obs_dim=2, state_dim=2, episode_limit=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        learner = make_learner(spec, members=members)
    for _ in range(20):
        set_members(learner, distribution.sample((members, spec.n_agents, n_actions)))
        step = random_step(spec, num_envs=1)
        step.avail[:] = True
        learner.actor.act(step, learner.actor.initial_memory(1), explore=True)
    opened, acted = learner.actor.explored.tolist()
    assert acted == 20 * 50
    return opened / acted


def test_the_gate_opens_for_heavy_tails_and_stays_shut_without():
    """algorithms.md 1.3: 52 to 59% for Laplace members, 2.4% for normal ones at 9 actions."""
    share = {name: open_share(distribution, 10, 9) for name, distribution in TAILS.items()}
    assert 0.45 < share["laplace"] < 0.65
    assert share["student"] > 0.5
    assert 0.005 < share["normal"] < 0.05
    assert share["uniform"] == 0.0
    assert open_share(TAILS["normal"], 10, 36) < share["normal"]
    assert open_share(TAILS["student"], 4, 9) == 0.0  # four values cannot be heavy-tailed


def exploring_policy(spec, values, q, logits, avail, draws=200_000):
    """How often each action is drawn, [A], by agents whose members and logits are given."""
    learner = make_learner(spec, members=len(q), epsilon_start=0.2, epsilon_finish=0.2, **values)
    set_members(learner, q[:, None, :].expand(-1, spec.n_agents, -1))
    set_logits(learner, logits)
    step = random_step(spec, num_envs=draws // spec.n_agents)
    step.avail[:] = avail
    actions, _, record = learner.actor.act(step, learner.actor.initial_memory(len(step.state)), explore=True)
    share = torch.bincount(actions.flatten(), minlength=spec.n_actions) / actions.numel()
    reported = torch.zeros(spec.n_actions).index_put((actions.flatten(),), record["probability"].flatten())
    return share, reported, (learner.actor.explored[0] / learner.actor.explored[1]).item()


@pytest.mark.parametrize(
    ("values", "opened", "what"),
    [
        ({"bonus": "kurtosis", "beta": 0.5}, 1.0, "kurtosis"),
        ({"bonus": "kurtosis", "beta": 0.5, "gate_over": "all"}, 0.0, "nothing"),  # a light tail where none may act
        ({"bonus": "kurtosis", "beta": 0.5, "bonus_limit": 3.0}, 1.0, "limited"),  # the first action's would be 4.06
        ({"bonus": "variance", "beta": 2.0}, 1.0, "variance"),
        ({"bonus": "none"}, 0.0, "nothing"),
    ],
)
def test_exploration_draws_from_the_softmax_with_bonus_and_floor(spec, values, opened, what):
    q = torch.zeros(10, 4)
    q[0, :3] = torch.tensor([1.0, 0.1, 2.0])  # one outlier: kurtosis 8.1
    q[:2, 1] = 0.1  # two: 4.25
    q[:, 3] = torch.arange(10) % 2 * 1.0  # two camps: 1
    logits, avail = torch.tensor([0.5, -0.5, 0.0, 1.0]), torch.tensor([True, True, True, False])
    if values.get("gate_over") == "all":
        q[:, 0] = q[:, 2] = q[:, 3]  # excess -2, 1.25, -2, -2 over all
    kurtosis = torch.tensor([slow.kurtosis(q[:, a].tolist()) for a in range(4)])
    bonus = {
        "kurtosis": kurtosis,
        "limited": kurtosis.clamp(max=6.0),
        "variance": q.var(0, correction=0),
        "nothing": torch.zeros(4),
    }[what]
    expected = slow.floored(logits + values.get("beta", 0.0) * bonus * avail, avail, 0.2)
    share, reported, gate = exploring_policy(spec, values, q, logits, avail)
    torch.testing.assert_close(share, expected, atol=0.006, rtol=0)
    torch.testing.assert_close(reported, expected, atol=1e-5, rtol=0)
    assert gate == opened


def test_the_floor_falls_linearly_and_stays(spec):
    learner = make_learner(spec)
    seen = []
    for _ in range(4):
        seen.append(learner.epsilon.value)
        assert learner.epsilon.tensor.item() == learner.epsilon.value  # which is what ops read
        learner.advance(env_steps=200_000, episodes=1)
    assert seen == pytest.approx([0.5, 0.32, 0.14, 0.05])


def test_explore_fraction_counts_what_was_played_since_the_last_advance(spec, random_episodes):
    learner = make_learner(spec)
    q = torch.zeros(10, spec.n_agents, spec.n_actions)
    q[0, 0] = 1.0  # the first agent's gate is open, the others' members agree
    set_members(learner, q)
    step = random_step(spec, num_envs=4)
    step.avail[:] = True
    done = Step(step.obs, step.state, step.avail, step.reward, torch.tensor([False, True, True, False]), step.truncated)
    for each in (step, done, done):
        learner.actor.act(each, learner.actor.initial_memory(4), explore=True)
    learner.actor.act(step, learner.actor.initial_memory(4), explore=False)
    assert learner.actor.explored.tolist() == [8, 8 * spec.n_agents]
    learner.advance(env_steps=1, episodes=4)
    assert learner.actor.explored.tolist() == [0, 0]


def test_greedy_acting_draws_nothing_and_sampling_tests_leave_exploration_alone(spec):
    for values in ({}, {"test_sample": True}):
        learner, step = make_learner(spec, **values), random_step(spec)
        states = [generator.get_state() for generator in (learner.actor.generator, learner.actor.test_generator)]
        learner.actor.act(step, learner.actor.initial_memory(512), explore=False)
        assert torch.equal(learner.actor.generator.get_state(), states[0])
        assert torch.equal(learner.actor.test_generator.get_state(), states[1]) == (not values)


def replay_of(random_episodes, spec, batches=5):
    record = (Field("probability", (spec.n_agents,), "float32", "observation"),)
    replay = Replay(100, spec, record, device="cpu", seed=0)
    for seed in range(batches):
        episodes = random_episodes(seed=seed)
        replay.add(episodes, episodes.lengths)
    return replay


def test_draw_takes_the_newest_a_window_of_new_ones_and_any(spec, random_episodes):
    replay = replay_of(random_episodes, spec)  # 45 episodes
    learner = make_learner(spec, on_batch=4, on_window=9)
    keys = {float(replay.steps.tensors["reward"][replay.table[k, 0]]): k for k in range(45)}  # first rewards are unlike
    seen = {"on": set(), "off": set(), "actors": set()}
    for _ in range(200):
        batch = learner.draw(replay)
        assert (len(batch.critics), len(batch.actors)) == (16, 4)
        on, off = batch.critics[:4], batch.critics[4:]
        for name, episodes in (("on", on), ("off", off), ("actors", batch.actors)):
            numbers = [keys[float(reward)] for reward in episodes.reward[:, 0]]
            assert len(set(numbers)) == len(numbers)
            seen[name] |= set(numbers)
    assert seen == {"on": set(range(36, 45)), "off": set(range(45)), "actors": set(range(41, 45))}
    assert len(make_learner(spec, batch=3, on_batch=4).draw(replay).actors) == 3


def test_dops_ring_draws_from_all_of_it_where_the_newest_are_cut(spec, random_episodes):
    """The next episode would lie at place 5 of a buffer of 10: its newest 5 are in one piece, its newest 6 are not."""
    replay = replay_of(random_episodes, spec)  # 45 episodes
    keys = {float(replay.steps.tensors["reward"][replay.table[k, 0]]): k for k in range(45)}
    for count, first in ((4, 41), (5, 40), (6, 35)):
        learner, seen = make_learner(spec, on_batch=count, on_window=10, actor_batch="ring"), set()
        for _ in range(60):
            seen |= {keys[float(reward)] for reward in learner.draw(replay).actors.reward[:, 0]}
        assert seen == set(range(first, 45))


def test_targets_are_renewed_every_so_many_time_steps(spec, random_episodes):
    replay = replay_of(random_episodes, spec)
    learner = make_learner(spec, batch=20, target_update_interval=25)
    lengths = []
    for _ in range(8):
        batch = learner.draw(replay)
        lengths.append(batch.critics.valid.shape[1])
        due = learner.critic.target.units + lengths[-1] - learner.critic.target.renewed_at >= 25
        learner.update(batch)
        live, target = learner.critic.networks.state_dict(), learner.critic.target.module.state_dict()
        assert all(torch.equal(live[name], target[name]) for name in live) == due
    assert learner.critic.target.units == sum(lengths)


def used(spec, random_episodes, seed, updates, **values):
    learner = make_learner(spec, seed=seed, **values)
    replay = replay_of(random_episodes, spec)
    for _ in range(updates):
        learner.update(learner.draw(replay))
        learner.advance(env_steps=50_000, episodes=4)
    learner.actor.act(random_step(spec), learner.actor.initial_memory(512), explore=True)
    return learner


def test_same_seed_gives_the_same_bits_and_leaves_torch_alone(spec, random_episodes):
    torch.manual_seed(3)
    untouched = torch.get_rng_state()
    same, again, other = (used(spec, random_episodes, seed, 2).parts.state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["agent.head.weight"], other["agent.head.weight"])
    assert not torch.equal(same["critic.critic.w_encode"], other["critic.critic.w_encode"])
    assert not torch.equal(same["generator"], other["generator"])
    assert torch.equal(torch.get_rng_state(), untouched)


@pytest.mark.parametrize("values", [{}, DOP | {"optimizer": "adam"}, {"on_target": "retrace", "test_sample": True}])
@pytest.mark.parametrize("updates", [0, 3])
def test_a_restored_learner_continues_bit_for_bit(spec, random_episodes, updates, values):
    learner = used(spec, random_episodes, 0, updates, target_update_interval=20, **values)
    restored = used(spec, random_episodes, 1, 1, target_update_interval=20, **values)
    restored.parts.load_state_dict(everything(learner.parts.state_dict()), "a test")
    replay = replay_of(random_episodes, spec)
    for _ in range(2):
        batch = learner.draw(replay)
        for each in (learner, restored):
            each.metrics = each.update(batch)
            each.actions, *_ = each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=True)
            each.greedy, *_ = each.actor.act(random_step(spec), each.actor.initial_memory(512), explore=False)
            each.advance(env_steps=1000, episodes=4)
        assert torch.equal(learner.actions, restored.actions)
        assert torch.equal(learner.greedy, restored.greedy)
        assert learner.metrics == restored.metrics
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_foreign_state_is_refused_and_changes_nothing(spec):
    learner = make_learner(spec)
    before = everything(learner.parts.state_dict())
    larger = EnvSpec("larger", spec.n_agents, spec.action, spec.obs_dim + 1, spec.state_dim, spec.episode_limit)
    for foreign in (make_learner(larger), make_learner(spec, members=5), make_learner(spec, mixer_bias=True)):
        with pytest.raises(UsageError, match="does not fit"):
            learner.parts.load_state_dict(foreign.parts.state_dict(), "a test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.parts.state_dict().items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("members", 0),
        ("members", 1.0),
        ("members", 65),
        ("bonus", "curiosity"),
        ("beta", -0.1),
        ("c", 1.5),
        ("c", "none"),
        ("c2", -1e-3),
        ("nu", 1.1),
        ("actor", "on"),
        ("actor_batch", "oldest"),
        ("off_norm", "mean"),
        ("bonus_limit", 0.0),
        ("critic_update", "sequential"),
        ("on_window", 15),
        ("tb_steps", 0),
        ("optimizer", "sgd"),
        ("mixer_bias", 1),
        ("lr", 0.0),
    ],
)
def test_a_config_refuses_nonsense(field, value):
    with pytest.raises(UsageError, match=f"{field}: expected .* got {value!r}"):
        EnsembleMixConfig(**{field: value})


def test_one_member_is_no_ensemble():
    for values in ({}, {"bonus": "none", "c1": 0}, {"c1": 0, "c2": 0}, {"bonus": "none", "c2": 0}):
        with pytest.raises(UsageError, match="members: expected at least 2 for an ensemble, got 1; a single critic"):
            EnsembleMixConfig(members=1, **values)
    assert EnsembleMixConfig(members=1, bonus="none", c1=0, c2=0).members == 1


def test_a_gate_that_can_never_open_is_told():
    for members in (2, 4):
        with pytest.warns(UserWarning, match=f"members={members}: .* the exploration gate stays shut"):
            EnsembleMixConfig(members=members)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EnsembleMixConfig(members=5)
        EnsembleMixConfig(members=4, bonus="variance")


class CueGame:
    """Each of two agents sees one of four cues, new at each of five steps; each that answers with its number earns a
    half. The best return is 5, that of random agents 1.25; one that ignores its cue gets no more."""

    def __init__(self, num_envs):
        self.spec = EnvSpec("cues", n_agents=2, action=Discrete(4), obs_dim=4, state_dim=8, episode_limit=5)
        self.num_envs, self.device = num_envs, torch.device("cpu")
        self.generator = torch.Generator().manual_seed(0)

    def reset(self, where=None):
        self.time, self.reward = 0, torch.zeros(self.num_envs)
        return self._show()

    def step(self, actions):
        self.time += 1
        self.reward = (actions == self.cue).float().mean(1)
        return self._show()

    def _show(self):
        self.cue = torch.randint(4, (self.num_envs, 2), generator=self.generator)
        obs = torch.nn.functional.one_hot(self.cue, 4).float()
        over = torch.full((self.num_envs,), self.time == 5)
        avail = torch.ones(self.num_envs, 2, 4, dtype=torch.bool)
        return Step(obs, obs.flatten(1), avail, self.reward, terminated=over, truncated=torch.zeros_like(over))


@pytest.mark.parametrize("name", ["dop", "ensemble-mix"])
def test_it_learns_to_answer_the_cues(name):
    env = CueGame(num_envs=16)
    quick = {
        "lr": 5e-3,
        "critic_lr": 2e-3,
        "critic_dim": 32,
        "epsilon_anneal_time": 4000,
        "target_update_interval": 100,
    }
    config = learners.make_config(name, learners.merged(learners.load_recipe(name).learner, quick))
    learner = learners.get(name).learner(config, env.spec, device="cpu", seed=1)
    replay = Replay(500, env.spec, learner.actor.record, device="cpu", seed=0)
    for _ in range(50):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        if len(replay) >= 32:
            learner.update(learner.draw(replay))
        learner.advance(int(rollout.lengths.sum()), env.num_envs)
    assert collect(env, learner.actor, explore=False).returns.mean() > 4.5
