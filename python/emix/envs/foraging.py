"""``foraging/<id>``: level-based foraging, on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data import Discrete, EnvSpec
from emix.envs.foraging_task import ForagingTask, read_task
from emix.envs.options import ForagingOptions, read_options
from emix.envs.random import shift_right, splitmix64
from emix.envs.tensor import TensorEnv
from emix.errors import UsageError

ACTIONS, LOAD = 6, 5  # none, north, south, west, east, load
MAX_LEVEL = 2  # of players
MARGIN = 2  # cells around the field, so that no neighbour leaves the grid: cell = (row + 2) * side + column + 2
NOWHERE = 0  # the cell of what has none: a corner of the margin


class Foraging(TensorEnv):
    """Players gather food on a square field, which they can load together when their levels suffice.

    Actions: none, north, south, west, east, load. A step: (1) all move at once, but not onto a food or out of the
    field, and of several whose targets are the same cell (who stays has its own as target) none moves; (2) a food is
    loaded when the levels of those beside it (not diagonally) that load sum to at least its own, and pays its level
    over the sum of all foods' levels at the start, so that an episode pays at most 1. The episode ends when no food is
    left.

    An episode starts with players and foods at random: players on different cells, with levels of 1 or 2; foods off
    the border and off each other's neighbourhood, with levels of 1 to c (v3) or 1 to c - 1 (v2), where c is the sum of
    the three lowest levels of players; with ``coop`` all have c. A field without room gets fewer foods.

    Observation: (row, column, level) of each food in sight, by rows, and then of each player in sight, itself first;
    -1, -1, 0 for what is not. Positions count from the upper left corner of what the player sees. State: all
    observations. All actions are always available; an impossible one does nothing.

    Source: lbforaging 2.0.0 (v3) and 1.1.1 (v2) by Christianos et al., to the letter: from the same start the same
    actions give the same episode, its oddities included (players see others farther down and right than foods where
    they stand near the upper or left border; two players can come to share a cell). The order in which lbforaging
    serves loading players decides nothing, as no cell is beside two foods. Its draws of the start are NumPy's, and are
    not repeated here, only their distribution. As in EPyMARL, the reward is the sum of the agents', and the time limit,
    which lbforaging does not tell from the end, is ``truncated``.
    """

    def __init__(
        self,
        name: str,
        task: ForagingTask,
        options: ForagingOptions,
        *,
        num_envs: int,
        device: torch.device,
        seed: int,
        first_env: int = 0,
    ) -> None:
        n, f = task.players, task.foods
        size = 3 * (f + n)
        spec = EnvSpec(name, n, Discrete(ACTIONS), size, n * size, options.episode_limit)
        super().__init__(spec, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
        self.task = task
        # The environments come last in all that follows: then each expression runs along them.
        self._none = torch.tensor((-1.0, -1.0, 0.0), dtype=torch.float32, device=device)[:, None]  # [3, 1]
        self._players = torch.zeros(n, 3, num_envs, dtype=torch.float32, device=device)  # [n, 3, E] row, column, level
        self._foods = self._none.repeat(f, 1, num_envs)  # [f, 3, E] row, column, level: those left first, by rows
        self._spawned = torch.zeros(
            num_envs, dtype=torch.float32, device=device
        )  # [E] levels of all foods at the start
        others = [[i, *(j for j in range(n) if j != i)] for i in range(n)]
        self._others = torch.tensor(others, dtype=torch.int64, device=device)  # [n, n]: itself, then the others
        self._different = ~torch.eye(n, dtype=torch.bool, device=device)[:, :, None]  # [n, n, 1]
        self._spawn = Spawn(task, device)

    def _start(self, where: Tensor, started: Tensor) -> None:
        rows = started.nonzero()[:, 0].to(self.device)  # [R]: what starts is made alone
        players, foods = self._spawn(self._episode_keys(started)[rows])  # [n, 3, R], [f, 3, R]
        if len(rows) < self.num_envs:
            players = self._players.index_copy(2, rows, players)
            foods = self._foods.index_copy(2, rows, foods)
        self._spawned = torch.where(where, _added(foods[:, 2]), self._spawned)
        self._players, self._foods = players, foods

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        actions = actions.t().to(torch.uint8)  # [n, E]
        self._move(actions)
        level, value = self._players[:, 2], self._foods[:, 2]  # [n, E], [f, E]
        apart = (self._players[:, None, :2] - self._foods[:, :2]).abs()  # [n, f, 2, E]
        beside = apart[:, :, 0] + apart[:, :, 1] == 1  # [n, f, E]
        hands = (beside & (actions == LOAD)[:, None]).float()  # [n, f, E]
        strength = _added(hands * level[:, None])  # [f, E]
        loaded = (strength >= value) & (value > 0)  # [f, E]
        paid = (hands * loaded).transpose(0, 1)  # [f, n, E]
        gain = _added(paid * value[:, None]) * level  # [n, E]
        whole = _added(paid * strength[:, None]) * self._spawned  # [n, E]
        reward = _added(gain.double() / whole.clamp(min=1).double())  # [E], in the players' order
        self._foods = _moved_up(self._foods, (value > 0) & ~loaded, self._none)
        return reward.float(), self._foods[0, 2] == 0

    def _move(self, actions: Tensor) -> None:
        """Move by ``actions`` [n, E]."""
        north, south, west, east = ((actions == k).float() for k in range(1, LOAD))  # [n, E] each
        place, size = self._players[:, :2], self.task.size  # [n, 2, E]
        target = (place + torch.stack([south - north, east - west], dim=1)).clamp(0, size - 1)  # [n, 2, E]
        foods = self._foods[:, 0] * size + self._foods[:, 1]  # [f, E]
        food = _any((target[:, 0] * size + target[:, 1]) == foods[:, None])  # [n, E], over the foods
        target = torch.where(food[:, None], place, target)
        cell = target[:, 0] * size + target[:, 1]  # [n, E]
        crowded = _any((cell[:, None] == cell) & self._different)  # [n, E]
        place = torch.where(crowded[:, None], place, target)
        self._players = torch.cat([place, self._players[:, 2:]], dim=1)

    def _observe(self) -> tuple[Tensor, Tensor, Tensor]:
        n, num_envs = self.spec.n_agents, self.num_envs
        foods = self._foods.expand(n, -1, -1, -1)  # [n, f, 3, E]
        players = self._players[self._others]  # [n, n, 3, E]
        if self.task.sight < self.task.size - 1:
            foods, players = self._in_sight(foods, players)
        state = torch.cat([foods, players], dim=1).view(-1, num_envs).t().contiguous()  # [E, S]
        avail = torch.ones(num_envs, n, ACTIONS, dtype=torch.bool, device=self.device)  # [E, n, A]
        return state.clone().view(num_envs, n, -1), state, avail

    def _in_sight(self, foods: Tensor, players: Tensor) -> tuple[Tensor, Tensor]:
        """What each player sees of ``foods`` [n, f, 3, E] and ``players`` [n, n, 3, E]: tensors of these shapes."""
        sight, own = self.task.sight, self._players[:, None, :2]  # [n, 1, 2, E]
        corner = own - own.clamp(max=sight)  # [n, 1, 2, E], the upper left one of what it sees
        close = ((foods[:, :, :2] - own).abs() <= sight).all(2) & (foods[:, :, 2] > 0)  # [n, f, E]
        there = players[:, :, :2] - corner  # [n, n, 2, E]
        near = ((there >= 0) & (there <= 2 * sight)).all(2)  # [n, n, E]
        foods = torch.cat([foods[:, :, :2] - corner, foods[:, :, 2:]], dim=2)
        players = torch.cat([there, players[:, :, 2:]], dim=2)
        return _moved_up(foods, close, self._none), _moved_up(players, near, self._none)

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import grid

        taken = [0] * self.spec.n_agents if self._taken is None else self._taken[index].tolist()
        players = self._players[:, :, index].tolist()  # [n, 3]
        foods = [food for food in self._foods[:, :, index].tolist() if food[2] > 0]  # [f, 3]
        agents = [
            (row, column, f"{level:g}", action == LOAD)
            for (row, column, level), action in zip(players, taken, strict=True)
        ]
        return grid(self.task.size, agents, [(row, column, f"{level:g}") for row, column, level in foods])


class Spawn:
    """Makes the starts of episodes: everything at random, from the episodes' keys."""

    def __init__(self, task: ForagingTask, device: torch.device) -> None:
        self.task = task
        self.side = task.size + 2 * MARGIN
        square = torch.arange(self.side**2, device=device).view(self.side, self.side)
        field, border = slice(MARGIN, MARGIN + task.size), slice(MARGIN + 1, MARGIN + task.size - 1)
        self.cells = square[field, field].flatten()  # [s * s] of the field
        self.barren = torch.ones(self.side**2, dtype=torch.bool, device=device)  # [cells], where no food may be
        self.barren[square[border, border].flatten()] = False
        near = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if max(abs(y), abs(x)) < 2 or 0 in (y, x)]
        self.near = torch.tensor([y * self.side + x for y, x in near], dtype=torch.int64, device=device)  # [13]
        self.counters = torch.arange(task.size**2 + task.players + task.foods, device=device)

    def __call__(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Players [3, n, R] and foods [3, f, R], row, column and level of each, of episodes with these ``keys`` [R]."""
        n, cells = self.task.players, self.task.size**2
        bits = shift_right(splitmix64(keys[:, None], self.counters), 1)  # [R, s * s + n + f], at least 0
        # Each cell has a random rank. Players take the highest, and each food the highest of those that are left to it.
        ranks = torch.full((len(keys), self.side**2), -1, dtype=torch.int64, device=keys.device)  # [R, cells]
        ranks[:, self.cells] = bits[:, :cells]
        players = ranks.topk(n, dim=1).indices  # [R, n]
        levels = 1 + bits[:, cells : cells + n] % MAX_LEVEL  # [R, n]
        cap = levels.sort(dim=1).values[:, :3].sum(1, keepdim=True)  # [R, 1]
        foods = self._place_foods(ranks.scatter(1, players, -1).masked_fill(self.barren, -1))  # [R, f]
        values = 1 + bits[:, cells + n :] % (cap if self.task.version == 3 else cap - 1)  # [R, f]
        values = torch.where(foods == NOWHERE, 0, cap if self.task.coop else values)
        order = torch.where(foods == NOWHERE, self.side**2, foods).argsort(dim=1)  # [R, f], by rows
        return self._table(players, levels), self._table(foods.gather(1, order), values.gather(1, order))

    def _place_foods(self, ranks: Tensor) -> Tensor:
        """A cell for each food, NOWHERE where none is left: [R, f]. ``ranks`` [R, cells] are negative where none may
        be."""
        foods = []
        for _ in range(self.task.foods):
            rank, cell = ranks.max(1, keepdim=True)  # [R, 1] each
            foods.append(torch.where(rank < 0, NOWHERE, cell))
            ranks = ranks.scatter(1, torch.where(rank < 0, self.cells[0], cell) + self.near, -1)
        return torch.cat(foods, dim=1)

    def _table(self, cells: Tensor, levels: Tensor) -> Tensor:
        """Row, column and level [k, 3, R] of what has these ``cells`` and ``levels`` [R, k]."""
        nowhere = cells == NOWHERE
        row, column = cells // self.side - MARGIN, cells % self.side - MARGIN
        table = [row.masked_fill(nowhere, -1), column.masked_fill(nowhere, -1), levels]
        return torch.stack(table).permute(2, 0, 1).float().contiguous()


def _added(values: Tensor) -> Tensor:
    """The sum over the first axis, from its first entry on."""
    return reduce(torch.add, values.unbind())


def _any(values: Tensor) -> Tensor:
    """Whether one along the first axis is True."""
    return reduce(torch.logical_or, values.unbind())


def _moved_up(rows: Tensor, kept: Tensor, none: Tensor) -> Tensor:
    """Of ``rows`` [..., k, 3, E] those that are ``kept`` [..., k, E], one after the other, and then ``none`` [3, 1]."""
    count = kept.shape[-2]
    rank = torch.where(kept, kept.cumsum(-2) - 1, count)  # [..., k, E]
    rows = rows - none
    moved = [
        reduce(torch.add, ((rank == place).float()[..., None, :] * rows).unbind(-3))  # [..., 3, E]
        for place in range(count)
    ]
    return torch.stack(moved, dim=-3) + none


def make_foraging(name: str, options: Mapping[str, Any], **batch: Any) -> Foraging:
    """Build ``foraging/<id>``. Raises UsageError for an id or an option that makes no sense."""
    task = read_task(name)
    if task.version not in (2, 3):
        raise UsageError(f"{name}: expected v2 or v3 at the end, got v{task.version}")
    return Foraging(name, task, read_options(name, ForagingOptions, options), **batch)
