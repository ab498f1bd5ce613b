"""QTRAN: what it regresses on, that padding does not matter, what it saves and refuses, and that it learns."""

import pytest
import torch
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from emix import learners, make
from emix.data.replay import Replay
from emix.errors import UsageError
from emix.learners.plan import Plan
from emix.learners.qtran import Qtran, QtranConfig
from emix.playing.rollout import collect

GAMMA, LAM = 0.9, 0.7
WEIGHTS = {"opt_weight": 0.8, "nopt_weight": 0.3}


def make_learner(spec, seed=0, **values):
    return Qtran(QtranConfig(**values), spec, device="cpu", seed=seed)


def make_double(spec, **values):
    """A learner in float64 whose targets differ from its live networks."""
    values = {"gamma": GAMMA, "td_lambda": LAM, "bootstrap_truncated": True, "hidden_dim": 8} | WEIGHTS | values
    learner, other = make_learner(spec, **values), make_learner(spec, seed=1, **values)
    learner.targets.module.load_state_dict(other.networks.state_dict())
    learner.networks.double()
    learner.targets.module.double()
    with torch.no_grad():
        learner.networks["agent"].head.bias -= 0.5  # so that L_nopt counts some steps and leaves others out
    return learner


def agents_steps(networks, episode, length):
    """Values [A] of every agent and the GRU's states, [L+1, n, A] and [L+1, n, H], a step at a time."""
    n, n_actions = episode.avail.shape[1:]
    hidden, last, values, states = None, torch.full((1, 1, n), n_actions), [], []
    for t in range(length + 1):
        q, hidden = networks["agent"](episode.obs[t][None, None], last, hidden)
        values.append(q[0, 0])
        states.append(hidden[0])
        last = episode.actions[t][None, None]
    return torch.stack(values), torch.stack(states)


def joint_value(networks, state, hidden, actions):
    joint, n_actions = networks["joint"], networks["agent"].head.out_features
    pairs = torch.cat([hidden, one_hot(torch.as_tensor(actions), n_actions).double()], dim=-1)
    encoding = joint.encode_head(joint.encode(pairs).relu()).sum(0)
    return joint.q(torch.cat([state, encoding]))[0]


def best_actions(episode, q, t):
    return [max(episode.avail[t, i].nonzero().flatten().tolist(), key=q[i].tolist().__getitem__) for i in range(len(q))]


def slow_losses(learner, episodes):
    """L_td, L_opt and L_nopt, one valid step after the other, straight from their definitions."""
    config, td, opt, nopt = learner.config, [], [], []
    for episode, length in zip(episodes, episodes.lengths.tolist(), strict=True):
        q, hidden = agents_steps(learner.networks, episode, length)
        _, target_hidden = agents_steps(learner.targets.module, episode, length)
        best = [best_actions(episode, q[t], t) for t in range(length + 1)]
        evaluated = best if config.target == "max" else episode.actions.tolist()
        later = [
            joint_value(learner.targets.module, episode.state[t], target_hidden[t], evaluated[t]).detach()
            for t in range(length + 1)
        ]
        lam, y = (0.0 if config.target == "max" else LAM), later[length]
        for t in reversed(range(length)):
            ended = episode.terminated[t] or (episode.truncated[t] and not config.bootstrap_truncated)
            y = episode.reward[t] + (0.0 if ended else GAMMA) * ((1 - lam) * later[t + 1] + lam * y)
            actions, v = episode.actions[t].tolist(), learner.networks["joint"].v(episode.state[t])[0]
            q_jt = joint_value(learner.networks, episode.state[t], hidden[t], actions)
            best_q_jt = joint_value(learner.networks, episode.state[t], hidden[t], best[t])
            td.append(q_jt - y)
            opt.append(sum(q[t, i, a] for i, a in enumerate(best[t])) - best_q_jt.detach() + v)
            nopt.append((sum(q[t, i, a] for i, a in enumerate(actions)) - q_jt.detach() + v).clamp(max=0))
    return [torch.stack(each).square().mean() for each in (td, opt, nopt)]


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("target", ["max", "lambda"])
@pytest.mark.parametrize("bootstrap_truncated", [False, True])
def test_loss_and_gradient_equal_a_slow_reference(spec, random_episodes, target, bootstrap_truncated):
    episodes = random_episodes(dtype=torch.float64)
    learner = make_double(spec, target=target, bootstrap_truncated=bootstrap_truncated, grad_norm_clip=1e9)
    td, opt, nopt = slow_losses(learner, episodes)
    assert min(td, opt, nopt) > 0
    loss = td + WEIGHTS["opt_weight"] * opt + WEIGHTS["nopt_weight"] * nopt
    parameters = dict(learner.networks.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    metrics = learner.update(episodes)
    found = [metrics[name] for name in ("loss", "td_loss", "opt_loss", "nopt_loss")]
    torch.testing.assert_close(found, [each.detach() for each in (loss, td, opt, nopt)])
    torch.testing.assert_close({name: each.grad for name, each in parameters.items()}, expected)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("target", ["max", "lambda"])
def test_padding_changes_neither_loss_nor_gradient(spec, random_episodes, target):
    short, noise = random_episodes(dtype=torch.float64)[:6], random_episodes(seed=5, dtype=torch.float64)
    filled = short.clone()  # what lies beyond an episode's end is not read at all
    for b, length in enumerate(short.lengths.tolist()):
        for name in ("obs", "state", "avail", "actions"):
            getattr(filled, name)[b, length + 1 :] = getattr(noise, name)[8, length + 1 :]
        filled.reward[b, length:] = 7.0
    ours = [make_double(spec, target=target) for _ in range(3)]
    metrics = [one.update(batch) for one, batch in zip(ours, (short.trim(6), short, filled), strict=True)]
    gradients = [{name: each.grad for name, each in one.networks.named_parameters()} for one in ours]
    for other in (1, 2):
        torch.testing.assert_close(metrics[other], metrics[0])
        torch.testing.assert_close(gradients[other], gradients[0])


def test_only_the_td_loss_has_another_target_in_qtran_r(spec, random_episodes):
    """Of which its gradient is, too: with the target networks alike the other two losses are the same number."""
    episodes = random_episodes(dtype=torch.float64)
    first, second = (make_double(spec, target=target).update(episodes) for target in ("max", "lambda"))
    assert first["td_loss"] != second["td_loss"]
    assert torch.equal(first["opt_loss"], second["opt_loss"])
    assert torch.equal(first["nopt_loss"], second["nopt_loss"])


@pytest.mark.parametrize("target", ["max", "lambda"])
def test_update_never_waits_for_the_device(spec, random_episodes, target):
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    learner, episodes = make_learner(spec, target=target), random_episodes()
    learner.update(episodes)
    with Record():
        learner.update(episodes)
    assert {"gru_sequence", "gru_sequence_backward", "trace_returns"} <= called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"}


@pytest.mark.parametrize("updates", [0, 3])
def test_a_restored_learner_continues_bit_for_bit(spec, random_episodes, updates):
    learner, restored = make_learner(spec, seed=0), make_learner(spec, seed=1)
    restored.update(random_episodes(seed=9))  # its own moments must go
    for seed in range(updates):
        learner.update(random_episodes(seed=seed))
        learner.advance(env_steps=1000, episodes=90)
    state = {name: value.clone() for name, value in learner.parts.state_dict().items()}
    restored.parts.load_state_dict(state, "a test")
    for each in (learner, restored):
        each.update(random_episodes(seed=20))
        each.advance(env_steps=1000, episodes=90)
    first, second = learner.parts.state_dict(), restored.parts.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("field", "value"), [("target", "n_step"), ("opt_weight", -1.0), ("gamma", 2), ("mixing_embed_dim", 0)]
)
def test_a_config_refuses_nonsense(field, value):
    with pytest.raises(UsageError, match=f"{field}: expected .* got {value!r}"):
        QtranConfig(**{field: value})


@pytest.mark.parametrize("target", ["max", "lambda"])
def test_it_learns_the_game_that_no_monotonic_mixer_can_say(target):
    """8 if both take the first action, -12 if one of them does, 0 otherwise (the game of the paper's table 1)."""
    env = make("matrix/penalty-2x3", num_envs=64, device="cpu", seed=0)
    settings = {"lr": 1e-3, "epsilon_anneal_time": 5000, "target_update_episodes": 640}
    learner = make_learner(env.spec, seed=1, target=target, **settings)
    replay = Replay(2000, env.spec, device="cpu", seed=0)
    for _ in range(100):
        rollout = collect(env, learner.actor, explore=True)
        replay.add(rollout.episodes, rollout.lengths)
        learner.update(replay.sample(64))
        learner.advance(int(rollout.lengths.sum()), env.num_envs)
    assert collect(env, learner.actor, explore=False).returns.tolist() == [8.0] * 64


def test_the_recipes_are_pymarls():
    for name, num_envs in (("qtran", 4), ("qtran@pymarl", 1)):
        recipe = learners.load_recipe(name)
        assert learners.make_config("qtran", recipe.learner) == QtranConfig(
            target="max", gamma=0.99, opt_weight=1, nopt_weight=0.1, hidden_dim=64, mixing_embed_dim=64, lr=5e-4,
            rms_alpha=0.99, rms_eps=1e-5, grad_norm_clip=10, target_update_episodes=200, epsilon_start=1,
            epsilon_finish=0.05, epsilon_anneal_time=50_000, bootstrap_truncated=False,
            plan=Plan(source="replay", batch_size=32, buffer_size=5000),
        )  # fmt: skip
        assert recipe.training["num_envs"] == num_envs
    config = learners.make_config("qtran", learners.load_recipe("qtran@r").learner)
    assert config == QtranConfig(target="lambda", td_lambda=0.8, plan=Plan(batch_size=32, buffer_size=1500))
