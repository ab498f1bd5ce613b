"""What games on tensors share: which environments are playing, flags, time limits, checks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from emix.data.integers import check_seed
from emix.data.room import refuse_large_steps
from emix.envs import batch
from emix.envs.core import EnvSpec, Step
from emix.envs.random import episode_keys
from emix.errors import UsageError


class TensorEnv(ABC):
    """``num_envs`` copies of a game whose rules are tensor expressions; the contract is that of ``emix.envs.Env``.

    A game says how an episode starts (``_start``), what a joint action does (``_play``) and what is seen
    (``_observe``). It also plays on where an environment has finished: what comes of it is thrown away here. ``step``
    never waits for a GPU. A game of chance draws from ``_episode_keys``, for which it hands on ``seed`` and
    ``first_env``.
    """

    def __init__(
        self, spec: EnvSpec, *, num_envs: int, device: torch.device, seed: int = 0, first_env: int = 0
    ) -> None:
        refuse_large_steps(spec, num_envs, device)
        self.spec, self.num_envs, self.device = spec, num_envs, device
        self._seed, self._first_env = check_seed(f"{spec.name}: seed", seed), first_env
        self.episode = torch.zeros(num_envs, dtype=torch.int64, device="cpu")  # [E]
        self._time = torch.zeros(num_envs, dtype=torch.int64, device=device)  # [E] steps played
        self._last: Step | None = None
        self._taken: Tensor | None = None  # [E, n] or [E, n, D], the last joint actions; for pictures

    def reset(self, where: Tensor | None = None) -> Step:
        """Start the next episode everywhere, or where ``where`` [E] is True."""
        where = batch.reset_mask(self.spec, where, self._last is not None, self.num_envs)
        batch.check_episode(self.spec, self.episode, self.num_envs)
        started, where = where.cpu(), where.to(self.device)
        self._start(where, started)
        self.episode = self.episode + started
        self._time = torch.where(where, 0, self._time)
        self._taken = None
        if self._last is None:
            terminated = truncated = torch.zeros_like(where)
        else:
            terminated, truncated = self._last.terminated & ~where, self._last.truncated & ~where
        unpaid = torch.zeros(self.num_envs, dtype=torch.float32, device=self.device)  # [E]
        return self._step(unpaid, terminated, truncated)

    def step(self, actions: Tensor) -> Step:
        """Play the joint ``actions``, [E, n] or [E, n, D]. Raises UsageError for one that is not available or out of
        bounds (on the CPU only; on a GPU an action out of range counts as the nearest)."""
        if self._last is None:
            raise UsageError(f"{self.spec.name}: step was called before reset: call reset() first")
        name, action = self.spec.name, self.spec.action
        action.check(name, actions, (self.num_envs, self.spec.n_agents), self.device)
        if self.device.type == "cpu":
            action.check_values(name, actions, self._last.avail, self._last.done)
        running = ~self._last.done
        reward, ended = self._play(action.nearest(actions))
        self._taken = actions
        self._time = self._time + running
        late = self._time >= self.spec.episode_limit
        return self._step(
            torch.where(running, reward, 0.0),
            self._last.terminated | (running & ended),
            self._last.truncated | (running & ~ended & late),
        )

    def render(self, index: int = 0) -> np.ndarray:
        """Draw environment ``index``: uint8 [H, W, 3].

        Raises:
            UsageError: nothing has been reset yet.
        """
        if self._last is None:
            raise UsageError(f"{self.spec.name}: render was called before reset: call reset() first")
        return self._draw(index)

    def _draw(self, index: int) -> np.ndarray:
        """The picture of environment ``index``, which has started."""
        raise UsageError(f"{self.spec.name}: this game has no pictures")

    def close(self) -> None:
        """Do nothing: tensors free themselves."""
        return

    def _episode_keys(self, started: Tensor) -> Tensor:
        """Keys of the episodes that start where ``started`` [E] on the CPU, else 0: int64 [E] on the device."""
        return episode_keys(self._seed, self._first_env, self.episode, started).to(self.device)

    def _step(self, reward: Tensor, terminated: Tensor, truncated: Tensor) -> Step:
        obs, state, avail = self._observe()
        self._last = Step(obs, state, avail, reward, terminated, truncated, self._info())
        return self._last

    @abstractmethod
    def _start(self, where: Tensor, started: Tensor) -> None:
        """Set up episode number ``self.episode`` where ``where`` [E]; ``started`` is the same on the CPU."""

    @abstractmethod
    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Play ``actions``, which are in range, [E, n] or [E, n, D]: the reward [E] float32, and where the rules end
        the episode [E] bool."""

    @abstractmethod
    def _observe(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Observations [E, n, O], state [E, S] and available actions [E, n, A] (None of a Box): new tensors."""

    def _info(self) -> dict[str, Tensor]:
        """What else a step reports, [E] each."""
        return {}
