"""Ways around walls and cliffs: from any cell to any other, the cell to walk to next in a straight line.

A unit is as wide as a cell: it can walk straight from one cell to another if nothing is in the way anywhere in the
hull of the two. Such lines, and turns at the corners of what is in the way, make the shortest ways.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.uint8]  # [y, x]: 0 blocked, else 1 + height
UNREACHABLE = -1


def waypoints(terrain: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The ways of ground units on ``terrain`` [2, y, x] (open, closed; 0 blocked, else 1 + height).

    Returns [2, cells, cells] by (goal, own) cell 32 y + x: the goal itself where the line is free, -1 where there is no
    way. Where no straight line between walkable cells is ever blocked, the result is [0, 0, 0].
    """
    return _cached_waypoints(terrain.tobytes(), terrain.shape)


@lru_cache(maxsize=32)
def _cached_waypoints(content: bytes, shape: tuple[int, ...]) -> NDArray[np.int16]:
    terrain = np.frombuffer(content, np.uint8).reshape(shape)
    if all(is_convex(grid) for grid in terrain):
        return np.zeros((0, 0, 0), np.int16)
    first = ways(terrain[0])
    return np.stack([first, first if (terrain[0] == terrain[1]).all() else ways(terrain[1])])


def is_convex(grid: Grid) -> bool:
    """Whether units can walk straight from the middle of any cell to that of any other, sliding along the edge."""
    flat = len(np.unique(grid[grid > 0])) == 1
    rows_whole = (np.diff((grid > 0).astype(np.int8), axis=1, prepend=0) == 1).sum(1).max() == 1
    return flat and rows_whole and bool(_lines(grid, clearance=0.5)[_both_walkable(grid)].all())


def ways(grid: Grid) -> NDArray[np.int16]:
    """``waypoints`` of one grid: [goal cell, own cell]."""
    free = _lines(grid, clearance=1.0)  # [own, goal]
    cells = np.flatnonzero(grid > 0)
    y, x = np.divmod(cells, grid.shape[1])
    length = np.hypot(x[:, None] - x, y[:, None] - y)  # [own, goal] of the walkable cells
    sight = free[np.ix_(cells, cells)]
    distance = np.where(sight, length, np.inf)
    following = np.where(sight, np.arange(len(cells)), UNREACHABLE)  # [own, goal]
    # Floyd and Warshall's recursion; a shortest way turns at corners only.
    for corner in np.flatnonzero(np.isin(cells, _corners(grid, free))):
        through = distance[:, corner, None] + distance[corner]
        shorter = through < distance - 1e-9
        distance = np.where(shorter, through, distance)
        following = np.where(shorter, following[:, corner, None], following)
    result = np.full((grid.size, grid.size), UNREACHABLE, np.int16)
    result[np.ix_(cells, cells)] = np.where(following >= 0, cells[following], UNREACHABLE).T
    return result


def _lines(grid: Grid, clearance: float) -> NDArray[np.bool_]:
    """[cell, cell]: whether one can walk from cell to cell on a straight line that is 2 ``clearance`` cells wide.

    Every pair of cells with the same displacement crosses the same steps between neighbours, shifted.
    """
    size = grid.shape[0]
    walkable, (east, north) = grid > 0, _steps(grid)
    free = np.zeros((size, size, size, size), np.bool_)  # [y, x, to y, to x]
    ys, xs = np.mgrid[:size, :size]
    for dy in range(size):
        for dx in range(1 - size, size):
            if dy == 0 and dx < 0:
                continue  # the way back of what was looked at already
            covered = _cover(dx, dy, clearance)
            low, high = max(0, -dx), min(size, size - dx)  # own x
            line = np.ones((size - dy, high - low), np.bool_)
            for x, y in covered:
                rows, columns = slice(y, size - dy + y), slice(low + x, high + x)
                line &= walkable[rows, columns]
                if (x + 1, y) in covered:
                    line &= east[rows, columns]
                if (x, y + 1) in covered:
                    line &= north[rows, columns]
                if not line.any():
                    break
            own_y, own_x = ys[: size - dy, low:high], xs[: size - dy, low:high]
            free[own_y, own_x, own_y + dy, own_x + dx] = line
            free[own_y + dy, own_x + dx, own_y, own_x] = line
    return free.reshape(grid.size, grid.size)


def _steps(grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[y, x] each: whether a unit can step from a cell to its eastern and its northern neighbour."""
    height = grid.astype(np.int16)
    open_ = grid > 0
    east, north = np.zeros_like(open_), np.zeros_like(open_)
    east[:, :-1] = open_[:, :-1] & open_[:, 1:] & (abs(height[:, 1:] - height[:, :-1]) <= 1)
    north[:-1] = open_[:-1] & open_[1:] & (abs(height[1:] - height[:-1]) <= 1)
    return east, north


@cache
def _cover(dx: int, dy: int, clearance: float) -> frozenset[tuple[int, int]]:
    """The cells (x, y) closer than ``clearance`` along both axes to the segment from (0, 0) to (dx, dy)."""
    near = int(clearance)
    x0, x1 = sorted((0, dx))
    cells = np.stack(
        np.meshgrid(np.arange(x0 - near, x1 + near + 1), np.arange(-near, dy + near + 1), indexing="ij"), -1
    ).reshape(-1, 2)  # [cells, 2]
    direction = np.array([dx, dy])
    # Along the segment, t from 0 to 1, |t d - cell| < clearance holds on an open interval for either axis.
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.sort(np.stack([(cells - clearance) / direction, (cells + clearance) / direction]), axis=0)
    still = direction == 0
    within = abs(cells) < clearance
    bounds[0][:, still] = np.where(within[:, still], -np.inf, np.inf)
    bounds[1][:, still] = np.where(within[:, still], np.inf, -np.inf)
    enter, leave = bounds[0].max(1), bounds[1].min(1)
    met = (np.maximum(enter, 0) < np.minimum(leave, 1)) | ((enter < 0) & (leave > 0)) | ((enter < 1) & (leave > 1))
    return frozenset(map(tuple, cells[met & (enter < leave)].tolist()))


def _corners(grid: Grid, free: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The cells where a shortest way can turn: the diagonal step is not free, but both steps beside it are."""
    size = grid.shape[0]
    corners = set()
    for cell in np.flatnonzero(grid > 0).tolist():
        y, x = divmod(cell, size)
        for sy in (-1, 1):
            for sx in (-1, 1):
                if 0 <= y + sy < size and 0 <= x + sx < size:
                    beside = free[cell, cell + sx] and free[cell, cell + sy * size]
                    if beside and not free[cell, cell + sx + sy * size]:
                        corners.add(cell)
    return np.array(sorted(corners), np.intp)


def _both_walkable(grid: Grid) -> NDArray[np.bool_]:
    walkable = (grid > 0).ravel()
    return walkable[:, None] & walkable
