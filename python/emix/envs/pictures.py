"""Pictures of the small games, uint8 [H, W, 3]: what ``env.render()`` of ``foraging``, ``prey`` and ``matrix`` gives.

Agents are blue with their numbers, what they are after is green or orange; a yellow ring is an agent that loads or
catches. Everything is drawn at twice its size and reduced, which smooths the edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
BLUE, ORANGE, GREEN, YELLOW = (86, 180, 233), (240, 160, 40), (60, 180, 120), (250, 220, 90)
BACK, LINE, INK, GREY, WHITE = (15, 17, 22), (60, 66, 76), (10, 12, 16), (150, 158, 170), (245, 247, 250)
RED = (213, 94, 80)
SAMPLES = 2
SIDE = 480  # pixels of a square picture
HEADER = 32  # pixels


class Canvas:
    """A picture whose coordinates are those of a game: x to the right and y upward, from ``low`` to ``high``."""

    def __init__(self, low: tuple[float, float], high: tuple[float, float]) -> None:
        span = high[0] - low[0], high[1] - low[1]
        self.low, self.unit = low, SAMPLES * SIDE / max(span)  # drawn pixels
        width, height = (round(length * self.unit) // 4 * 4 for length in span)  # even once it is reduced: for films
        self.size = width, height
        self.image = Image.new("RGB", self.size, BACK)
        self.pen = ImageDraw.Draw(self.image, "RGBA")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        return (x - self.low[0]) * self.unit, self.size[1] - (y - self.low[1]) * self.unit

    def disc(self, x: float, y: float, radius: float, fill: tuple[int, ...], ring: Colour | None = None) -> None:
        """A disc, with a ring where one is given."""
        (u, v), r = self.at(x, y), radius * self.unit
        self.pen.ellipse((u - r, v - r, u + r, v + r), fill, outline=ring, width=4 * SAMPLES if ring else 0)

    def square(self, x: float, y: float, side: float, fill: Colour | None, outline: Colour | None = None) -> None:
        """A square around a point."""
        (u, v), r = self.at(x, y), side * self.unit / 2
        self.pen.rectangle((u - r, v - r, u + r, v + r), fill, outline=outline, width=SAMPLES)

    def line(self, points: Sequence[tuple[float, float]], fill: tuple[int, ...], width: float) -> None:
        """A line through points, ``width`` in the game's units."""
        self.pen.line(
            [self.at(*point) for point in points], fill, max(SAMPLES, round(width * self.unit)), joint="curve"
        )

    def text(self, x: float, y: float, text: str, height: float, fill: Colour = WHITE) -> None:
        """Text in the middle of a point, ``height`` in the game's units."""
        font = ImageFont.load_default(max(8, round(height * self.unit)))
        self.pen.text(self.at(x, y), text, fill, font, "mm")

    def done(self) -> np.ndarray:
        """The picture."""
        return np.array(self.image.reduce(SAMPLES))


def with_header(picture: np.ndarray, words: str) -> np.ndarray:
    """A picture below a line of words."""
    head = Image.new("RGB", (SAMPLES * picture.shape[1], SAMPLES * HEADER), INK)
    pen, size = ImageDraw.Draw(head), 15 * SAMPLES
    while pen.textlength(words, ImageFont.load_default(size)) > head.width - 16 * SAMPLES and size > 8:
        size -= 1
    pen.text((8 * SAMPLES, head.height / 2), words, WHITE, ImageFont.load_default(size), "lm")
    return np.concatenate([np.array(head.reduce(SAMPLES)), picture])


def grid(
    size: int, agents: Sequence[tuple[float, float, str, bool]], goods: Sequence[tuple[float, float, str]]
) -> np.ndarray:
    """A field of ``size`` x ``size`` cells: of each agent row, column, text and whether it grasps; of each of the goods
    row, column and text. Who shares a cell with others is drawn smaller, beside them."""
    canvas = Canvas((-0.5, -0.5), (size - 0.5, size - 0.5))
    for k in range(size + 1):
        canvas.line([(k - 0.5, -0.5), (k - 0.5, size - 0.5)], LINE, 0)
        canvas.line([(-0.5, k - 0.5), (size - 0.5, k - 0.5)], LINE, 0)
    for row, column, text in goods:
        canvas.disc(column, size - 1 - row, 0.32, GREEN)
        canvas.text(column, size - 1 - row, text, 0.4, INK)
    places = [agent[:2] for agent in agents]
    for k, (row, column, text, grasps) in enumerate(agents):
        together = [j for j, place in enumerate(places) if place == places[k]]
        shift = (together.index(k) - (len(together) - 1) / 2) * 0.45
        small = 1.0 if len(together) == 1 else 0.6
        x, y = column + shift, size - 1 - row
        canvas.square(x, y, 0.74 * small, BLUE, YELLOW if grasps else None)
        if grasps:
            canvas.disc(x, y, 0.46 * small, (0, 0, 0, 0), YELLOW)
        canvas.text(x, y, text, 0.4 * small, INK)
    return canvas.done()


def plane(
    agents: np.ndarray, prey: np.ndarray, landmarks: np.ndarray, radii: tuple[float, float, float], around: float
) -> np.ndarray:
    """Bodies [k, 2] on a plane that has no bounds: what is ``around`` the origin, and a ring where two touch."""
    reach = max(around, float(np.abs(np.concatenate([agents, prey])).max()) + 0.2)
    canvas = Canvas((-reach, -reach), (reach, reach))
    canvas.square(0, 0, 2, None, LINE)
    for x, y in landmarks:
        canvas.disc(x, y, radii[2], LINE)
    for x, y in prey:
        caught = (np.hypot(*(agents - (x, y)).T) < radii[0] + radii[1]).any()
        canvas.disc(x, y, radii[1], GREEN, YELLOW if caught else None)
    for k, (x, y) in enumerate(agents):
        canvas.disc(x, y, radii[0], BLUE)
        canvas.text(x, y, str(k + 1), 1.3 * radii[0], INK)
    return canvas.done()


def road(places: np.ndarray, speeds: np.ndarray, target: float, limit: float, crashes: int) -> np.ndarray:
    """Cars on a line on their way to ``target``; those above the speed ``limit`` are orange."""
    canvas = Canvas((-0.3, -0.5), (target + 0.3, 0.9))
    canvas.line([(0, 0), (target, 0)], LINE, 0.02)
    canvas.line([(target, -0.2), (target, 0.2)], GREEN, 0.02)
    for k, (place, speed) in enumerate(zip(places, speeds, strict=True)):
        y = 0.14 if k else -0.14
        canvas.disc(place, y, 0.11, ORANGE if speed > limit else BLUE)
        canvas.text(place, y, str(k + 1), 0.14, INK)
        canvas.text(target / 2, 0.72 - 0.17 * k, f"car {k + 1}: place {place:.2f}, speed {speed:.2f}", 0.12, GREY)
    canvas.text(target / 2, -0.4, f"crashes {crashes}", 0.12, RED if crashes else GREY)
    return canvas.done()


def payoffs(table: np.ndarray, chosen: Sequence[int] | None, words: str) -> np.ndarray:
    """Of two agents the reward of each joint action, rows the first one's; the cell that was ``chosen`` is lit."""
    rows, columns = table.shape
    canvas = Canvas((-1.2, -1.2), (columns, rows))
    for k in range(rows):
        canvas.text(-0.8, rows - 1 - k, str(k), 0.3, BLUE)
    for k in range(columns):
        canvas.text(k, -0.8, str(k), 0.3, BLUE)
    for (row, column), value in np.ndenumerate(table):
        lit = chosen is not None and (row, column) == tuple(chosen)
        canvas.square(column, rows - 1 - row, 0.94, YELLOW if lit else LINE)
        canvas.text(column, rows - 1 - row, "?" if value != value else f"{value:g}", 0.34, INK if lit else WHITE)
    canvas.text((columns - 1) / 2, rows - 0.28, words, 0.2, GREY)
    return canvas.done()


def choices(actions: Sequence[int] | None, n_agents: int, n_actions: int) -> np.ndarray:
    """What each of many agents has chosen: a row for each, a column for each action."""
    canvas = Canvas((-1.5, -0.7), (n_actions - 0.3, max(n_agents, n_actions) - 0.3))
    for agent in range(n_agents):
        canvas.text(-1, n_agents - 1 - agent, str(agent + 1), 0.5, BLUE)
        for action in range(n_actions):
            lit = actions is not None and actions[agent] == action
            canvas.square(action, n_agents - 1 - agent, 0.8, YELLOW if lit else LINE)
            canvas.text(action, n_agents - 1 - agent, str(action), 0.5, INK if lit else WHITE)
    return canvas.done()
