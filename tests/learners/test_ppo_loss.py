"""PPO's loss terms and normalisers, a number at a time."""

import math

import pytest
import torch

from emix.distributed import Alone
from emix.learners.normalise import CumulativeNorm, DebiasedNorm
from emix.learners.ppo_loss import clipped_objective, normalised_advantage, value_loss


class Two:
    """This process and another whose sums are given."""

    def __init__(self, *theirs):
        self.theirs = list(theirs)

    def sum_(self, tensors):
        for tensor in tensors:
            tensor += torch.as_tensor(self.theirs.pop(0))


def draws(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_objective_is_the_smaller_of_both():
    new, old, advantage = draws(200, seed=1), draws(200, seed=2), draws(200, seed=3)
    found = clipped_objective(new, old, advantage, 0.2)
    for i in range(200):
        ratio, gain = math.exp(new[i] - old[i]), float(advantage[i])
        assert float(found.objective[i]) == pytest.approx(min(ratio * gain, max(0.8, min(1.2, ratio)) * gain))
        assert bool(found.clipped[i]) == (not 0.8 <= ratio <= 1.2)
        assert float(found.kl[i]) == pytest.approx(ratio - 1 - math.log(ratio))


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [(0.5, 1.0, False), (0.5, -1.0, True), (-0.5, 1.0, True), (-0.5, -1.0, False), (0.1, 1.0, True)],
)
def test_what_went_too_far_has_no_gradient(log_ratio, advantage, moves):
    log_prob = torch.tensor(log_ratio, requires_grad=True)
    clipped_objective(log_prob, torch.zeros(()), torch.tensor(advantage), 0.2).objective.backward()
    expected = advantage * math.exp(log_ratio) if moves else 0.0
    assert float(log_prob.grad) == pytest.approx(expected)


def huber(error, delta):
    return error**2 / 2 if abs(error) <= delta else delta * (abs(error) - delta / 2)


@pytest.mark.parametrize("delta", [None, 0.7])
@pytest.mark.parametrize("clipped", [False, True])
def test_the_value_loss(delta, clipped):
    value, y, old = draws(200, seed=1), draws(200, seed=2), draws(200, seed=3)
    found = value_loss(value, y, huber_delta=delta, old_value=old if clipped else None, clip=0.3)
    for i in range(200):
        v, target, before = float(value[i]), float(y[i]), float(old[i])
        loss = (lambda error: error**2) if delta is None else (lambda error: huber(error, delta))
        expected = loss(target - v)
        if clipped:
            expected = max(expected, loss(target - (before + max(-0.3, min(0.3, v - before)))))
        assert float(found[i]) == pytest.approx(expected)


def test_huber_is_torchs():
    value, y = draws(50, seed=1, scale=9), draws(50, seed=2)
    expected = torch.nn.functional.huber_loss(value, y, reduction="none", delta=2.0)
    torch.testing.assert_close(value_loss(value, y, huber_delta=2.0), expected)


def test_advantages_of_valid_steps_alone():
    advantage, mask = draws(5, 6, 3), draws(5, 6, 3, seed=1) > 0
    advantage[~mask] = torch.nan
    found = normalised_advantage(advantage, mask, Alone())
    chosen = advantage[mask]
    torch.testing.assert_close(found[mask], (chosen - chosen.mean()) / (chosen.std(correction=0) + 1e-5))
    assert (found[~mask] == 0).all()
    assert (normalised_advantage(advantage, torch.zeros_like(mask), Alone()) == 0).all()


def test_advantages_over_two_processes():
    mine, theirs = draws(20, seed=1), draws(30, seed=2, scale=3)
    both = torch.cat([mine, theirs])
    squares = float((theirs - both.mean()).square().sum())
    group = Two(torch.tensor([float(theirs.sum()), 30.0], dtype=torch.float64), squares)
    found = normalised_advantage(mine, torch.ones(20, dtype=torch.bool), group)
    torch.testing.assert_close(found, (mine - both.mean()) / (both.std(correction=0) + 1e-5))


def test_the_debiased_norm_is_on_policys_valuenorm():
    """Its equations, with a beta that forgets within the test."""
    norm, beta = DebiasedNorm(beta=0.9), 0.9
    mean = square = weight = 0.0
    torch.testing.assert_close(norm.denormalise(torch.tensor(3.0)), torch.tensor(0.3))  # before any update
    for seed in range(5):
        values, mask = 5 + draws(7, 3, seed=seed, scale=2), draws(7, 3, seed=seed + 10) > -0.5
        values[~mask] = torch.nan
        norm.update(values, mask, Alone())
        chosen = values[mask]
        mean = beta * mean + (1 - beta) * float(chosen.mean())
        square = beta * square + (1 - beta) * float((chosen**2).mean())
        weight = beta * weight + (1 - beta)
        deviation = math.sqrt(max(square / weight - (mean / weight) ** 2, 1e-2))
        found = norm.normalise(torch.tensor(4.0))
        assert float(found) == pytest.approx((4 - mean / weight) / deviation, rel=1e-5)
        torch.testing.assert_close(norm.denormalise(found), torch.tensor(4.0))


def test_a_constant_has_a_deviation_of_a_tenth():
    norm = DebiasedNorm()
    norm.update(torch.full((9,), 7.0), torch.ones(9, dtype=torch.bool), Alone())
    torch.testing.assert_close(norm.normalise(torch.tensor(7.1)), torch.tensor(1.0), rtol=1e-3, atol=1e-3)


def test_the_cumulative_norm_is_the_mean_and_deviation_of_everything():
    norm, everything = CumulativeNorm(), []
    for seed in range(6):
        values, mask = 5 + draws(9, 3, seed=seed, scale=2 + seed), draws(9, 3, seed=seed + 10) > -0.5
        values[~mask] = torch.nan
        norm.update(values, mask, Alone())
        everything.append(values[mask])
    seen = torch.cat(everything)
    expected = (4 - seen.mean()) / seen.std()
    # Chan's rule with EPyMARL's unbiased variance of each batch is that of all to some tenths of a percent.
    assert float(norm.normalise(torch.tensor(4.0))) == pytest.approx(float(expected), rel=0.05)
    torch.testing.assert_close(norm.denormalise(norm.normalise(torch.tensor(4.0))), torch.tensor(4.0))
    assert float(norm.count) == pytest.approx(len(seen))


def test_the_cumulative_norm_is_epymarls_running_mean_std():
    """Its lines, without padding."""
    norm, mean, var, count = CumulativeNorm(), 0.0, 1.0, 1e-4
    for seed in range(4):
        values = 3 + draws(30, seed=seed)
        norm.update(values, torch.ones(30, dtype=torch.bool), Alone())
        delta, total = float(values.mean()) - mean, count + 30
        mean, m2 = mean + delta * 30 / total, var * count + float(values.var()) * 30 + delta**2 * count * 30 / total
        var, count = m2 / total, total
    assert float(norm.mean) == pytest.approx(mean)
    assert float(norm.variance) == pytest.approx(var)


def test_rewards_that_never_differ_stay_numbers():
    norm = CumulativeNorm()
    norm.update(torch.zeros(50), torch.ones(50, dtype=torch.bool), Alone())
    assert torch.isfinite(norm.normalise(torch.zeros(3))).all()
    norm.update(torch.zeros(50), torch.zeros(50, dtype=torch.bool), Alone())  # nothing new
    assert float(norm.count) == pytest.approx(50, rel=1e-5)


def test_norms_count_all_processes():
    for norm_of in (CumulativeNorm, DebiasedNorm):
        alone, mine = norm_of(), norm_of()
        first, second = draws(20, seed=1), draws(30, seed=2)
        alone.update(torch.cat([first, second]), torch.ones(50, dtype=torch.bool), Alone())
        group = Two(torch.tensor([float(second.sum()), float(second.square().sum()), 30.0], dtype=torch.float64))
        mine.update(first, torch.ones(20, dtype=torch.bool), group)
        torch.testing.assert_close(mine.state_dict(), alone.state_dict())
