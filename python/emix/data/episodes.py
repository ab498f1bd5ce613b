"""A batch of whole episodes: what rollouts write, replays store and learners read."""

from collections.abc import Callable, Mapping
from itertools import accumulate, groupby

import torch
from tensordict import TensorClass, TensorDict
from torch import Tensor
from torch.nn import functional


class Episodes(TensorClass):
    """B episodes of up to T steps of n agents, padded to one length; ``batch_size`` is ``[B]``.

    Episode b has L_b = ``lengths[b]`` environment steps; step t leads from ``obs[b, t]`` by ``actions[b, t]`` to
    ``reward[b, t]`` and ``obs[b, t + 1]``. Fields of T+1 entries are real up to and including index L_b: a truncated
    episode bootstraps from the observation after its last step and the action that the behaviour policy picks there.
    Everything beyond is zero (False). An episode that ends without either flag bootstraps like a truncated one.

    This is PyMARL's episode batch with ``valid`` in place of ``filled``, which also counts index L_b, and with time
    limits told apart from terminal states; PyMARL bootstraps a short truncated episode from its padding. A batch of
    single transitions is a batch of episodes with T = 1.
    """

    obs: Tensor  # [B, T+1, n, O] float32
    state: Tensor  # [B, T+1, S] float32
    avail: Tensor | None  # [B, T+1, n, A] bool: actions that may be chosen; None where they are a Box
    actions: Tensor  # [B, T+1, n] int64, or [B, T+1, n, D] float32
    reward: Tensor  # [B, T] float32, of the team
    terminated: Tensor  # [B, T] bool: the step reached a terminal state, so nothing follows it
    truncated: Tensor  # [B, T] bool: a time limit ended the episode here; never True together with ``terminated``
    valid: Tensor  # [B, T] bool: t < L_b
    record: TensorDict  # what the actor recorded, by name: [B, T+1, ...] or [B, T, ...] each

    @classmethod
    def of(cls, values: Mapping[str, Tensor], valid: Tensor) -> "Episodes":
        """From the fields of ``emix.data.fields`` by name, ``[B, T+1, ...]`` or ``[B, T, ...]`` each, and ``valid``."""
        own = {name: values.get(name) for name in _OWN}
        record = {name: value for name, value in values.items() if name not in _OWN}
        batch = valid.shape[:1]
        return cls(**own, valid=valid, record=TensorDict(record, batch), batch_size=batch)

    def by_name(self) -> dict[str, Tensor]:
        """The fields by name, the record's among them, without ``valid``: what ``of`` takes."""
        own = {name: getattr(self, name) for name in _OWN}
        return {name: value for name, value in own.items() if value is not None} | dict(self.record.items())

    @property
    def lengths(self) -> Tensor:
        """Number of environment steps L_b of each episode: int64 ``[B]``."""
        return self.valid.sum(dim=1)

    def trim(self, steps: int) -> "Episodes":
        """The first ``steps`` steps, as views: padding that no episode of the batch uses costs an update its time."""
        return self._along_time(lambda value, extra: value[:, : steps + extra])

    def by_length(self) -> list["Episodes"]:
        """The same episodes in parts of similar lengths, each trimmed to its longest: sums over the parts are sums over
        the batch, without most of its padding, which is half of a batch of battles and more.

        On the CPU as many parts as save more than they cost; on a GPU, whose shapes are to stay and whose lengths would
        have to be waited for, the batch itself.
        """
        if self.valid.device.type != "cpu":
            return [self]
        lengths, order = self.lengths.sort(stable=True)
        parts = _parts(lengths.tolist(), _OBSERVATIONS_OF_A_PART / self.obs.shape[2])
        if len(parts) == 1:
            return [self.trim(parts[0][2])]
        values = {name: value.index_select(0, order) for name, value in self.by_name().items()}
        ordered = Episodes.of(values, self.valid.index_select(0, order))
        return [ordered[first:end].trim(steps) for first, end, steps in parts]

    def padded(self, steps: int) -> "Episodes":
        """With zeros behind, so that there are ``steps`` steps."""
        missing = steps - self.valid.shape[1]
        if missing == 0:
            return self
        return self._along_time(lambda value, _: functional.pad(value, (0, 0) * (value.dim() - 2) + (0, missing)))

    def entries(self, lengths: Tensor) -> dict[str, Tensor]:
        """Every field's real entries back to back, L_b + 1 of episode b: ``[sum of them, ...]``.

        Args:
            lengths: ``[B]`` on the CPU, so that nothing waits for the device.
        """
        width = self.obs.shape[1]
        real = (torch.arange(width, device="cpu") <= lengths[:, None]).flatten().nonzero()[:, 0].to(self.obs.device)
        values = {}
        for name, value in self.by_name().items():
            if value.shape[1] < width:  # [B, T]: the last observation has no reward and no flags
                value = functional.pad(value, (0, 0) * (value.dim() - 2) + (0, 1))
            values[name] = value.flatten(0, 1).index_select(0, real)
        return values

    def _along_time(self, change: Callable[[Tensor, int], Tensor]) -> "Episodes":
        """``change(value, entries beyond T)`` of every field."""
        steps = self.valid.shape[1]
        values = {name: change(value, value.shape[1] - steps) for name, value in self.by_name().items()}
        return Episodes.of(values, change(self.valid, 0))


_OBSERVATIONS_OF_A_PART = 1200  # of agents, in the time that a part costs an update by itself


def _parts(lengths: list[int], cost: float) -> list[tuple[int, int, int]]:
    """Ranges of ascending lengths, (first, end, longest), with the least sum of (end - first) (longest + 1) + cost."""
    distinct, counts = zip(*((length, len(list(same))) for length, same in groupby(lengths)), strict=True)
    ends = [0, *accumulate(counts)]
    least, firsts = [0.0], [0]  # up to each of the distinct lengths, and where its last range begins
    for last, length in enumerate(distinct):
        costs = [least[k] + (ends[last + 1] - ends[k]) * (length + 1) + cost for k in range(last + 1)]
        least.append(min(costs))
        firsts.append(costs.index(least[-1]))
    parts, k = [], len(distinct)
    while k > 0:
        parts.append((ends[firsts[k]], ends[k], max(1, distinct[k - 1])))
        k = firsts[k]
    return parts[::-1]


_OWN = ("obs", "state", "avail", "actions", "reward", "terminated", "truncated")


def joined(first: Episodes, second: Episodes) -> Episodes:
    """The episodes of both, padded to the longer steps of the two."""
    return torch.cat(alike(first, second))  # type: ignore[arg-type, return-value]


def alike(*batches: Episodes) -> list[Episodes]:
    """Each of them padded to the steps of the longest."""
    steps = max(each.valid.shape[1] for each in batches)
    return [each.padded(steps) for each in batches]
