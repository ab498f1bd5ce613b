"""PPO's update against its equations, step by step, and that padding changes nothing."""

import copy

import pytest
import torch

from emix import ops
from emix.data import Box, EnvSpec, Episodes
from emix.learners.plan import Plan
from emix.learners.ppo import PPO
from emix.learners.ppo_config import PPOConfig
from tests.learners.slow_ppo import SlowPPO

PLAIN = {"standardise_rewards": False, "hidden_dim": 8, "n_step": 3, "gamma": 0.9, "target_tau": 0.3}
PLAIN |= {"lr": 3e-3, "critic_lr": 2e-3, "entropy": 0.05, "epochs": 3}
GAE = {"returns": "gae", "gae_lambda": 0.7, "target": "none"}
CASES = {
    "mappo": {},
    "ippo": {"critic_input": "obs"},
    "both": {"critic_input": "state_obs", "bootstrap_truncated": True},
    "mlp": {"network": "mlp", "share": False},
    "own": {"share": False, "critic_network": "gru", "critic_input": "obs"},
    "no target": {"target": "none"},
    "gae": GAE,
    "on-policy": GAE
    | {"huber_delta": 0.5, "value_clip": True, "active_only": True, "layer_norm": True, "critic_network": "gru"}
    | {"init": "orthogonal", "gain": 0.5},
    "clipped": {"clip": 0.02, "value_clip": True, "grad_norm_clip": 0.05},
}
PERLA = {
    "perla": {"samples": 5},
    "perla ippo": {"samples": 5, "critic_input": "obs", "network": "mlp"},
    "perla both": {"samples": 3, "critic_input": "state_obs", "bootstrap_truncated": True},
    "executed": {"samples": 5, "fit": "executed", "value_clip": True},
    "q": {"samples": 4, "critic": "q"},
    "perla gae": GAE | {"samples": 5, "value_clip": True},
    "q gae": GAE | {"samples": 4, "critic": "q", "critic_input": "obs"},
}


def make_learner(spec, seed=0, double=True, batch=9, **values):
    """A learner in float64 whose target differs from its critic."""
    config = PPOConfig(**(PLAIN | values), plan=Plan(source="fresh", batch_size=batch))
    learner = PPO(config, spec, device="cpu", seed=seed)
    if learner.critic.target is not None:
        other = PPO(config, spec, device="cpu", seed=seed + 1)
        learner.critic.target.module.load_state_dict(other.critic.network.state_dict())
    if double:
        for module in (
            learner.networks,
            learner.critic.network,
            learner.critic.target and learner.critic.target.module,
        ):
            if module is not None:
                module.double()
    return learner


def with_log_probs(learner, episodes, seed=0):
    """The episodes as if the learner's policies had played them, some steps ago."""
    with torch.no_grad():
        outputs, _ = learner.networks(episodes.obs)
        log_prob = ops.policy_terms(outputs, episodes.actions, episodes.avail).log_prob
    generator = torch.Generator().manual_seed(seed)
    episodes.record["log_prob"] = log_prob + 0.3 * torch.randn(
        log_prob.shape, generator=generator, dtype=log_prob.dtype
    )
    return episodes


def samples_of(learner, batch):
    """The joint actions that the next update will draw."""
    if not learner.config.samples:
        return None
    generator = torch.Generator()
    generator.set_state(learner.generator.get_state())
    with torch.no_grad():
        outputs, _ = learner.networks(batch.obs)
    return ops.sample_actions(outputs, batch.avail, samples=learner.config.samples, generator=generator)


def assert_close(module, expected):
    for ours, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CASES | PERLA)
def test_an_update_is_its_equations(spec, random_episodes, name):
    learner = make_learner(spec, **(CASES | PERLA)[name])
    batch = with_log_probs(learner, random_episodes(dtype=torch.float64))
    before = copy.deepcopy(learner.networks)
    slow = SlowPPO(learner, samples_of(learner, batch))
    critic_loss, actor_loss = slow.update(batch)
    metrics = learner.update(batch)
    torch.testing.assert_close(float(metrics["loss"]), critic_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(float(metrics["actor_loss"]), actor_loss, rtol=1e-5, atol=1e-6)
    assert_close(learner.networks, slow.actor)
    assert_close(learner.critic.network, slow.critic)
    if slow.target is not None:
        assert_close(learner.critic.target.module, slow.target)
    assert not torch.equal(next(before.network.parameters()), next(learner.networks.network.parameters()))


@pytest.mark.parametrize("name", ["mappo", "gae", "perla", "q", "executed"])
def test_padding_and_what_stands_in_it_change_nothing(spec, random_episodes, name):
    values = (CASES | PERLA)[name] | {"normalise_advantage": True, "value_norm": "cumulative"}
    values |= {"standardise_rewards": True}
    short = make_learner(spec, **values)
    batch = with_log_probs(short, random_episodes(dtype=torch.float64))[:6]  # at most 6 steps
    batch = batch.trim(6)
    joint = None if not short.config.samples else torch.randint(2, (5, *batch.actions.shape)).byte()
    found = []
    for steps, rubbish in ((6, 0.0), (9, 5.0)):
        learner, given = make_learner(spec, **values), batch.clone().padded(steps)
        beyond = ~torch.nn.functional.pad(given.valid, (1, 0), value=True)
        given.obs[beyond], given.state[beyond] = rubbish, rubbish
        given.reward[~given.valid] = rubbish
        given.record["log_prob"][beyond] = rubbish
        if joint is not None:  # draws depend on where a row lies
            drawn = torch.nn.functional.pad(joint, (0, 0, 0, steps - 6))
            learner.networks.policy.sample = lambda *args, drawn=drawn: drawn
        found.append((learner.update(given), learner.parts.state_dict()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-7)
    for key, value in found[0][1].items():
        if "generator" not in key:
            torch.testing.assert_close(found[1][1][key], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("ending", ["terminated", "truncated", "cut"])
def test_gae_at_lambda_one_is_the_return_minus_the_value(spec, random_episodes, ending):
    """The return bootstraps where a window ends in mid-episode ("cut"), and where a time limit does by choice."""
    learner = make_learner(spec, **GAE | {"gae_lambda": 1.0, "bootstrap_truncated": ending == "truncated"})
    batch = with_log_probs(learner, random_episodes(dtype=torch.float64, lengths=(1, 4, 9), endings=(ending,) * 3))
    rows = learner._rows(batch, batch.reward, None)
    value = learner.critic.values({"seen": batch.state}, target=False)  # [B, T+1, n]
    for b, length in enumerate(batch.lengths.tolist()):
        after = 0.0 if ending == "terminated" else value[b, length]
        for t in range(length):
            rewards = sum(0.9**k * batch.reward[b, t + k] for k in range(length - t))
            total = rewards + 0.9 ** (length - t) * after
            torch.testing.assert_close(rows["advantage"][b, t], total - value[b, t])
            torch.testing.assert_close(rows["y"][b, t], total.expand_as(value[b, t]))


def test_epochs_go_on_from_each_other_with_the_old_policys_ratio(spec, random_episodes):
    """Two epochs are two updates of one epoch on the same log-probabilities, with gae's advantages held."""
    batch = with_log_probs(make_learner(spec), random_episodes(dtype=torch.float64))
    two = make_learner(spec, **GAE | {"epochs": 2})
    one = make_learner(spec, **GAE | {"epochs": 1})
    rows = one._rows(batch, batch.reward, None)
    two.update(batch)
    for _ in range(2):
        one._learn(rows)
    assert_close(one.networks, two.networks)
    assert_close(one.critic.network, two.critic.network)


@pytest.mark.parametrize("network", ["gru", "mlp"])
def test_minibatches_are_parts_of_the_batch_each_in_one(spec, random_episodes, network):
    learner = make_learner(spec, network=network, minibatches=3)
    batch = random_episodes(dtype=torch.float64)
    rows = learner._rows(batch, batch.reward, None)
    parts = list(learner._minibatches(rows))
    assert len(parts) == 3
    shapes = [tuple(part["valid"].shape) for part in parts]
    assert shapes == ([(3, 9, 3)] * 3 if network == "gru" else [(27, 1, 3)] * 3)

    def keys(which):
        return sorted(which["obs"][which["valid"].any(-1)][:, 0, 0].tolist())

    everything = [key for part in parts for key in keys(part)]
    assert sorted(everything) == keys(rows)
    for part in parts:  # rows stay together
        mine = {float(o[0, 0]): (float(y[0]), a.tolist()) for o, y, a in zip(
            *(part[name].flatten(0, 1) for name in ("obs", "y", "actions")), strict=True)}  # fmt: skip
        whole = {float(o[0, 0]): (float(y[0]), a.tolist()) for o, y, a in zip(
            *(rows[name].flatten(0, 1) for name in ("obs", "y", "actions")), strict=True)}  # fmt: skip
        assert all(whole[key] == value for key, value in mine.items() if key != 0.0)
    again = list(learner._minibatches(rows))
    assert not torch.equal(again[0]["obs"], parts[0]["obs"])


def test_values_are_learned_in_the_scale_of_the_norm(spec, random_episodes):
    """On-policy's: targets by denormalised values, errors in the normalised scale, the norm renewed before."""
    learner = make_learner(spec, **GAE | {"value_norm": "debiased", "epochs": 1})
    batch = with_log_probs(learner, random_episodes(dtype=torch.float64))
    norm, network = copy.deepcopy(learner.critic.norm), copy.deepcopy(learner.critic.network)
    with torch.no_grad():
        said = network(batch.state)[0].squeeze(-1)
        value = norm.denormalise(said)
    advantage = ops.gae(
        batch.reward, batch.terminated | batch.truncated, value, gamma=0.9, lam=0.7,
        truncated=batch.truncated, valid=batch.valid,
    )  # fmt: skip
    y, valid = advantage + value[:, :-1], batch.valid.unsqueeze(-1).expand_as(advantage)
    mean, square = y[valid].mean(), y[valid].square().mean()
    deviation = (square - mean**2).clamp(min=1e-2).sqrt()
    expected = ((y - mean) / deviation - said[:, :-1]).square()[valid].mean()
    torch.testing.assert_close(learner.update(batch)["loss"].double(), expected, rtol=1e-4, atol=1e-5)


def test_rewards_are_standardised_by_all_that_were_seen(spec, random_episodes):
    plain, scaled = make_learner(spec), make_learner(spec, standardise_rewards=True)
    batch = with_log_probs(plain, random_episodes(dtype=torch.float64))
    chosen = batch.reward[batch.valid]
    twin = batch.clone()
    # EPyMARL's start counts for 1e-4 of a value.
    twin.reward = torch.where(batch.valid, (batch.reward - chosen.mean()) / chosen.std(), 0.0)
    torch.testing.assert_close(scaled.update(batch), plain.update(twin), rtol=1e-3, atol=1e-4)


CONTINUOUS = EnvSpec("box", n_agents=3, action=Box(2, -1.0, 0.5), obs_dim=5, state_dim=6, episode_limit=9)


def continuous(random_episodes, dtype=torch.float64):
    """The same episodes with vectors for actions."""
    episodes = random_episodes(dtype=dtype)
    values = episodes.by_name()
    del values["avail"]
    g = torch.Generator().manual_seed(3)
    values["latent"] = torch.randn(*values["actions"].shape, 2, generator=g, dtype=dtype)
    values["actions"] = CONTINUOUS.action.nearest(values["latent"])
    return Episodes.of(values, episodes.valid)


@pytest.mark.parametrize("values", [{}, {"samples": 4}, {"samples": 4, "fit": "executed", "critic_input": "obs"}])
def test_continuous_actions_are_learned_by_their_density(random_episodes, values):
    learner = make_learner(CONTINUOUS, epochs=1, **values)
    batch = continuous(random_episodes)
    with torch.no_grad():
        outputs, _ = learner.networks(batch.obs)
        batch.record["log_prob"] = learner.networks.policy.log_prob(outputs, batch.record["latent"])
    state = learner.generator.get_state()
    rows = learner._rows(batch, batch.reward, learner._outputs(batch) if values else None)
    network, norm_of = copy.deepcopy(learner.networks), torch.distributions.Normal
    estimate = learner.critic.estimate(rows)
    advantage = rows["y"] - estimate.value
    mean = network.network(batch.obs[:, :-1])[0]
    density = norm_of(mean, network.policy.log_std.exp())
    ratio = (density.log_prob(rows["latent"]).sum(-1) - rows["log_prob"]).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) + 0.05 * density.entropy().sum(-1)
    (-gain[rows["valid"]].mean()).backward()
    learner.generator.set_state(state)
    learner.update(batch)
    norm = sum(float(each.grad.square().sum()) for each in network.parameters()) ** 0.5
    scale = min(1.0, 10.0 / norm)
    for ours, theirs in zip(learner.networks.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad * scale, rtol=1e-5, atol=1e-7)
    assert learner.networks.policy.log_std.grad.abs().sum() > 0
