"""The value learner's update: what it regresses on, and that padding does not matter."""

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emix.learners.value import ValueConfig, ValueLearner

METHODS = list(itertools.product(["none", "vdn", "qmix"], ["max", "lambda", "n_step"]))
GAMMA, LAM, N_STEP = 0.9, 0.7, 3


def make_learner(spec, mixer="qmix", target="lambda", **values):
    """A learner in float64 whose targets differ from its live networks."""
    values = {"bootstrap_truncated": True, **values}
    config = ValueConfig(mixer, target, gamma=GAMMA, td_lambda=LAM, n_step=N_STEP, **values)
    learner = ValueLearner(config, spec, device="cpu", seed=0)
    other = ValueLearner(config, spec, device="cpu", seed=1)
    learner.targets.module.load_state_dict(other.networks.state_dict())
    learner.networks.double()
    learner.targets.module.double()
    return learner


def gradients(learner):
    return {name: parameter.grad.clone() for name, parameter in learner.networks.named_parameters()}


def mixed_values(networks, episode, length, actions):
    """One episode, unpadded, a step at a time: mixed Q of ``actions[t]``, and Q of every action, at steps 0 to L."""
    n_agents, n_actions = episode.avail.shape[1:]
    hidden, last_actions, mixed, values = None, torch.full((1, 1, n_agents), n_actions), [], []
    for t in range(length + 1):
        q, hidden = networks["agent"](episode.obs[t][None, None], last_actions, hidden)
        values.append(q[0, 0])
        chosen = torch.stack([q[0, 0, i, actions[t][i]] for i in range(n_agents)])
        mixed.append(networks["mixer"](chosen, episode.state[t]))
        last_actions = episode.actions[t][None, None]
    return torch.stack(mixed), torch.stack(values).detach()  # [L+1] or [L+1, n]; [L+1, n, A]


def greedy_actions(episode, t, q):
    return [max(episode.avail[t, i].nonzero().flatten().tolist(), key=q[i].tolist().__getitem__) for i in range(len(q))]


def n_step_return(episode, value, t, n, length):
    """r_t + gamma r_{t+1} + ... + gamma^n Q(t+n), by its definition; the episode's end cuts it short."""
    n = min(n, length - t)
    total = sum(GAMMA**k * episode.reward[t + k] for k in range(n))
    return total if episode.terminated[t + n - 1] else total + GAMMA**n * value[t + n]


def slow_target(config, episode, value, t, length):
    """y of step t from the values of the following ones, by its definition."""
    n_step = [n_step_return(episode, value, t, n, length) for n in range(1, length - t + 1)]
    if config.target == "max":
        return n_step[0]
    if config.target == "n_step":
        return n_step[min(N_STEP, len(n_step)) - 1]
    # Eq. 9: all returns beyond the episode's end equal the last one, so it gets what weight is left.
    weights = [(1 - LAM) * LAM**k for k in range(len(n_step) - 1)]
    return sum(w * g for w, g in zip(weights, n_step, strict=False)) + LAM ** len(weights) * n_step[-1]


def slow_targets_and_values(learner, episodes):
    """y and Q_tot of every valid step, one episode after the other, straight from the definitions."""
    ys, qs = [], []
    for episode, length in zip(episodes, episodes.lengths.tolist(), strict=True):
        taken = list(episode.actions)
        q_tot, q = mixed_values(learner.networks, episode, length, taken)
        live_greedy = [greedy_actions(episode, t, q[t]) for t in range(length + 1)]
        value, _ = mixed_values(
            learner.targets.module, episode, length, live_greedy if learner.config.target == "max" else taken
        )
        for t in range(length):
            ys.append(slow_target(learner.config, episode, value, t, length).expand_as(q_tot[t]).detach())
            qs.append(q_tot[t])
    return torch.stack(ys), torch.stack(qs)


ABLATIONS = {
    "no abs": {"positive_weights": False},
    "two layers": {"hypernet_layers": 2},
}


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(
    ("mixer", "target", "values"),
    [*((*method, {}) for method in METHODS), *(("qmix", "lambda", values) for values in ABLATIONS.values())],
)
def test_loss_and_gradient_equal_a_slow_reference(spec, random_episodes, mixer, target, values):
    episodes = random_episodes(dtype=torch.float64)
    learner = make_learner(spec, mixer, target, grad_norm_clip=1e9, **values)
    y, q_tot = slow_targets_and_values(learner, episodes)
    loss = (y - q_tot).square().mean()
    parameters = dict(learner.networks.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    metrics = learner.update(episodes)
    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    torch.testing.assert_close(metrics["loss"], loss.detach())
    torch.testing.assert_close(metrics["grad_norm"], norm)
    torch.testing.assert_close(metrics["target_mean"], y.mean())
    torch.testing.assert_close(metrics["q_taken_mean"], q_tot.detach().mean())
    torch.testing.assert_close(metrics["td_error_abs"], (y - q_tot).detach().abs().mean())
    torch.testing.assert_close(gradients(learner), expected)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(("mixer", "target"), METHODS)
def test_padding_changes_neither_loss_nor_gradient(spec, random_episodes, mixer, target):
    episodes = random_episodes(dtype=torch.float64)
    short = episodes[:6]  # at most 6 of 9 steps
    learners = [make_learner(spec, mixer, target) for _ in range(3)]
    noise = random_episodes(seed=5, dtype=torch.float64)
    filled = short.clone()  # what lies beyond an episode's end is not read at all
    for b, length in enumerate(short.lengths.tolist()):
        for name in ("obs", "state", "avail", "actions"):
            getattr(filled, name)[b, length + 1 :] = getattr(noise, name)[8, length + 1 :]
        filled.reward[b, length:] = 7.0
        filled.terminated[b, length + 1 :: 2] = True
    metrics = [learner.update(batch) for learner, batch in zip(learners, (short.trim(6), short, filled), strict=True)]
    for other in (1, 2):
        torch.testing.assert_close(metrics[other], metrics[0])
        torch.testing.assert_close(gradients(learners[other]), gradients(learners[0]))


@pytest.mark.parametrize("bootstrap_truncated", [False, True])
def test_a_terminal_state_is_not_bootstrapped_and_a_time_limit_is_where_asked(
    spec, random_episodes, bootstrap_truncated
):
    episodes = random_episodes(dtype=torch.float64)
    terminal, limit = episodes[:1], episodes[1:2]  # one step each
    for episode, bootstrapped in ((terminal, False), (limit, bootstrap_truncated)):
        learner, higher = (make_learner(spec, bootstrap_truncated=bootstrap_truncated) for _ in range(2))
        with torch.no_grad():
            higher.targets.module["mixer"].v[-1].bias += 1.0
        change = higher.update(episode)["target_mean"] - learner.update(episode)["target_mean"]
        assert change.item() == pytest.approx(GAMMA if bootstrapped else 0.0)


def test_gradients_are_clipped(spec, random_episodes):
    episodes = random_episodes(dtype=torch.float64)
    clipped, free = make_learner(spec, grad_norm_clip=0.01), make_learner(spec, grad_norm_clip=1e9)
    before, after = clipped.update(episodes)["grad_norm"], free.update(episodes)["grad_norm"]
    assert before == after > 0.01
    norm = torch.stack([g.norm() for g in gradients(clipped).values()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("mixer", "target"), METHODS)
def test_update_never_waits_for_the_device(spec, random_episodes, mixer, target):
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    learner = ValueLearner(ValueConfig(mixer, target), spec, device="cpu", seed=0)
    episodes = random_episodes()
    learner.update(episodes)
    with Record():
        learner.update(episodes)
    assert {"agent_sequence", "agent_sequence_backward"} <= called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"}
