"""Where a training loop's rollouts come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from torch import Tensor

from emix.data import EnvSpec
from emix.envs.core import Env, advance, capturable
from emix.learners.parts import restore_generator
from emix.playing.captured import CapturedRollout
from emix.playing.evaluate import evaluate
from emix.playing.random import RandomActor
from emix.playing.rollout import Policy, Rollout, collect
from emix.playing.stopwatch import Stopwatch


class Source(Protocol):
    """Plays for a learner, with its actor's present weights. Between two calls no episode is under way."""

    spec: EnvSpec
    num_envs: int  # episodes of a rollout

    def collect(self, *, stopwatch: Stopwatch) -> Rollout:
        """An episode of each environment, while exploring; the stopwatch gets the time."""
        ...

    def test(self, episodes: int) -> dict[str, float]:
        """Statistics of greedy episodes in environments of their own: see ``emix.playing.evaluate``."""
        ...

    def advance(self, env_steps: int) -> None:
        """Say how many environment steps training has made: before the first rollout, and after each."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What decides the episodes to come: the numbers of the next ones, and random states."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state_dict``."""
        ...

    def close(self) -> None:
        """Free processes and files."""
        ...


class Local:
    """Environments and actor in this process.

    Args:
        env: of the training; its number of environments is that of a rollout's episodes.
        test_env: of the evaluation.
        actor: the learner's.
        random_steps: environment steps at the start that a ``RandomActor`` plays.
        seed: of the random actor.
        captured: whether rollouts are CUDA graphs, where the environment allows it.
    """

    def __init__(
        self,
        env: Env,
        test_env: Env,
        actor: Policy,
        *,
        random_steps: int = 0,
        seed: int = 0,
        captured: bool = False,
    ) -> None:
        self.env, self.test_env, self.random_steps = env, test_env, random_steps
        self.spec, self.num_envs = env.spec, env.num_envs
        self.actor, self.random_actor = actor, RandomActor(env.spec, actor.record, device=env.device, seed=seed)
        self.env_steps = 0
        self._play = _player(env, actor, explore=True, captured=captured)
        self._play_at_random = partial(collect, env, self.random_actor, explore=True)
        self._test = _player(test_env, actor, explore=False, captured=captured)

    def collect(self, *, stopwatch: Stopwatch) -> Rollout:
        """An episode of each environment, at random before ``random_steps``; the stopwatch gets the time."""
        play = self._play_at_random if self.env_steps < self.random_steps else self._play
        return play(stopwatch=stopwatch)

    def test(self, episodes: int) -> dict[str, float]:
        """Statistics of greedy episodes, a multiple of the test environments."""
        return evaluate(self.test_env, self.actor, episodes, self._test)

    def advance(self, env_steps: int) -> None:
        """Say how many environment steps training has made."""
        self.env_steps = env_steps
        for env in (self.env, self.test_env):
            advance(env, env_steps)

    def state_dict(self) -> dict[str, Tensor]:
        """The numbers of the next episodes and the random actor's state."""
        return {
            "env.episode": self.env.episode,
            "test_env.episode": self.test_env.episode,
            "random_actor.generator": self.random_actor.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state_dict``."""
        self.env.episode, self.test_env.episode = state["env.episode"], state["test_env.episode"]
        restore_generator(self.random_actor.generator, state["random_actor.generator"])

    def close(self) -> None:
        """Free the environments' processes."""
        self.env.close()
        self.test_env.close()


def _player(env: Env, actor: Policy, *, explore: bool, captured: bool) -> Callable[..., Rollout]:
    """What plays an episode in every environment."""
    if captured and capturable(env):
        return CapturedRollout(env, actor, explore=explore)
    return partial(collect, env, actor, explore=explore)
