"""SMAC's observations, state, availability, reward and ends, unit by unit in double precision: slow and obvious.

Written from SMAC's definitions; reads nothing but the raw units of a battle.
"""

import math
from dataclasses import dataclass

import numpy as np

from emix.envs.battle.fields import CLOCK, MIND, UNIT

SIGHT, SHOOT = 9.0, 6.0
MOVES = {2: (0, 1), 3: (0, -1), 4: (1, 0), 5: (-1, 0)}
MAX_SHIELD = {"stalker": 80.0, "zealot": 50.0, "colossus": 150.0}
MAX_COOLDOWN = {
    "marine": 15, "marauder": 25, "medivac": 200, "stalker": 35, "zealot": 22, "colossus": 24, "hydralisk": 10,
    "zergling": 11, "baneling": 1,
}  # fmt: skip
AROUND = [(0, 2), (0, -2), (2, 0), (-2, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]  # times move_amount


@dataclass
class Unit:
    name: str
    x: float
    y: float
    health: float
    health_max: float
    shield: float
    energy: float
    cooldown: float

    @property
    def alive(self):
        return self.health > 0

    def distance(self, other):
        return math.hypot(other.x - self.x, other.y - self.y)


class Battle:
    """Battle ``index`` of ``env`` as it stands."""

    def __init__(self, env, index):
        scenario = env.scenario
        self.options, self.types = scenario.options, (scenario.map.ally_types, scenario.map.enemy_types)
        self.n, self.enemies_count = len(scenario.allies), len(scenario.enemies)
        units, minds = env.units[index].double().tolist(), env.minds[index].tolist()
        clock = env.clock[index].tolist()
        self.time, self.closed = clock[CLOCK["step"]], clock[CLOCK["closed"]]
        self.limit = env.spec.episode_limit
        self.grid = scenario.terrain[self.closed]
        self.last_actions = minds[MIND["last_action"]][: self.n]
        first = -(-self.n // 8) * 8
        placed = dict(enumerate(scenario.allies)) | {first + j: start for j, start in enumerate(scenario.enemies)}

        def unit(slot):
            kind = placed[minds[MIND["kind"]][slot]].unit
            row = {name: units[number][slot] for name, number in UNIT.items()}
            cooldown = max(0.0, row["cooldown"])
            maximum = float(np.float32(kind.stats["health"]))
            return Unit(kind.name, row["x"], row["y"], row["health"], maximum, row["shield"], row["energy"], cooldown)

        self.allies = [unit(slot) for slot in range(self.n)]
        self.enemies = [unit(first + j) for j in range(self.enemies_count)]
        sides = (scenario.allies, scenario.enemies)
        self.shields = [any(start.unit.name in MAX_SHIELD for start in side) for side in sides]
        self.healers = any(start.unit.name == "medivac" for start in scenario.allies)

    # Available actions.

    def walkable(self, x, y):
        return 0 <= x < 32 and 0 <= y < 32 and self.grid[y, x] > 0

    def can_move(self, unit, action):
        half = self.options.move_amount / 2
        dx, dy = MOVES[action]
        return self.walkable(math.floor(unit.x + half * dx), math.floor(unit.y + half * dy))

    def avail(self, agent):
        unit = self.allies[agent]
        if not unit.alive:
            return [True] + [False] * (5 + self.enemies_count)
        actions = [False, True] + [self.can_move(unit, action) for action in MOVES]
        for j in range(self.enemies_count):
            if unit.name == "medivac":
                target = self.allies[j] if j < self.n and self.allies[j].name != "medivac" else None
            else:
                target = self.enemies[j]
            actions.append(target is not None and target.alive and unit.distance(target) <= SHOOT)
        return actions

    # Observations.

    def one_hot(self, unit, side):
        return [float(unit.name == name) for name in self.types[side]]

    def health(self, unit, side):
        values = [unit.health / unit.health_max]
        if self.shields[side]:
            values.append(unit.shield / MAX_SHIELD.get(unit.name, 1.0))
        return values

    def last_action(self, agent):
        return [float(self.last_actions[agent] == action) for action in range(6 + self.enemies_count)]

    def about(self, unit, other, first, side):
        values = [first, unit.distance(other) / SIGHT, (other.x - unit.x) / SIGHT, (other.y - unit.y) / SIGHT]
        if self.options.obs_all_health:
            values += self.health(other, side)
        return values + self.one_hot(other, side)

    def moves(self, unit, avail):
        values = [float(avail[action]) for action in MOVES]
        x, y, amount = int(unit.x), int(unit.y), self.options.move_amount
        points = [(int(x + amount * dx), int(y + amount * dy)) for dx, dy in AROUND]
        inside = [0 <= px < 32 and 0 <= py < 32 for px, py in points]
        if self.options.obs_pathing_grid:
            values += [float(not i or self.walkable(*p)) for i, p in zip(inside, points, strict=True)]
        if self.options.obs_terrain_height:
            heights = [
                max(0, int(self.grid[p[1], p[0]]) - 1) / 4 if i else 1.0 for i, p in zip(inside, points, strict=True)
            ]
            values += [*heights, max(0, int(self.grid[y, x]) - 1) / 4]
        if self.options.obs_closed:
            values.append(float(self.closed))
        return values

    def obs(self, agent, size):
        unit, avail = self.allies[agent], self.avail(agent)
        if not unit.alive:
            return [0.0] * size
        values = self.moves(unit, avail)
        enemy_size = len(self.about(unit, self.enemies[0], 0.0, 1))
        for j, enemy in enumerate(self.enemies):
            seen = enemy.alive and unit.distance(enemy) < SIGHT
            values += self.about(unit, enemy, float(avail[6 + j]), 1) if seen else [0.0] * enemy_size
        ally_size = len(self.about(unit, self.allies[0], 0.0, 0)) + len(avail) * self.options.obs_last_action
        for j, ally in enumerate(self.allies):
            if j == agent:
                continue
            if ally.alive and unit.distance(ally) < SIGHT:
                values += self.about(unit, ally, 1.0, 0)
                if self.options.obs_last_action:
                    values += self.last_action(j)
            else:
                values += [0.0] * ally_size
        if self.options.obs_own_health or self.options.obs_all_health:
            values += self.health(unit, 0)
        values += self.one_hot(unit, 0)
        if self.options.obs_timestep_number:
            values.append(self.time / self.limit)
        return values

    # State.

    def state(self):
        values = []
        for ally in self.allies:
            own = [ally.health / ally.health_max]
            own.append((ally.energy if ally.name == "medivac" else ally.cooldown) / MAX_COOLDOWN.get(ally.name, 15))
            own += self.place(ally, 0)
            values += own if ally.alive else [0.0] * len(own)
        for enemy in self.enemies:
            own = [enemy.health / enemy.health_max, *self.place(enemy, 1)]
            values += own if enemy.alive else [0.0] * len(own)
        if self.options.state_last_action:
            for agent in range(self.n):
                values += self.last_action(agent)
        if self.options.state_timestep_number:
            values.append(self.time / self.limit)
        return values

    def place(self, unit, side):
        return [(unit.x - 16) / 32, (unit.y - 16) / 32, *self.health(unit, side)[1:], *self.one_hot(unit, side)]

    # Reward and end.

    def code(self):
        """1 won, -1 lost, 0 both sides dead, None: it goes on."""
        allies = [unit for unit in self.allies if unit.alive]
        enemies = [unit for unit in self.enemies if unit.alive]
        only_medivacs = self.healers and all(unit.name == "medivac" for unit in allies)
        if (not allies and enemies) or only_medivacs:
            return -1
        if allies and (not enemies or (self.healers and len(enemies) == 1 and enemies[0].name == "medivac")):
            return 1
        return 0 if not allies else None

    def reward(self, before):
        """Of the environment step from ``before`` to this moment."""
        options, code = self.options, self.code()
        lost, died = zip(*(side_losses(*pair) for pair in self.sides(before)), strict=True)  # allies, enemies
        most = options.reward_death_value * self.enemies_count + options.reward_win
        most += sum(unit.health_max + MAX_SHIELD.get(unit.name, 0.0) for unit in self.enemies)
        scale = most / options.reward_scale_rate if options.reward_scale else 1.0
        if options.reward == "sparse":
            return (code or 0) / scale
        if options.reward == "sparse_deaths":
            return -0.1 + options.reward_death_value * died[1] - died[0] + options.reward_win * (code == 1)
        reward = lost[1] + options.reward_death_value * died[1]
        if not options.reward_only_positive:
            reward -= options.reward_negative_scale * (lost[0] + options.reward_death_value * died[0])
        elif options.reward_absolute:
            reward = abs(reward)
        reward += {1: options.reward_win, -1: options.reward_defeat}.get(code, 0)
        return reward / scale

    def sides(self, before):
        return [(before.allies, self.allies), (before.enemies, self.enemies)]


def side_losses(before, after):
    """Health and shield that a side has lost, and its deaths."""
    lost, died = 0.0, 0
    for old, new in zip(before, after, strict=True):
        if old.alive:
            lost += old.health + old.shield - (new.health + new.shield if new.alive else 0.0)
            died += not new.alive
    return lost, died
