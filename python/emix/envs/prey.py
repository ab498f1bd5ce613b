"""``prey/stag-hunt``: predators that must catch prey in pairs, on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emix.data import Discrete, EnvSpec
from emix.envs.options import StagHuntOptions, read_options
from emix.envs.random import shift_right, splitmix64
from emix.envs.tensor import TensorEnv

NAME = "prey/stag-hunt"
FIELD, AGENTS, STAGS, SIGHT, LIMIT = 10, 8, 8, 2, 200
REWARD = 10.0
STAY, CATCH = 4, 5

# The field lies in a larger square, so that no window and no neighbour leaves it: cell = row * SIDE + column.
SIDE = 17
LEFT = 14 * SIDE + 14
"""The cell of those that left the field: no window shows it, and none of its neighbours is free."""
_NEIGHBOURS = (1, SIDE, -1, -SIDE)  # right, down, left, up

_PLACE_DRAWS = FIELD * FIELD
_STEP_DRAWS = AGENTS + STAGS + 4 * STAGS


class StagHunt(TensorEnv):
    """8 agents hunt 8 stags on a bounded field of 10 x 10; a stag is caught by two or more agents beside it.

    Actions: right, down, left, up, stay, catch. A step: (1) the agents move one after the other in random order, and
    one whose target is occupied or a wall stays; (2) the stags take their turns in random order. A stag beside which at
    least 2 agents choose catch is caught: +10, and stag and catchers leave the field. One beside which a single agent
    chooses catch costs ``punishment``. A stag that is not caught moves to a random free neighbour cell if there is one.
    The episode ends when no stag or no agent is left: at most 4 stags can be caught.

    Moves into walls are not available, moves onto others are. Catch is available beside a stag; those that left can
    only stay, and see zeros. Observation: the 5 x 5 cells around the agent, three numbers each (agent, stag, hare, of
    which there are none), rows first: 75. State: the same for the field: 300. info: ``stags_caught`` so far.

    Source: stag_hunt.py of wendelinboehmer/dcg (Deep Coordination Graphs) with PyMARL2's stag_hunt.yaml (capture_action
    True, agent_move_block 0, 1, 2, capture_freezes True, remove_frozen True, p_stags_rest 0, reward_time 0). Its time
    limit is ``truncated`` here.
    """

    def __init__(
        self, *, num_envs: int, device: torch.device, seed: int, first_env: int = 0, punishment: float = 0.0
    ) -> None:
        window = 2 * SIGHT + 1
        spec = EnvSpec(NAME, AGENTS, Discrete(CATCH + 1), 3 * window**2, 3 * FIELD**2, LIMIT)
        super().__init__(spec, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
        self.punishment = punishment
        square = torch.arange(SIDE * SIDE, device="cpu").view(SIDE, SIDE)
        inside = slice(SIGHT, SIGHT + FIELD)
        self._cells = square[inside, inside].flatten().to(device)  # [100] of the field
        self._field = torch.zeros(SIDE * SIDE, dtype=torch.bool, device=device)  # [289]
        self._field[self._cells] = True
        self._window = (square[:window, :window] - square[SIGHT, SIGHT]).flatten().to(device)  # [25], relative
        self._neighbours = torch.tensor(_NEIGHBOURS, device=device)  # [4], relative
        self._beside = SIGHT * (window + 1) + torch.tensor((1, window, -1, -window), device=device)  # [4] of the window
        self._moves = torch.tensor((*_NEIGHBOURS, 0, 0), device=device)  # [A], relative
        self._rows = torch.arange(num_envs, device=device)[:, None, None]  # [E, 1, 1]
        self._left = torch.tensor(LEFT, device=device)
        self._counters = torch.arange(max(_PLACE_DRAWS, _STEP_DRAWS), device=device)
        self._keys = torch.zeros(num_envs, dtype=torch.int64, device=device)  # [E]
        self._agents = torch.full((num_envs, AGENTS), LEFT, device=device)  # [E, n] cells
        self._stags = torch.full((num_envs, STAGS), LEFT, device=device)  # [E, m] cells, in any order: stags are alike

    def _start(self, where: Tensor, started: Tensor) -> None:
        keys = self._episode_keys(started)
        self._keys = torch.where(where, keys, self._keys)
        shuffled = splitmix64(keys[:, None], self._counters[:_PLACE_DRAWS]).argsort(dim=1)  # [E, 100]
        cells = self._cells[shuffled[:, : AGENTS + STAGS]]  # [E, n + m]
        self._agents = torch.where(where[:, None], cells[:, :AGENTS], self._agents)
        self._stags = torch.where(where[:, None], cells[:, AGENTS:], self._stags)

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        first = _PLACE_DRAWS + self._time[:, None] * _STEP_DRAWS
        bits = splitmix64(self._keys[:, None], first + self._counters[:_STEP_DRAWS])  # [E, 48]
        agent_bits, stag_bits, move_bits = bits.split((AGENTS, STAGS, 4 * STAGS), dim=1)
        free = self._field.repeat(self.num_envs, 1)  # [E, 289]
        free.scatter_(1, self._agents, False).scatter_(1, self._stags, False)
        self._move_agents(actions, agent_bits.argsort(dim=1), free)
        catching = self._hunt_stags(actions == CATCH, stag_bits.argsort(dim=1), move_bits, free)  # [E, m]
        caught, punished = (catching >= 2).sum(1).float(), (catching == 1).sum(1).float()  # [E] each
        over = (self._stags == LEFT).all(1) | (self._agents == LEFT).all(1)  # [E]
        return REWARD * caught + self.punishment * punished, over

    def _move_agents(self, actions: Tensor, order: Tensor, free: Tensor) -> None:
        """Move the agents in ``order`` [E, n]; ``free`` [E, 289] is kept up to date."""
        cells = self._agents.gather(1, order)  # [E, n]
        targets = cells + self._moves[actions.gather(1, order)]  # [E, n]
        reached = []
        for cell, target in zip(cells.split(1, dim=1), targets.split(1, dim=1), strict=True):  # [E, 1] each
            cell_after = torch.where(free.gather(1, target), target, cell)
            free.scatter_(1, cell, True).scatter_(1, cell_after, False)
            reached.append(cell_after)
        self._agents = torch.cat(reached, dim=1).gather(1, order.argsort(dim=1))

    def _hunt_stags(self, catch: Tensor, order: Tensor, move_bits: Tensor, free: Tensor) -> Tensor:
        """Give every stag its turn: the number of agents that tried to catch it, [E, m] in ``order``."""
        stags = self._stags.gather(1, order)  # [E, m]
        distance = (stags[:, :, None] - self._agents[:, None]).abs()  # [E, m, n]
        reach = catch[:, None] & ((distance == 1) | (distance == SIDE))  # [E, m, n]
        around = stags[:, :, None] + self._neighbours  # [E, m, 4]
        wishes = shift_right(move_bits, 1).unflatten(1, (STAGS, 4))  # [E, m, 4]; the free cell with the greatest wins
        present = torch.ones_like(catch)  # [E, n]
        reached, counts = [], []
        turns = zip(stags.split(1, dim=1), reach.unbind(1), around.unbind(1), wishes.unbind(1), strict=True)
        for cell, within_reach, neighbours, wish in turns:  # [E, 1], [E, n], [E, 4], [E, 4]
            hands = within_reach & present  # [E, n]
            count = hands.sum(1, keepdim=True)  # [E, 1]
            caught = count >= 2
            leaving = hands & caught
            present = present ^ leaving
            free.scatter_(1, torch.where(leaving, self._agents, self._left), True)
            best, direction = torch.where(free.gather(1, neighbours), wish, -1).max(1, keepdim=True)
            cell_after = torch.where(best < 0, cell, neighbours.gather(1, direction))
            cell_after = torch.where(caught, self._left, cell_after)
            free.scatter_(1, cell, True).scatter_(1, cell_after, False)
            reached.append(cell_after)
            counts.append(count)
        self._agents = torch.where(present, self._agents, self._left)
        self._stags = torch.cat(reached, dim=1)
        return torch.cat(counts, dim=1)

    def _observe(self) -> tuple[Tensor, Tensor, Tensor]:
        square = torch.zeros(self.num_envs, SIDE * SIDE, 3, dtype=torch.float32, device=self.device)  # [E, 289, 3]
        square.view(self.num_envs, -1).scatter_(1, 3 * self._agents, 1.0).scatter_(1, 3 * self._stags + 1, 1.0)
        square[:, LEFT] = 0.0
        inside = slice(SIGHT, SIGHT + FIELD)
        state = square.view(-1, SIDE, SIDE, 3)[:, inside, inside].flatten(1)  # [E, S]
        obs = square[self._rows, self._agents[:, :, None] + self._window]  # [E, n, 25, 3]

        moves = self._field[self._agents[:, :, None] + self._neighbours]  # [E, n, 4]
        stay = torch.ones_like(moves[:, :, :1])  # [E, n, 1]
        catch = (obs[:, :, self._beside, 1] > 0).any(2, keepdim=True)  # [E, n, 1]
        return obs.flatten(2), state, torch.cat([moves, stay, catch], dim=2)

    def _info(self) -> dict[str, Tensor]:
        return {"stags_caught": (self._stags == LEFT).sum(1)}

    def _draw(self, index: int) -> np.ndarray:
        from emix.envs.pictures import grid

        def places(cells: Tensor) -> list[tuple[int, int] | None]:
            return [None if cell == LEFT else (cell // SIDE - SIGHT, cell % SIDE - SIGHT) for cell in cells.tolist()]

        taken = [0] * AGENTS if self._taken is None else self._taken[index].tolist()
        agents = [
            (*place, str(k + 1), taken[k] == CATCH) for k, place in enumerate(places(self._agents[index])) if place
        ]
        return grid(FIELD, agents, [(*place, "s") for place in places(self._stags[index]) if place])


def make_stag_hunt(name: str, options: Mapping[str, Any], **batch: Any) -> StagHunt:
    """Build ``prey/stag-hunt``. Raises UsageError for an unknown option or a punishment above 0."""
    chosen = read_options(name, StagHuntOptions, options)
    return StagHunt(punishment=float(chosen.punishment), **batch)
