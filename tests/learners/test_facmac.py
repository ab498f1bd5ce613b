"""FACMAC's update against its equations, and what it refuses."""

import copy
import re

import pytest
import torch

import emix
from emix.data import Box, Discrete, EnvSpec, Episodes, TransitionReplay
from emix.errors import UsageError
from emix.learners import get, load_recipe, make_config
from emix.learners.facmac import Facmac
from emix.learners.facmac_config import FacmacConfig
from emix.learners.plan import Plan
from tests.learners.test_ader_update import as_boxes
from tests.learners.test_ensemble_mix_update import gradients, slow_gradients

SPEC = EnvSpec(name="small", n_agents=2, action=Box(2, low=-1.0, high=3.0), obs_dim=2, state_dim=3, episode_limit=4)
SMALL = {"hidden_dim": 4, "second_dim": 5, "critic_dim": 5, "critic_second_dim": 4, "mixing_embed_dim": 3}
EPISODES = Plan(batch_size=4, buffer_size=10)
METHODS = {
    "mlp": {},
    "recurrent": {"recurrent": True, "agent_id": True, "last_action": True, "plan": EPISODES, "hypernet_layers": 1},
    "cut at the limit": {"bootstrap_truncated": False, "critic_agent_id": True, "action_penalty": 0.0},
}


def make_learner(**values):
    """A small one in float64 whose targets differ from its live networks."""
    config = FacmacConfig(**({"grad_norm_clip": 1e9, "gamma": 0.9, "action_penalty": 0.3} | SMALL | values))
    one, other = (Facmac(config, SPEC, device="cpu", seed=seed) for seed in range(2))
    one.targets.module.load_state_dict(other.networks.state_dict())
    for module in (one.networks, one.targets.module):
        module.double()
    return one


@pytest.fixture
def batch(random_episodes):
    spec = EnvSpec(name="small", n_agents=2, action=Discrete(3), obs_dim=2, state_dim=3, episode_limit=4)
    endings = ["terminated", "truncated", "cut", "truncated"]
    return as_boxes(random_episodes(4, dtype=torch.float64, spec=spec, lengths=[4, 1, 2, 4], endings=endings), SPEC)


def policy(agent, episode, length):
    """tanh of what the network says, a step at a time: [L+1] of [n, D]."""
    hidden, last, result = None, torch.zeros(1, 1, 2, 2, dtype=torch.float64), []
    for t in range(length + 1):
        numbers, hidden = agent(episode.obs[t][None, None], last, hidden)
        result.append(torch.tanh(numbers[0, 0]))
        last = episode.actions[t][None, None]
    return result


def q_tot(critic, episode, t, unit):
    """Each agent by itself, then the mixer in plain torch."""
    net, state = critic.utilities, episode.state[t]
    values = []
    for i in range(2):
        x = torch.cat([episode.obs[t, i], unit[i], *([torch.eye(2, dtype=unit.dtype)[i]] if net.agent_id else [])])
        for layer in (net.first, net.second):
            x = torch.relu(x @ layer.weight[0] + layer.bias[0, 0])
        values.append((x @ net.head.weight[0] + net.head.bias[0, 0])[0])
    mixer = critic.mixer
    hidden = mixer.b1(state) + torch.stack(values) @ mixer.w1(state).view(2, -1).abs()
    return torch.nn.functional.elu(hidden) @ mixer.w2(state).abs() + mixer.v(state)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_equation(batch, method):
    learner = make_learner(**METHODS[method])
    config, before = learner.config, copy.deepcopy(learner.networks)
    target = copy.deepcopy(learner.targets.module)
    lengths = batch.lengths.tolist()
    critic_loss = policy_loss = 0.0
    metrics = learner.update(batch)
    for episode, length in zip(batch, lengths, strict=True):
        units, ahead = policy(before["agent"], episode, length), policy(target["agent"], episode, length)
        for t in range(length):
            cut = bool(episode.terminated[t]) or (bool(episode.truncated[t]) and not config.bootstrap_truncated)
            with torch.no_grad():
                later = 0.0 if cut else config.gamma * q_tot(target["critic"], episode, t + 1, ahead[t + 1])
            q = q_tot(before["critic"], episode, t, (episode.actions[t] - 1) / 2)
            critic_loss = critic_loss + (episode.reward[t] + later - q).square() / sum(lengths)
            gain = q_tot(learner.networks["critic"], episode, t, units[t])  # by the critic after its step
            policy_loss = policy_loss + (config.action_penalty * units[t].square().mean() - gain) / sum(lengths)
    torch.testing.assert_close(metrics["loss"], critic_loss.detach())
    torch.testing.assert_close(metrics["policy_loss"], policy_loss.detach())
    for name, loss in (("critic", critic_loss), ("agent", policy_loss)):
        expected = slow_gradients(loss, before[name])
        torch.testing.assert_close(gradients(learner.networks[name]), expected, atol=1e-9, rtol=1e-6)
    expected = {k: v.lerp(learner.networks.state_dict()[k], config.target_tau) for k, v in target.state_dict().items()}
    torch.testing.assert_close(dict(learner.targets.module.state_dict()), expected)


def test_noise_while_exploring_and_none_in_tests():
    step = emix.data.Step(torch.randn(500, 2, 2), torch.randn(500, 3), None, *[torch.zeros(500)] * 3)
    learner = Facmac(FacmacConfig(action_noise=0.1), SPEC, device="cpu", seed=0)
    memory = learner.actor.initial_memory(500)
    plain, noisy = (learner.actor.act(step, memory, explore=explore).actions for explore in (False, True))
    assert (noisy - plain).std().item() == pytest.approx(0.2, rel=0.1)  # of the box's half width of 2
    assert torch.equal(plain, learner.actor.act(step, memory, explore=False).actions)
    assert -1 <= noisy.min() <= noisy.max() <= 3


def test_discrete_actions_are_refused():
    spec = EnvSpec("battle/3m", n_agents=3, action=Discrete(9), obs_dim=2, state_dim=3, episode_limit=4)
    message = "FACMAC expects actions that are vectors, battle/3m has Discrete(n=9): choose another environment"
    with pytest.raises(UsageError, match=re.escape(message)):
        Facmac(FacmacConfig(), spec, device="cpu", seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recurrent": True}, "recurrent: policies with a memory learn from episodes"),
        ({"last_action": True}, "last_action: a single step does not know the action before"),
        ({"action_noise": -0.1}, "action_noise: expected 0 or a number above it, got -0.1"),
        ({"optimizer": "sgd"}, "optimizer: expected one of adam, rmsprop, got 'sgd'"),
    ],
)
def test_bad_hyperparameters_are_refused(values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        FacmacConfig(**values)


def test_layers_of_both_papers():
    own, aders = (make_config("facmac", load_recipe(name).learner) for name in ("facmac", "facmac@ader"))
    assert (own.hidden_dim, own.second_dim, own.critic_dim, own.critic_second_dim) == (400,) * 4
    assert (aders.hidden_dim, aders.second_dim, aders.critic_dim, aders.critic_second_dim) == (400, 300, 400, 300)


def test_learns_where_a_parabola_is_highest():
    """From 64 steps of random actions that pay -(a - 0.5)^2 each, in actions scaled to [-1, 1]."""
    values = load_recipe("facmac@matrix").learner | {
        "lr": 0.0005
    }  # slower than the critic, which knows nothing at first
    learner = get("facmac").learner(make_config("facmac", values), SPEC, device="cpu", seed=1)
    generator = torch.Generator().manual_seed(0)
    unit = 2 * torch.rand(64, 2, 2, 2, generator=generator) - 1  # [B, T+1, n, D]
    none = torch.zeros(64, 1, dtype=torch.bool)
    values = dict(
        obs=torch.zeros(64, 2, 2, 2), state=torch.zeros(64, 2, 3), actions=1 + 2 * unit,
        reward=-(unit[:, :1] - 0.5).square().sum((-1, -2)), terminated=~none, truncated=none,
    )  # fmt: skip
    batch = Episodes.of(values, ~none)
    for _ in range(400):
        learner.update(batch)
    step = emix.data.Step(torch.zeros(1, 2, 2), torch.zeros(1, 3), None, *[torch.zeros(1)] * 3)
    actions = learner.actor.act(step, learner.actor.initial_memory(1), explore=False).actions
    assert ((actions - 1) / 2 - 0.5).abs().max() < 0.3


def test_a_batch_is_of_transitions():
    learner = Facmac(FacmacConfig(), SPEC, device="cpu", seed=0)
    replay = TransitionReplay(100, SPEC, learner.actor.record, device="cpu", seed=0)
    values = dict(
        obs=torch.randn(2, 4, 2, 2), state=torch.randn(2, 4, 3), actions=torch.zeros(2, 4, 2, 2),
        reward=torch.ones(2, 3), terminated=torch.zeros(2, 3, dtype=torch.bool),
        truncated=torch.zeros(2, 3, dtype=torch.bool),
    )  # fmt: skip
    replay.add(Episodes.of(values, torch.ones(2, 3, dtype=torch.bool)), torch.tensor([3, 3]))
    assert learner.draw(replay).reward.shape == (100, 1)
