"""Pictures of battles: ``Painter(scenario).draw(frame)``.

The allies are blue and the enemies orange, which colour-blind people can tell apart too. A unit is a disc of its own
size with the letter of its type; the bright part of its rim is its health, the white arc around it its shield, the pink
arc inside its energy. Fading lines are shots, green lines heal; a dotted line leads from an ally to the enemy that it
has been ordered to shoot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from emix.envs.battle.fields import CELLS, LAYER, LOOPS, ORDER, RULE, STAT, STATUS, TRAIT, WEAPON
from emix.envs.battle.frame import Frame

if TYPE_CHECKING:
    from emix.envs.battle.scenario import Scenario

LETTERS = {"marauder": "M", "medivac": "v", "zergling": "l", "spine_crawler": "p"}  # others: the first of the name

Colour = tuple[int, int, int]
BRIGHT: tuple[Colour, Colour] = ((86, 180, 233), (240, 160, 40))  # allies, enemies
DIM: tuple[Colour, Colour] = ((24, 74, 116), (120, 52, 10))
OUTLINE, WHITE, GREY = (10, 12, 16), (245, 247, 250), (150, 158, 170)
SHIELD, ENERGY, HEAL, FIRE = WHITE, (222, 140, 190), (70, 220, 160), (255, 214, 130)
ABYSS, GROUND, HEIGHT, EDGE, GATE = (15, 17, 22), (43, 49, 58), (96, 105, 118), (78, 87, 100), (92, 46, 44)

SAMPLES = 2  # pixels drawn per pixel shown, along either axis: what smooths the edges
WIDTH = 900  # pixels; the most that a picture has along an axis, the header apart
HEADER = 48  # pixels
MARGIN = 1  # cells shown around the ground that can be walked
_ROUNDS = 12  # in which letters move apart
FLASH = 4  # loops for which a shot shows
RESULTS = {STATUS["won"]: "won", STATUS["lost"]: "lost", STATUS["draw"]: "draw", STATUS["timeout"]: "time limit"}


class Painter:
    """Draws the battles of one scenario."""

    def __init__(self, scenario: Scenario, *, ranges: bool = True) -> None:
        """``ranges`` lights up what the allies see, and a little more what they can be ordered to shoot at."""
        self.scenario = scenario
        self.stat = {name: scenario.stats[row] for name, row in STAT.items()}  # [slots] each, as those of `trait`
        self.trait = {name: scenario.traits[row] for name, row in TRAIT.items()}
        self.rule = {name: float(scenario.rules[row]) for name, row in RULE.items()}
        self.terrain = scenario.terrain  # [2, 32, 32]
        self.first_enemy = scenario.enemy_slot
        names = {start.unit.id: start.unit.name for start in (*scenario.allies, *scenario.enemies)}
        self.letters = [
            LETTERS.get(names.get(kind, ""), names.get(kind, "?")[0]) for kind in self.trait["type"].tolist()
        ]
        self.with_ranges = ranges
        rows, columns = np.nonzero((self.terrain > 0).any(axis=0))
        self.left, self.bottom = (max(int(cells.min()) - MARGIN, 0) for cells in (columns, rows))
        self.right, self.top = (min(int(cells.max()) + 1 + MARGIN, CELLS) for cells in (columns, rows))
        shown = WIDTH // max(self.right - self.left, self.top - self.bottom) // 2 * 2  # even: films need even sizes
        self.cell, self.head = SAMPLES * shown, SAMPLES * HEADER  # drawn pixels
        self.size = ((self.right - self.left) * self.cell, (self.top - self.bottom) * self.cell + self.head)
        self.grounds = [self._ground(closed) for closed in (0, 1)]
        self.walkable = [self._walkable(closed) for closed in (0, 1)]
        self.fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}

    def draw(self, frame: Frame) -> np.ndarray:
        """The picture of ``frame``: uint8 [H, W, 3]."""
        image = self.grounds[frame.closed].copy()
        alive = frame.health > 0  # [slots]
        if self.with_ranges:
            self._ranges(image, frame, alive)
        self.pen = ImageDraw.Draw(image, "RGBA")
        self._goal(frame, alive)
        for slot in _where(frame.dead < 2 * LOOPS):
            self._death(frame, slot)
        for slot in _where(alive[: self.first_enemy] & (frame.order[: self.first_enemy] == ORDER["attack"])):
            self._order(frame, slot)
        drawn = sorted(_where(alive), key=lambda slot: self.trait["layer"][frame.kind[slot]])
        for slot in drawn:
            self._unit(frame, slot)
        self._letters(frame, drawn)
        for slot in _where(alive):
            self._deed(frame, slot)
        self._header(frame, alive)
        self._result(frame)
        return np.array(image.reduce(SAMPLES))

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.left) * self.cell, (self.top - y) * self.cell + self.head

    def _place(self, frame: Frame, slot: int) -> tuple[float, float]:
        return self._pixel(frame.x[slot], frame.y[slot])

    def _radius(self, frame: Frame, slot: int) -> float:
        return float(self.stat["radius"][frame.kind[slot]] * self.cell)

    def _side(self, slot: int) -> int:
        return int(slot >= self.first_enemy)

    def _font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        points = round(size)
        if points not in self.fonts:
            self.fonts[points] = ImageFont.load_default(points)
        return self.fonts[points]

    def _disc(self, centre: tuple[float, float], radius: float, fill: tuple[int, ...], **options: object) -> None:
        (x, y), r = centre, radius
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill, **options)  # type: ignore[arg-type]

    def _arc(self, centre: tuple[float, float], radius: float, share: float, fill: Colour, width: float) -> None:
        """``share`` of a circle, from the top on, clockwise."""
        (x, y), r = centre, radius
        if share > 0:
            self.pen.arc((x - r, y - r, x + r, y + r), -90, -90 + 360 * min(share, 1.0), fill, round(width))

    def _text(self, at: tuple[float, float], text: str, size: float, fill: tuple[int, ...], anchor: str) -> None:
        weight = size / 40  # the default font is thin
        self.pen.text(at, text, fill, self._font(size), anchor, stroke_width=weight, stroke_fill=fill)

    def _ground(self, closed: int) -> Image.Image:
        """The terrain: the higher the lighter; an edge where nobody gets on by foot."""
        heights = self.terrain[closed].astype(int)  # [32, 32], 0: blocked
        image = Image.new("RGB", self.size, ABYSS)
        pen = ImageDraw.Draw(image)
        gates = self.terrain[closed] < self.terrain[0]  # [32, 32], what closing has blocked
        for y, x in np.argwhere((heights > 0) | gates):
            share = (heights[y, x] - 1) / max(4, heights.max() - 1)
            colour = tuple(round(low + share * (high - low)) for low, high in zip(GROUND, HEIGHT, strict=True))
            (x0, y1), (x1, y0) = self._pixel(x, y), self._pixel(x + 1, y + 1)
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), GATE if gates[y, x] else colour)
        for axis in (0, 1):
            steps = np.abs(np.diff(heights, axis=axis))
            blocked = np.diff(np.minimum(heights, 1), axis=axis) != 0
            for y, x in np.argwhere((steps > 1) | blocked):
                start = (x, y + 1) if axis == 0 else (x + 1, y)
                pen.line((*self._pixel(*start), *self._pixel(x + 1, y + 1)), EDGE, SAMPLES)
        return image

    def _walkable(self, closed: int) -> Image.Image:
        """255 where there is ground, at the size shown."""
        cells = np.zeros_like(self.terrain[closed])
        cells[self.terrain[closed] > 0] = 255
        rows = slice(self.bottom, self.top)
        mask = Image.fromarray(cells[rows, self.left : self.right][::-1])
        canvas = Image.new("L", (self.size[0] // SAMPLES, self.size[1] // SAMPLES))
        canvas.paste(mask.resize((canvas.width, canvas.height - HEADER), Image.Resampling.NEAREST), (0, HEADER))
        return canvas

    def _ranges(self, image: Image.Image, frame: Frame, alive: np.ndarray) -> None:
        """What the allies see, and what they can be ordered to shoot at."""
        mask = Image.new("L", (image.width // SAMPLES, image.height // SAMPLES))
        pen = ImageDraw.Draw(mask)
        for name, light in (("sight", 12), ("shoot_range", 24)):
            r = self.rule[name] * self.cell / SAMPLES
            for slot in _where(alive[: self.first_enemy]):
                x, y = (value / SAMPLES for value in self._place(frame, slot))
                pen.ellipse((x - r, y - r, x + r, y + r), light)
        mask = ImageChops.darker(mask, self.walkable[frame.closed])
        image.paste(WHITE, mask=mask.resize(image.size, Image.Resampling.BILINEAR))

    def _goal(self, frame: Frame, alive: np.ndarray) -> None:
        """A cross where the enemies have been ordered to."""
        ordered = alive & (frame.order == ORDER["attack_move"])
        ordered[: self.first_enemy] = False
        for goal in {(frame.goal_x[slot], frame.goal_y[slot]) for slot in _where(ordered)}:
            (x, y), r = self._pixel(*goal), 0.35 * self.cell
            for down in (-r, r):
                self.pen.line((x - r, y - down, x + r, y + down), (*BRIGHT[1], 150), 2 * SAMPLES)

    def _death(self, frame: Frame, slot: int) -> None:
        """A fading ring; an explosion as large as it was."""
        kind, age = frame.kind[slot], frame.dead[slot] / (2 * LOOPS)
        centre, alpha = self._place(frame, slot), round(200 * (1 - age))
        if WEAPON["explosion"] == self.trait["weapon"][kind]:
            radius = self.stat["splash"][kind] * self.cell * min(1.0, 0.4 + 2 * age)
            self._disc(centre, radius, (*FIRE, alpha // 2), outline=(*FIRE, alpha), width=2 * SAMPLES)
        else:
            radius = self._radius(frame, slot) * (1 + 0.6 * age)
            self._disc(centre, radius, (0, 0, 0, 0), outline=(*BRIGHT[self._side(slot)], alpha), width=SAMPLES)

    def _unit(self, frame: Frame, slot: int) -> None:
        kind, side, centre, radius = (
            frame.kind[slot],
            self._side(slot),
            self._place(frame, slot),
            self._radius(frame, slot),
        )
        rim = max(2.0 * SAMPLES, 0.2 * radius)
        if self.trait["layer"][kind] == LAYER["air"]:  # its shadow
            self._disc((centre[0] + 0.35 * radius, centre[1] + 0.45 * radius), radius, (0, 0, 0, 90))
        self._disc(centre, radius, DIM[side], outline=OUTLINE, width=SAMPLES)
        self._arc(centre, radius, frame.health[slot] / self.stat["health"][kind], BRIGHT[side], rim)
        if self.stat["energy_limit"][kind] > 0:
            share = frame.energy[slot] / self.stat["energy_limit"][kind]
            self._arc(centre, radius - rim - SAMPLES, share, ENERGY, 0.6 * rim)
        if self.stat["shield"][kind] > 0:
            self._arc(
                centre, radius + 2 * SAMPLES, frame.shield[slot] / self.stat["shield"][kind], SHIELD, 1.5 * SAMPLES
            )

    def _letters(self, frame: Frame, slots: list[int]) -> None:
        """The letters of the units' types, each in its own disc: those of units that overlap move apart, and where
        there is no room the lower one's is left out."""
        if not slots:
            return
        centres = np.array([self._place(frame, slot) for slot in slots])  # [k, 2]
        radii = np.array([self._radius(frame, slot) for slot in slots])  # [k]
        places = centres.copy()
        room = 0.55 * (radii[:, None] + radii)  # [k, k]: of two letters side by side
        for _ in range(_ROUNDS):
            way = places[:, None] - places  # [k, k, 2], away from the other
            distance = np.hypot(way[..., 0], way[..., 1])
            way[distance == 0] = (1, 0)
            short = np.clip(room - distance, 0, None) / np.maximum(distance, 1)
            np.fill_diagonal(short, 0)
            places += 0.25 * (way * short[..., None]).sum(1)
            off = places - centres
            far = np.maximum(np.hypot(off[:, 0], off[:, 1]) / (0.5 * radii), 1)
            places = centres + off / far[:, None]
        for k, slot in enumerate(slots):
            above = np.hypot(*(places[k + 1 :] - places[k]).T) < 0.8 * room[k, k + 1 :]
            if not above.any():
                self._text(tuple(places[k]), self.letters[frame.kind[slot]], 1.15 * radii[k], WHITE, "mm")

    def _order(self, frame: Frame, slot: int) -> None:
        """Dots from an ally to the enemy that it has been ordered to shoot."""
        whom = int(frame.order_target[slot])
        if whom < 0 or frame.health[whom] <= 0:
            return
        start, end = (np.array(self._place(frame, each)) for each in (slot, whom))
        gap = 0.28 * self.cell
        for share in np.arange(gap, float(np.hypot(*(end - start))), gap) / max(float(np.hypot(*(end - start))), 1.0):
            self._disc(tuple(start + share * (end - start)), 1.4 * SAMPLES, (*BRIGHT[0], 150))

    def _deed(self, frame: Frame, slot: int) -> None:
        """What a unit is doing to another: healing, or a shot that has just left."""
        kind, age = frame.kind[slot], float(frame.fired[slot])
        weapon, hits, interval = self.trait["weapon"][kind], self.stat["hits"][kind], self.stat["interval"][kind]
        heals = self.stat["heal"][kind] > 0
        whom = int(frame.target[slot] if heals else frame.victim[slot])
        if whom < 0:
            return
        start, end, colour = self._place(frame, slot), self._place(frame, whom), BRIGHT[self._side(slot)]
        way = np.subtract(end, start)
        distance = max(float(np.hypot(*way)), 1.0)
        edge = end - way / distance * self._radius(frame, whom)
        if heals and frame.held[slot] and frame.energy[slot] > 0:
            self.pen.line((*start, *edge), (*HEAL, 170), 2 * SAMPLES)
            self._disc(tuple(edge), 0.14 * self.cell, (*HEAL, 170))
        elif weapon == WEAPON["missile"]:
            speed = self.stat["missile_speed"][kind] + self.stat["missile_acceleration"][kind] * age / 2  # on average
            flown = speed * self.cell * age / distance
            if flown < 1:
                self._disc(tuple(start + flown * way), 0.16 * self.cell, colour, outline=FIRE, width=SAMPLES)
        elif weapon == WEAPON["beam"] and age < hits * interval:
            self._beam(frame, slot, age / interval)
        elif weapon == WEAPON["direct"]:
            age -= interval * min(age // interval, hits - 1) if interval > 0 else 0  # since the last blow
            alpha = round(255 * max(0.0, 1 - age / FLASH))
            self.pen.line((*(start + way / distance * self._radius(frame, slot)), *edge), (*colour, alpha), 2 * SAMPLES)
            self._disc(tuple(edge), 0.14 * self.cell, (*FIRE, alpha))

    def _beam(self, frame: Frame, slot: int, passes: float) -> None:
        """A beam that sweeps a line across the way to where it was aimed at, to and fro."""
        start = self._place(frame, slot)
        aim = np.array(self._pixel(frame.aim_x[slot], frame.aim_y[slot]))
        way = aim - start
        half = np.array([-way[1], way[0]]) / max(float(np.hypot(*way)), 1.0)
        half *= self.stat["beam"][frame.kind[slot]] * self.cell
        swept = abs(2 * (passes % 2 - 1)) - 1  # 1 at the start of a pass, -1 at its end
        self.pen.line((*(aim - half), *(aim + half)), (*FIRE, 110), 3 * SAMPLES)
        self.pen.line((*start, *(aim + swept * half)), (*BRIGHT[self._side(slot)], 200), 3 * SAMPLES)
        self._disc(tuple(aim + swept * half), 0.2 * self.cell, FIRE)

    def _header(self, frame: Frame, alive: np.ndarray) -> None:
        """Map, step, reward so far, who lives, and a bar for what is left of either side's life."""
        width, size, line = self.size[0], 18 * SAMPLES, 17 * SAMPLES
        self.pen.rectangle((0, 0, width, self.head - 1), OUTLINE)
        step = f"step {frame.step} / {self.rule['episode_limit']:.0f}"
        words = [(self.scenario.spec.name[-32:], WHITE), (step, GREY)]
        if frame.total is not None:
            words.append((f"reward {frame.total:.1f}", GREY))
        x = 10.0 * SAMPLES
        for word, colour in words:
            self._text((x, line), word, size, colour, "lm")
            x += self.pen.textlength(word, self._font(size)) + 20 * SAMPLES
        life = np.maximum(frame.health, 0) + frame.shield * alive  # [slots]
        full = np.where(frame.kind >= 0, (self.stat["health"] + self.stat["shield"])[frame.kind], 0)  # [slots]
        x = width - 10.0 * SAMPLES
        for side, units in ((1, self.scenario.enemies), (0, self.scenario.allies)):
            slots = slice(self.first_enemy, None) if side else slice(0, self.first_enemy)
            count = f"{alive[slots].sum()} / {len(units)}"
            self._text((x, line), count, size, BRIGHT[side], "rm")
            x -= self.pen.textlength(count, self._font(size)) + 14 * SAMPLES
            self._disc((x, line), 6 * SAMPLES, BRIGHT[side])
            x -= 24 * SAMPLES
            half = (width / 2) * min(1.0, float(life[slots].sum() / max(full[slots].sum(), 1)))
            left, right = (0.0, half) if side == 0 else (width - half, float(width))
            self.pen.rectangle((left, self.head - 6 * SAMPLES, right, self.head - 1), BRIGHT[side])

    def _result(self, frame: Frame) -> None:
        result = RESULTS.get(frame.status)
        if result is not None:
            x, y, size = self.size[0] / 2, self.head + 70 * SAMPLES, 36 * SAMPLES
            half = self.pen.textlength(result, self._font(size)) / 2 + size
            self.pen.rounded_rectangle((x - half, y - size, x + half, y + size), size, (*OUTLINE, 190))
            self._text((x, y), result, size, WHITE, "mm")


def _where(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()
