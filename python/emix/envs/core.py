"""What every environment is: the contract, and where its random numbers come from.

Nothing here imports torch or a simulator: worker processes import this module too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from emix.data.spec import EnvSpec, Step

if TYPE_CHECKING:
    import torch


class Env(Protocol):
    """``E`` copies of a cooperative multi-agent task that are stepped together; ``check_env`` tests what is said here.

    - ``reset(where)`` starts an episode in every environment (``where=None``) or where the bool ``[E]`` is True and
      leaves the others as they are. The reward of the returned step is 0, and its flags are False where an episode
      started.
    - ``step(actions)`` takes what ``spec.action`` says, on ``device``: ``[E, n]`` int64 where it is ``Discrete``, of
      which ``Step.avail`` says what may be taken; ``[E, n, D]`` float32 where it is a ``Box``, and ``Step.avail`` None.
      A finished environment stays finished until it is reset: its reward is 0, its flags stay, its actions are ignored
      and its observations are whatever they were.
    - A time limit sets ``truncated``, the rules' own end sets ``terminated``; never both.
    - ``episode[e]`` (int64 ``[E]``, on the CPU) is the number of the episode that the next reset of environment ``e``
      starts; that reset adds 1. All randomness of an episode derives from (seed, first_env + e, number), by
      ``episode_seed`` or on the device, where ``first_env`` is the number that the batch's first environment has among
      all of a run's: an episode depends neither on how they are divided into batches nor on what was played before. To
      resume a run, assign the saved numbers to ``episode`` and reset.
    - ``close()`` frees processes and files; it may be called twice.
    """

    spec: EnvSpec
    num_envs: int
    device: torch.device
    episode: torch.Tensor

    def reset(self, where: torch.Tensor | None = None) -> Step:
        """Start the next episode everywhere, or where ``where`` [E] is True."""
        ...

    def step(self, actions: torch.Tensor) -> Step:
        """Take the joint ``actions``, ``[E, n]`` or ``[E, n, D]``."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


def advance(env: Env, env_steps: int) -> None:
    """Say how many environment steps training has made to an environment that changes on the way; others have no
    ``advance(env_steps)`` and need not know. Call it between episodes."""
    if hasattr(env, "advance"):
        env.advance(env_steps)


def capturable(env: Env) -> bool:
    """Whether ``env.step`` can be replayed as a CUDA graph, as an environment's ``capturable`` says that has it: what a
    step changes are then tensors that keep their place, and it never waits for the device."""
    return getattr(env, "capturable", False)


def episode_seed(seed: int, number: int, episode: int) -> int:
    """Return the 63-bit seed of an episode: number ``episode`` of environment ``number`` of a run with ``seed``, all at
    least 0.

    numpy's ``SeedSequence`` hashes the three, so that neighbouring runs, environments and episodes share no numbers.
    """
    state = np.random.SeedSequence(seed, spawn_key=(number, episode)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
