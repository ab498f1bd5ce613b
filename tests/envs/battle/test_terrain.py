"""Ways around walls and cliffs, against a grid search and by following them."""

import heapq
import time
from itertools import pairwise

import numpy as np
import pytest

from emix.envs.battle import terrain
from emix.envs.battle.maps import list_maps, load_map

CONVEX = {"2m_vs_1z", "2s_vs_1sc", "3s_vs_3z", "6h_vs_8z", "bane_vs_bane", "3m"}
WINDING = ["corridor", "so_many_baneling", "2c_vs_64zg", "2_corridors"]


def can_step(grid, a, b):
    """Whether a unit steps from cell (y, x) to an orthogonal neighbour."""
    return grid[a] > 0 and grid[b] > 0 and abs(int(grid[a]) - int(grid[b])) <= 1


def grid_distance(grid, goal):
    """[y, x] lengths by Dijkstra over the eight neighbours: of a diagonal, both ways around must be free."""
    size = grid.shape[0]
    distance = np.full(grid.shape, np.inf)
    distance[goal], queue = 0.0, [(0.0, goal)]
    while queue:
        far, (y, x) = heapq.heappop(queue)
        if far > distance[y, x]:
            continue
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                cell = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= cell[0] < size and 0 <= cell[1] < size):
                    continue
                sides = [((y, x), (y + dy, x), cell), ((y, x), (y, x + dx), cell)]
                free = all(
                    can_step(grid, a, b) and can_step(grid, b, c) for a, b, c in sides if b not in ((y, x), cell)
                )
                if dy == 0 or dx == 0:
                    free = can_step(grid, (y, x), cell)
                length = far + np.hypot(dy, dx)
                if free and length < distance[cell] - 1e-12:
                    distance[cell] = length
                    heapq.heappush(queue, (length, cell))
    return distance


def follow(grid, ways, own, goal):
    """The length of the way from cell ``own`` to ``goal``; every line of it is checked, point by point."""
    length = 0.0
    for _ in range(64):
        if own == goal:
            return length
        following = ways[goal, own]
        assert following >= 0
        a, b = np.array(divmod(own, 32)), np.array(divmod(int(following), 32))
        points = a + 0.5 + np.linspace(0, 1, 400)[:, None] * (b - a)
        cells = [tuple(cell) for cell in np.floor(points).astype(int)]
        for last, cell in pairwise(cells):
            assert grid[cell] > 0
            assert abs(int(grid[last]) - int(grid[cell])) <= 1
        length += float(np.hypot(*(b - a)))
        own = int(following)
    raise AssertionError("the way does not end")


def test_convex_maps_need_no_ways():
    for name in list_maps():
        assert (terrain.waypoints(load_map(name).terrain).size == 0) == (name not in WINDING)
    assert all(terrain.is_convex(load_map(name).terrain[0]) for name in CONVEX)


@pytest.mark.parametrize(("name", "closed"), [*((name, 0) for name in WINDING), ("2_corridors", 1)])
def test_ways_lead_to_the_goal_and_are_short(name, closed):
    """As long as the straight line at least, and as the best way over the grid at most."""
    battle_map = load_map(name)
    grid, ways = battle_map.terrain[closed], terrain.waypoints(battle_map.terrain)[closed]
    cells = np.flatnonzero(grid > 0)
    rng = np.random.default_rng(0)
    for goal in rng.choice(cells, 6, replace=False).tolist():
        best = grid_distance(grid, divmod(goal, 32))
        for own in rng.choice(cells, 60, replace=False).tolist():
            if np.isinf(best[divmod(own, 32)]):
                assert ways[goal, own] == terrain.UNREACHABLE
                continue
            straight = np.hypot(*np.subtract(divmod(own, 32), divmod(goal, 32)))
            assert straight - 1e-9 <= follow(grid, ways, own, goal) <= best[divmod(own, 32)] + 1e-9


def test_turning_at_corners_alone_loses_nothing(monkeypatch):
    """Ways that may turn at any cell are not shorter."""
    grid = np.zeros((32, 32), np.uint8)
    grid[5:15, 5:15] = 1
    grid[8:10, 7:12] = 0
    grid[12:15, 9] = 0
    grid[5:8, 12:15] = 2
    grid[5:8, 14] = 3
    few = terrain.ways(grid)
    monkeypatch.setattr(terrain, "_corners", lambda grid, free: np.flatnonzero(grid > 0))
    many = terrain.ways(grid)
    cells = np.flatnonzero(grid > 0).tolist()
    for goal in cells[::7]:
        for own in cells[::3]:
            assert follow(grid, few, own, goal) == pytest.approx(follow(grid, many, own, goal))


def test_the_plateau_is_entered_by_its_ramps():
    """From right below the cliff the way to the top leads around one of its ends."""
    grid = load_map("2c_vs_64zg").terrain[0]
    ways = terrain.waypoints(load_map("2c_vs_64zg").terrain)[0]
    below, above = 12 * 32 + 10, 13 * 32 + 10
    assert follow(grid, ways, below, above) > 10
    assert not any(can_step(grid, (12, x), (13, x)) for x in range(7, 25))


def test_a_closed_corridor_costs_a_detour():
    battle_map = load_map("2_corridors")
    ways = terrain.waypoints(battle_map.terrain)
    own, goal = 11 * 32 + 5, 26 * 32 + 18  # the marines' place and the zealot's
    lengths = [follow(battle_map.terrain[closed], ways[closed], own, goal) for closed in (0, 1)]
    assert lengths[1] > lengths[0] + 5


def test_ways_are_quick_to_find_and_kept():
    battle_map = load_map("2_corridors")
    terrain._cached_waypoints.cache_clear()
    start = time.process_time()
    first = terrain.waypoints(battle_map.terrain)
    assert time.process_time() - start < 30  # 0.9 s, and a multiple under sanitizers
    assert terrain.waypoints(battle_map.terrain.copy()) is first
