"""SMAC's heuristic: attack the nearest enemy, or heal the nearest wounded ally, until it is dead or healed."""

from __future__ import annotations

import numpy as np

from emix.envs.battle.env import BattleEnv
from emix.envs.battle.fields import MIND, ORDER, UNIT
from emix.envs.battle.spawn import Start

_FIRST_TARGET = 6
_NORTH, _SOUTH, _EAST, _WEST = 2, 3, 4, 5


def unit_slots(env: BattleEnv) -> list[int]:
    """The slots of the allies, then of the enemies."""
    first = env.scenario.enemy_slot
    return [*range(env.spec.n_agents), *range(first, first + len(env.scenario.enemies))]


def unit_in(env: BattleEnv, slot: int) -> Start:
    """The map's unit that stands in a slot of battle 0; enemies may have been shuffled."""
    scenario, kind = env.scenario, int(env.minds[0, MIND["kind"], slot])
    return scenario.allies[kind] if kind < scenario.enemy_slot else scenario.enemies[kind - scenario.enemy_slot]


def positions(env: BattleEnv) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and whether it lives, of the allies of battle 0 and then of the enemies."""
    units = env.units[0][:, unit_slots(env)].numpy()  # [rows, units]
    return units[UNIT["x"]], units[UNIT["y"]], units[UNIT["health"]] > 0


class Heuristic:
    """Plays battle 0 of an environment on the CPU. With ``rest`` it walks towards targets that are out of reach;
    without, it orders to attack or heal them from afar, which no action can."""

    def __init__(self, env: BattleEnv, rest: bool) -> None:
        self._env, self._rest = env, rest
        self._targets: list[int | None] = []

    def reset(self) -> None:
        """Forget the targets of the last episode."""
        self._targets = [None] * self._env.spec.n_agents

    def actions(self, avail: list[list[int]]) -> list[int]:
        """The agents' next actions; without ``rest`` they need not be in ``avail``."""
        x, y, alive = positions(self._env)
        return [self._action(agent, avail[agent], x, y, alive) for agent in range(len(avail))]

    def order_from_afar(self, actions: list[int], avail: list[list[int]]) -> list[int]:
        """Write the orders that are not in ``avail`` into the battle; return the actions with no-op, which leaves an
        order as it is, in their place."""
        sent, minds = list(actions), self._env.minds[0]  # [rows, slots]
        for agent, action in enumerate(actions):
            if action >= _FIRST_TARGET and not avail[agent][action]:
                heals = unit_in(self._env, agent).unit.heals
                slot = action - _FIRST_TARGET + (0 if heals else self._env.scenario.enemy_slot)
                minds[MIND["order"], agent] = ORDER["heal" if heals else "attack"]
                minds[MIND["order_target"], agent] = minds[MIND["target"], agent] = slot
                sent[agent] = 0
        return sent

    def _action(self, agent: int, avail: list[int], x: np.ndarray, y: np.ndarray, alive: np.ndarray) -> int:
        if not alive[agent]:
            return 0
        first = 0 if unit_in(self._env, agent).unit.heals else self._env.spec.n_agents
        candidates, target = self._candidates(agent, alive), self._targets[agent]
        if target is None or target not in candidates:
            distance = {t: np.hypot(x[first + t] - x[agent], y[first + t] - y[agent]) for t in candidates}
            target = min(candidates, key=lambda t: distance[t], default=None)
            self._targets[agent] = target
        if target is None:
            return 0
        if not self._rest or avail[_FIRST_TARGET + target]:
            return _FIRST_TARGET + target
        dx, dy = x[first + target] - x[agent], y[first + target] - y[agent]
        if abs(dx) > abs(dy):
            return _EAST if dx > 0 else _WEST
        return _NORTH if dy > 0 else _SOUTH

    def _candidates(self, agent: int, alive: np.ndarray) -> list[int]:
        """Whom an agent may choose: enemies that it can hit, or of a healer wounded allies."""
        env, unit, n = self._env, unit_in(self._env, agent).unit, self._env.spec.n_agents
        others = [unit_in(env, slot).unit for slot in unit_slots(env)]
        if unit.heals:
            health = env.units[0, UNIT["health"]].numpy()
            wounded = [health[i] < other.stats["health"] and not other.heals for i, other in enumerate(others[:n])]
            return [i for i in range(n) if alive[i] and wounded[i]]
        return [j for j, other in enumerate(others[n:]) if alive[n + j] and unit.reach >> other.layer & 1]
