"""Ensemble-MIX's update against its equations written out in loops, and that padding does not matter."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emix.data import Discrete, EnvSpec
from emix.data.episodes import joined
from emix.distributed import Alone
from emix.learners.ensemble_mix import Batch, EnsembleMix
from emix.learners.ensemble_mix_config import EnsembleMixConfig
from tests.learners import slow_ensemble_mix as slow

DOP = {"members": 1, "bonus": "none", "c1": 0.0, "c2": 0.0, "actor": "on_policy", "norm": "bti"}
METHODS = {
    "ensemble-mix": {},
    "dop": DOP,
    "retrace": {"on_target": "retrace"},
    "c": {"c": 0.3, "c2": 0.0},
    "bias": {"mixer_bias": True, "actor": "off_policy", "c1": 0.0},
    "sum": {"actor": "mixed", "norm": "bti", "off_norm": "sum", "nu": 0.2},
    "no ids": {"agent_id": False},
    "bootstrap": {"bootstrap_truncated": True, "nu": 0.2, "tb_steps": 2, "on_target": "retrace", "c1": 0.0},
}
COUNT = 3  # on-policy episodes, which are also the actors'


def make_learner(spec, **values):
    """A small learner in float64, far from agreement, whose targets differ from its live networks."""
    settings = {"members": 6, "c1": 0.3, "c2": 0.05, "critic_dim": 5, "hidden_dim": 4, "mixing_embed_dim": 3} | values
    settings = {"gamma": 0.9, "td_lambda": 0.7, "tb_lambda": 0.8, "tb_steps": 3, "on_batch": COUNT} | settings
    settings = {"grad_norm_clip": 1e9, "critic_update": "batched"} | settings
    config = EnsembleMixConfig(**settings)
    learner = EnsembleMix(config, spec, device="cpu", seed=0)
    other = EnsembleMix(config, spec, device="cpu", seed=1)
    learner.critic.target.module.load_state_dict(other.critic.networks.state_dict())
    for networks in (learner.agent, learner.critic.networks, learner.critic.target.module):
        networks.double()
    with torch.no_grad():
        for networks in (learner.critic.networks, learner.critic.target.module):
            networks.critic.w_head *= 3
    return learner


@pytest.fixture
def small_spec():
    return EnvSpec(name="small", n_agents=2, action=Discrete(3), obs_dim=2, state_dim=3, episode_limit=4)


@pytest.fixture
def batch(random_episodes, small_spec):
    """Episodes of 1, 2 and 4 steps, of each kind of ending, on- and off-policy."""
    lengths = [4, 1, 2]
    on, off, newest = (
        random_episodes(4, seed=seed, dtype=torch.float64, spec=small_spec, lengths=lengths, endings=endings)
        for seed, endings in (
            (0, ["terminated", "truncated", "cut"]),
            (1, ["cut", "terminated", "truncated"]),
            (2, ["truncated", "cut", "terminated"]),
        )
    )
    return Batch(joined(on, off), newest)


def slow_targets(learner, batch, agent):
    """{(b, t): y} of every valid step."""
    config, ys = learner.config, {}
    for b, (episode, length) in enumerate(zip(batch.critics, batch.critics.lengths.tolist(), strict=True)):
        target = slow.on_target if b < config.on_batch else slow.off_target
        with torch.no_grad():
            pi = slow.policies(agent, episode, length, learner.epsilon.value)
            for t in range(length):
                ys[b, t] = target(config, learner.critic.target.module, episode, length, t, pi)
    return ys


def gradients(networks):
    return {name: parameter.grad.clone() for name, parameter in networks.named_parameters()}


def slow_gradients(loss, networks):
    parameters = dict(networks.named_parameters())
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    zeros = (torch.zeros_like(parameter) for parameter in parameters.values())
    return {name: z if g is None else g for name, g, z in zip(parameters, grads, zeros, strict=True)}


def finite_difference(loss, parameter, index, step=1e-5):
    """The derivative of ``loss()`` by one element of a parameter."""
    with torch.no_grad():
        flat = parameter.view(-1)
        original, values = flat[index].clone(), []
        for change in (step, -step):
            flat[index] = original + change
            values.append(float(loss()))
        flat[index] = original
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_equal_the_equations(small_spec, batch, method):
    learner = make_learner(small_spec, **METHODS[method])
    config, agent, critics = learner.config, copy.deepcopy(learner.agent), copy.deepcopy(learner.critic.networks)
    ys = slow_targets(learner, batch, agent)
    metrics = learner.update(batch)

    loss = slow.critic_loss(config, critics, batch.critics, ys, range(4))
    torch.testing.assert_close(metrics["loss"], loss.detach())
    torch.testing.assert_close(metrics["target_mean"], torch.tensor(list(ys.values()), dtype=torch.float64).mean())
    expected = slow_gradients(loss, critics)
    torch.testing.assert_close(gradients(learner.critic.networks), expected, atol=1e-9, rtol=1e-6)
    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    torch.testing.assert_close(metrics["critic_grad_norm"], norm)

    # The actors follow the critics as they are after that step.
    off = batch.critics[config.on_batch :]
    loss = slow.actor_loss(config, learner.critic.networks, agent, learner.epsilon.value, batch.actors, off)
    torch.testing.assert_close(metrics["actor_loss"], loss.detach())
    expected = slow_gradients(loss, agent)
    torch.testing.assert_close(gradients(learner.agent), expected, atol=1e-9, rtol=1e-6)


def test_two_steps_are_the_off_policy_term_and_then_the_on_policy_one(small_spec, batch):
    learner = make_learner(small_spec, actor="two_steps", norm="bti", off_norm="sum")
    config, agent = learner.config, copy.deepcopy(learner.agent)
    metrics = learner.update(batch)
    optimiser = torch.optim.RMSprop(agent.parameters(), lr=config.lr, alpha=config.rms_alpha, eps=config.rms_eps)
    floor, off = learner.epsilon.value, batch.critics[config.on_batch :]
    for actor, name in (("off_policy", "off_actor"), ("on_policy", "actor")):
        one = replace(config, actor=actor)
        loss = slow.actor_loss(one, learner.critic.networks, agent, floor, batch.actors, off)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        norm = torch.cat([each.grad.flatten() for each in agent.parameters()]).norm()
        torch.testing.assert_close(metrics[f"{name}_loss"], loss.detach())
        torch.testing.assert_close(metrics[f"{name}_grad_norm"], norm)
    torch.testing.assert_close(dict(learner.agent.state_dict()), dict(agent.state_dict()), atol=1e-9, rtol=1e-6)


def test_gradients_equal_finite_differences(small_spec, batch):
    # Without the diversity, whose mean is not learned from.
    learner = make_learner(small_spec, c2=0.0)
    config, agent, critics = learner.config, copy.deepcopy(learner.agent), copy.deepcopy(learner.critic.networks)
    ys = slow_targets(learner, batch, agent)
    learner.update(batch)
    off, after = batch.critics[config.on_batch :], learner.critic.networks

    def critic_loss():
        return slow.critic_loss(config, critics, batch.critics, ys, range(4))

    held = copy.deepcopy(agent)

    def actor_loss():
        return slow.actor_loss(config, after, agent, learner.epsilon.value, batch.actors, off, advantage_of=held)

    for loss, networks, learned_networks in ((critic_loss, critics, after), (actor_loss, agent, learner.agent)):
        for (name, parameter), gradient in zip(
            networks.named_parameters(), gradients(learned_networks).values(), strict=True
        ):
            index = int(gradient.abs().argmax())
            expected = finite_difference(loss, parameter, index)
            assert gradient.flatten()[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("method", ["ensemble-mix", "dop", "c"])
def test_a_step_for_each_time_step(small_spec, batch, method):
    """The critics after an update are those after T optimiser steps by hand, with targets that stay."""
    learner = make_learner(small_spec, **METHODS[method], critic_update="per_step", grad_norm_clip=0.5)
    config, agent, critics = learner.config, copy.deepcopy(learner.agent), copy.deepcopy(learner.critic.networks)
    ys = slow_targets(learner, batch, agent)
    optimizer = torch.optim.RMSprop(critics.parameters(), lr=config.critic_lr, alpha=0.99, eps=1e-5)
    losses, norms = [], []
    for t in range(4):
        loss = slow.critic_loss(config, critics, batch.critics, ys, [t])
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(critics.parameters(), 0.5))
        optimizer.step()
        losses.append(loss.detach())
    metrics = learner.update(batch)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).mean())
    torch.testing.assert_close(metrics["critic_grad_norm"], torch.stack(norms).mean())
    assert metrics["critic_grad_norm"] > 0.5  # so that clipping was seen
    torch.testing.assert_close(dict(learner.critic.networks.state_dict()), dict(critics.state_dict()))
    assert learner.critic.target.units == 4


@pytest.mark.parametrize("skips_padding", [True, False])
@pytest.mark.parametrize("critic_update", ["batched", "per_step"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(small_spec, batch, random_episodes, method, critic_update, skips_padding):
    """As a CPU and as a GPU computes it: neither reads what lies beyond an episode's end."""
    learners = [make_learner(small_spec, **METHODS[method], critic_update=critic_update) for _ in range(2)]
    learners[1].critic.skips_padding = skips_padding
    noise = random_episodes(
        4, seed=7, dtype=torch.float64, spec=small_spec, lengths=[4] * 6, endings=["cut"] * 6
    )  # nothing but real steps
    filled = Batch(batch.critics.clone(), batch.actors.clone())
    for episodes in filled:
        for b, length in enumerate(episodes.lengths.tolist()):
            for name in ("obs", "state", "avail", "actions", "probability"):
                episodes.by_name()[name][b, length + 1 :] = noise.by_name()[name][b, length + 1 :]
            episodes.reward[b, length:] = 7.0
            episodes.terminated[b, length + 1 :: 2] = True
    metrics = [learner.update(each) for learner, each in zip(learners, (batch, filled), strict=True)]
    torch.testing.assert_close(metrics[1], metrics[0])
    for name in ("agent", "critic"):
        networks = [learner.agent if name == "agent" else learner.critic.networks for learner in learners]
        torch.testing.assert_close(gradients(networks[1]), gradients(networks[0]))


@pytest.mark.parametrize("skips_padding", [True, False])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("critic_update", ["batched", "per_step"])
def test_more_padding_changes_nothing(small_spec, batch, critic_update, optimizer, skips_padding):
    """A step for each time step is none where there is nothing but padding: no moment fades, no target is due."""
    values = {"critic_update": critic_update, "optimizer": optimizer, "target_update_interval": 5}
    learners = [make_learner(small_spec, **values) for _ in range(2)]
    learners[1].critic.skips_padding = skips_padding
    longer = Batch(*(each.padded(each.valid.shape[1] + 3) for each in batch))
    for _ in range(3):
        metrics = [learner.update(each) for learner, each in zip(learners, (batch, longer), strict=True)]
        torch.testing.assert_close(metrics[1], metrics[0])
    torch.testing.assert_close(learners[1].parts.state_dict(), learners[0].parts.state_dict())
    assert learners[1].critic.target.units == 12


class Longer(Alone):
    """Another process has episodes that are 3 steps longer, of which it learns from ``real``, with gradients of 0."""

    def __init__(self, real):
        self.real = real

    def agree(self, value):
        return value + 3

    def sum_(self, tensors):
        for tensor in tensors:
            if tensor.dtype == torch.int64 and tensor.dim() == 1:  # how many are real at each time step
                tensor[4 : 4 + self.real] += 1


@pytest.mark.parametrize("skips_padding", [True, False])
@pytest.mark.parametrize("critic_update", ["batched", "per_step"])
def test_where_another_process_has_longer_episodes(small_spec, batch, critic_update, skips_padding):
    """As a CPU and as a GPU computes it."""
    alone, together = (make_learner(small_spec, critic_update=critic_update) for _ in range(2))
    together.critic.skips_padding = skips_padding
    together.parts.join(Longer(0))
    torch.testing.assert_close(together.update(batch), alone.update(batch))
    torch.testing.assert_close(together.parts.state_dict(), alone.parts.state_dict())


def test_all_processes_take_the_steps_of_the_longest_episode(small_spec, batch):
    """Both ways alike: the moments fade as they do in the process that learns, and the target counts its steps."""
    learners = [make_learner(small_spec, critic_update="per_step", optimizer="adam") for _ in range(3)]
    for learner, real, skips_padding in zip(learners, (2, 2, 0), (True, False, True), strict=True):
        learner.critic.skips_padding = skips_padding
        learner.parts.join(Longer(real))
    metrics = [learner.update(batch) for learner in learners]
    torch.testing.assert_close(metrics[0], metrics[1])
    ours, theirs, fewer = (learner.parts.state_dict() for learner in learners)
    torch.testing.assert_close(ours, theirs)
    assert [learner.critic.target.units for learner in learners] == [6, 6, 4]
    name = "critic.critic.w_head"
    assert not torch.equal(ours[name], fewer[name])  # Adam moves on


@pytest.mark.parametrize("method", [*METHODS, "two steps"])
@pytest.mark.parametrize("critic_update", ["batched", "per_step"])
def test_update_never_waits_for_the_device(small_spec, batch, method, critic_update):
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    values = METHODS.get(method, {"actor": "two_steps", "off_norm": "sum"})
    learner = make_learner(small_spec, **values, critic_update=critic_update)
    learner.critic.skips_padding = False  # as on a GPU
    learner.update(batch)
    with Record():
        learner.update(batch)
    assert {"ensemble_critic", "trace_returns", "policy_terms"} <= called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"}
