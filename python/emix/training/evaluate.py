"""Greedy episodes that training never notices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from emix.envs.core import Env
from emix.training.metrics import EpisodeStatistics
from emix.training.rollout import Policy, Rollout, collect


def evaluate(env: Env, policy: Policy, episodes: int, play: Callable[[], Rollout] | None = None) -> dict[str, float]:
    """Statistics of greedy episodes, named ``test_return_mean``, ``test_battle_won_mean`` and so on.

    Every environment plays the same number of episodes: taking the first ``episodes`` that finish would favour short
    ones, in SMAC lost battles. A greedy policy draws no random numbers, so training goes on as if nothing had happened.

    Args:
        env: E environments of their own, not those of the training.
        policy: a learner.
        episodes: a multiple of E.
        play: plays a greedy episode in every environment, such as a ``CapturedRollout``; where not given, ``collect``.

    Raises:
        ValueError: ``episodes`` is not a multiple of E.
    """
    if episodes % env.num_envs:
        raise ValueError(f"episodes expects a multiple of the {env.num_envs} environments, got {episodes}")
    play = play or partial(collect, env, policy, explore=False)
    statistics = EpisodeStatistics()
    for _ in range(episodes // env.num_envs):
        statistics.add(play())
    return {f"test_{name}": value for name, value in statistics.means().items()}
