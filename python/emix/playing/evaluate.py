"""Greedy episodes that training never notices, and what is said of episodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from emix.envs.core import Env
from emix.playing.rollout import Policy, Rollout, collect


class EpisodeStatistics:
    """Returns, lengths and the environment's own numbers of some episodes, reported in the order of their names."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, rollout: Rollout) -> None:
        """Take in a rollout's episodes."""
        own = {"return": rollout.returns, "ep_length": rollout.lengths}
        for name, column in (rollout.info | own).items():
            given = ... if name in own else ~column.isnan()  # not every episode need have an environment's info
            self.values.setdefault(name, []).extend(column[given].double().tolist())

    def means(self) -> dict[str, float]:
        """``return_mean``, ``ep_length_mean``, ``<info>_mean`` and ``return_std``, that of just these episodes (by n)
        and no estimate of any others'; empty where there was no episode."""
        means = {f"{name}_mean": float(np.mean(values)) for name, values in sorted(self.values.items()) if values}
        if "return" in self.values:
            means["return_std"] = float(np.std(self.values["return"]))
        return means


def evaluate(env: Env, policy: Policy, episodes: int, play: Callable[[], Rollout] | None = None) -> dict[str, float]:
    """Statistics of greedy episodes, named ``test_return_mean``, ``test_battle_won_mean`` and so on.

    Every environment plays the same number of episodes: taking the first ``episodes`` that finish would favour short
    ones, in SMAC lost battles. A greedy policy draws no random numbers, so training goes on as if nothing had happened.

    Args:
        env: E environments of their own, not those of the training.
        policy: an actor.
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
