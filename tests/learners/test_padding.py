"""Agents that have fewer numbers than others: what is after an agent's own is in no loss, and actors leave it alone."""

import pytest
import torch

from emix.data import Box, EnvSpec, TransitionReplay
from emix.envs.tensor import TensorEnv
from emix.learners import get, make_config
from emix.learners.policies import Gaussian
from emix.playing import RandomActor, collect

BOX = Box(2, low=-1.0, high=3.0, sizes=(2, 1))
SMALL = {"critic_dim": 6, "critic_second_dim": 5, "second_dim": 5, "mixing_embed_dim": 3}
TRANSITIONS = {"plan": {"unit": "transition", "batch_size": 8, "buffer_size": 50, "updates_per_rollout": 1}}
METHODS = {
    "ader": SMALL | TRANSITIONS | {"recurrent": False, "last_action": False, "agent_id": False},
    "facmac": SMALL | TRANSITIONS,
    "mappo": {"network": "mlp"},
    "perla-mappo": {"network": "mlp", "samples": 3},
}


class Push(TensorEnv):
    """Pays for numbers near 0.5; padding must be in the middle of the bounds."""

    def __init__(self, num_envs):
        spec = EnvSpec("test/push", n_agents=2, action=BOX, obs_dim=3, state_dim=2, episode_limit=5)
        super().__init__(spec, num_envs=num_envs, device=torch.device("cpu"))
        self.generator = torch.Generator().manual_seed(0)

    def _start(self, where, started):
        self.seen = torch.randn(self.num_envs, 2, 3, generator=self.generator)

    def _play(self, actions):
        assert (actions[:, 1, 1] == 1).all()
        self.seen = torch.randn(self.num_envs, 2, 3, generator=self.generator)
        return -(actions - 0.5).square().sum((1, 2)), torch.zeros(self.num_envs, dtype=torch.bool)

    def _observe(self):
        return self.seen, self.seen[:, 0, :2].clone(), None


def make_learner(name):
    config = make_config(name.removeprefix("perla-"), METHODS[name] | {"hidden_dim": 6})
    return get(name.removeprefix("perla-")).learner(config, Push(1).spec, device="cpu", seed=0)


def batch_of(learner):
    rollout = collect(Push(8), learner.actor, explore=True)
    if learner.plan.unit == "episode":
        return rollout.episodes
    replay = TransitionReplay(50, learner.spec, learner.actor.record, device="cpu", seed=0)
    replay.add(rollout.episodes, rollout.lengths)
    return replay.sample(20)


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_reaches_padding(name):
    learner = make_learner(name)
    network = next(
        module for part in learner.parts.parts.values() if isinstance(part, torch.nn.Module)
        for key, module in part.named_modules() if key in ("agent", "network") or type(module).__name__ == "BoxAgent"
    )  # fmt: skip
    batch, outputs = batch_of(learner), []

    def keep(_module, _inputs, result):
        if result[0].requires_grad:
            result[0].retain_grad()
            outputs.append(result[0])

    network.register_forward_hook(keep)
    learner.update(batch)
    assert outputs
    for each in outputs:
        by_number = each.grad.unflatten(-1, (-1, 2))  # [..., n, means and deviations, D]
        assert (by_number[..., 1, :, 1] == 0).all()
        assert (by_number[..., 0, :, :].flatten(0, -3).abs().amax(0) > 0).all()
        assert (by_number[..., 1, :, 0].flatten(0, -2).abs().amax(0) > 0).all()


@pytest.mark.parametrize("name", ["mappo", "perla-mappo"])
def test_what_was_recorded_there_changes_nothing(name):
    """The same update from records that differ in padding alone."""
    metrics = []
    for shift in (0.0, 7.0):
        learner = make_learner(name)
        batch = batch_of(learner)
        batch.record["latent"][:, :, 1, 1] += shift
        metrics.append(learner.update(batch))
    assert all(torch.equal(value, metrics[1][key]) for key, value in metrics[0].items())


@pytest.mark.parametrize("squash", [True, False])
def test_densities_are_those_of_fewer_numbers(squash):
    policy, short = (Gaussian(box, 2, squash=squash, log_std_init=-0.3) for box in (BOX, Box(1, BOX.low, BOX.high)))
    g = torch.Generator().manual_seed(0)
    mean, noise = torch.randn(2, 30, 2, 2, generator=g)
    latent = policy.latent(mean, noise)
    terms = policy.terms(mean, policy.to_action(latent), None, {"latent": latent}, noise)
    own, own_noise = mean[..., :1], noise[..., :1]
    expected = short.terms(own, own, None, {"latent": latent[..., :1]}, own_noise)
    torch.testing.assert_close(terms.log_prob[:, 1], expected.log_prob[:, 1])
    torch.testing.assert_close(terms.entropy[:, 1], expected.entropy[:, 1])
    full = Gaussian(Box(2, BOX.low, BOX.high), 2, squash=squash, log_std_init=-0.3)
    expected = full.terms(mean, mean, None, {"latent": latent}, noise)
    torch.testing.assert_close(terms.log_prob[:, 0], expected.log_prob[:, 0])
    torch.testing.assert_close(terms.entropy[:, 0], expected.entropy[:, 0])


def test_random_actions_leave_padding_alone():
    collect(Push(4), RandomActor(Push(1).spec, device="cpu", seed=0), explore=True)


def test_aders_budget_counts_the_numbers_that_there_are():
    assert make_learner("ader").budget.total == -3


def test_facmacs_penalty_is_a_mean_over_them():
    learner = make_learner("facmac")
    assert learner.penalty == pytest.approx(learner.config.action_penalty * 4 / 3)
