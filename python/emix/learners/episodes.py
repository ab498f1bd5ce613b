"""A batch of whole episodes: what rollouts write, replay stores and learners read."""

from typing import Protocol

import torch
from tensordict import TensorClass
from torch import Tensor
from torch.nn import functional


class Episodes(TensorClass):
    """B episodes of up to T steps of n agents, padded to one length; ``batch_size`` is ``[B]``.

    Episode b has L_b = ``lengths[b]`` environment steps; step t leads from ``obs[b, t]`` by ``actions[b, t]`` to
    ``reward[b, t]`` and ``obs[b, t + 1]``. Fields of T+1 entries are real up to and including index L_b: a truncated
    episode bootstraps from the observation after its last step and the action that the behaviour policy picks there.
    Everything beyond is zero (False). An episode that ends without either flag bootstraps like a truncated one.

    This is PyMARL's episode batch with ``valid`` in place of ``filled``, which also counts index L_b, and with time
    limits told apart from terminal states; PyMARL bootstraps a short truncated episode from its padding.
    """

    obs: Tensor  # [B, T+1, n, O] float32
    state: Tensor  # [B, T+1, S] float32
    avail: Tensor  # [B, T+1, n, A] bool: actions that may be chosen
    actions: Tensor  # [B, T+1, n] int64
    reward: Tensor  # [B, T] float32, of the team
    terminated: Tensor  # [B, T] bool: the step reached a terminal state, so nothing follows it
    truncated: Tensor  # [B, T] bool: a time limit ended the episode here; never True together with ``terminated``
    valid: Tensor  # [B, T] bool: t < L_b
    probability: Tensor  # [B, T+1, n] float32: what the behaviour policy gave each action; 0 where it did not say

    @property
    def lengths(self) -> Tensor:
        """Number of environment steps L_b of each episode: int64 ``[B]``."""
        return self.valid.sum(dim=1)

    def trim(self, steps: int) -> "Episodes":
        """The first ``steps`` steps, as views: padding that no episode of the batch uses costs an update its time."""
        return Episodes(
            obs=self.obs[:, : steps + 1],
            state=self.state[:, : steps + 1],
            avail=self.avail[:, : steps + 1],
            actions=self.actions[:, : steps + 1],
            reward=self.reward[:, :steps],
            terminated=self.terminated[:, :steps],
            truncated=self.truncated[:, :steps],
            valid=self.valid[:, :steps],
            probability=self.probability[:, : steps + 1],
            batch_size=self.batch_size,
        )


class EpisodeSource(Protocol):
    """Where learners draw their batches from: the replay."""

    def sample(self, batch: int, *, newest: int | None = None) -> Episodes:
        """``batch`` different episodes, each equally likely, of all that are held or of the ``newest``."""
        ...


def joined(first: Episodes, second: Episodes) -> Episodes:
    """The episodes of both, padded to the longer steps of the two."""
    return torch.cat(alike(first, second))  # type: ignore[arg-type, return-value]


def alike(*batches: Episodes) -> list[Episodes]:
    """Each of them padded to the steps of the longest."""
    steps = max(each.valid.shape[1] for each in batches)
    return [_padded(each, steps) for each in batches]


def _padded(episodes: Episodes, steps: int) -> Episodes:
    missing = steps - episodes.valid.shape[1]
    if missing == 0:
        return episodes
    fields = {
        name: functional.pad(value, (0, 0) * (value.dim() - 2) + (0, missing)) for name, value in episodes.items()
    }
    return Episodes(**fields, batch_size=episodes.batch_size)
