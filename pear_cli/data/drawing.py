"""Figures whose number, direction or place is the class, and the pictures that are drawn of them.

What is drawn must not depend on the machine: sums are spelled out where a linear algebra library would round
in an order of its own.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pear_cli.data.images import Labels, Pixels

SIDE = 32
FINE = 4  # figures are drawn at FINE × FINE points a pixel, then averaged
GRID = 4
BINS = 16

Random = np.random.Generator
Polygon = NDArray[np.float64]  # V, 2: x, y inside the unit disc, y down
Placed = tuple[Polygon, NDArray[np.float64]]  # a polygon in pixels and its colour


def _turned(corners: Polygon, angle: float) -> Polygon:
    c, s = math.cos(angle), math.sin(angle)
    x, y = corners.T
    return np.stack([x * c + y * -s, x * s + y * c], axis=1)


def _regular(points: int, inner: float = 1.0) -> Polygon:
    """A regular polygon; with `inner` below 1 a star whose every other corner lies at that radius."""
    corners = points if inner == 1.0 else 2 * points
    turns = [(index * 2 * math.pi / corners, inner if index % 2 else 1.0) for index in range(corners)]
    return np.array([(radius * math.cos(angle), radius * math.sin(angle)) for angle, radius in turns])


def _ring(inner: float) -> Polygon:
    """An annulus as one polygon: round the rim, across, and back along the hole."""
    rim = _regular(20)[np.r_[:20, 0]]
    return np.concatenate([rim, inner * rim[::-1]])


def _corners(*numbers: float) -> Polygon:
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def _cross(arm: float) -> Polygon:
    a = arm
    return _corners(a, -1, a, -a, 1, -a, 1, a, a, a, a, 1, -a, 1, -a, a, -1, a, -1, -a, -a, -a, -a, -1) * 0.9


DISC, SQUARE, TRIANGLE, HEXAGON = _regular(20), _regular(4), _regular(3), _regular(6)
STAR, RING, CROSS = _regular(5, 0.45), _ring(0.5), _cross(0.34)
BAR = _corners(-1, -0.3, 1, -0.3, 1, 0.3, -1, 0.3)

# Each points to +x and looks the same at no other angle.
ARROW = _corners(1, 0, 0.15, 0.7, 0.15, 0.27, -1, 0.27, -1, -0.27, 0.15, -0.27, 0.15, -0.7)
DART = _corners(1, 0, -0.8, 0.65, -0.35, 0, -0.8, -0.65)
WEDGE = _corners(1, 0, -0.85, 0.5, -0.85, -0.5)
KITE = _corners(1, 0, -0.35, 0.6, -0.8, 0, -0.35, -0.6)
HOUSE = _corners(1, 0, 0.2, 0.6, -0.8, 0.6, -0.8, -0.6, 0.2, -0.6)

COUNTED = (DISC, SQUARE, TRIANGLE, STAR, RING, CROSS, BAR)
POINTING = (ARROW, DART, WEDGE, KITE, HOUSE)
DISTRACTING = (DISC, SQUARE, TRIANGLE, HEXAGON, BAR)


def _pick(random: Random, options: tuple[Polygon, ...]) -> Polygon:
    return options[int(random.random() * len(options))]


def _between(random: Random, low: float, high: float) -> float:
    return low + (high - low) * float(random.random())


def _colour(random: Random, away_from: NDArray[np.float64], distance: float = 140.0) -> NDArray[np.float64]:
    """A colour, in 0-255, at least `distance` from another one in RGB."""
    while True:
        colour = random.random(3) * 255
        if math.dist(colour, away_from) >= distance:
            return colour


def count(label: int, random: Random, ground: NDArray[np.float64]) -> list[Placed]:
    """label + 1 figures of any kind, apart from each other; a random scale blurs what their area tells."""
    scale = _between(random, 0.8, 1.25)
    discs: list[tuple[float, float, float]] = []
    while len(discs) <= label:
        for _ in range(40):
            r = scale * _between(random, 2.8, 4.4)
            x, y = _between(random, r, SIDE - r), _between(random, r, SIDE - r)
            if all(math.hypot(x - u, y - v) > r + q + 0.5 for u, v, q in discs):
                discs.append((x, y, r))
                break
        else:
            scale *= 0.9
    shapes = [(_pick(random, COUNTED), _between(random, 0, 2 * math.pi)) for _ in discs]
    return [
        (_turned(figure, angle) * r + (x, y), _colour(random, ground))
        for (figure, angle), (x, y, r) in zip(shapes, discs, strict=True)
    ]


def orientation(label: int, random: Random, ground: NDArray[np.float64]) -> list[Placed]:
    """One pointing figure at label · 22.5° clockwise from right, up to 9° off, over a few crumbs."""
    angle = 2 * math.pi * (label + _between(random, -0.4, 0.4)) / BINS
    r = _between(random, 6, 11)
    figure = _turned(_pick(random, POINTING) * (1, _between(random, 0.8, 1.1)), angle) * r
    middle = (_between(random, r, SIDE - r), _between(random, r, SIDE - r))
    return [*_crumbs(random, 5, ground), (figure + middle, _colour(random, ground))]


def location(label: int, random: Random, ground: NDArray[np.float64]) -> list[Placed]:
    """A star in cell `label` of a 4 × 4 grid, row by row, and one to three smaller figures elsewhere."""
    cells = [label]
    for _ in range(1 + int(random.random() * 3)):
        free = [cell for cell in range(GRID * GRID) if cell not in cells]
        cells.append(free[int(random.random() * len(free))])
    placed = []
    for cell in reversed(cells):
        figure = STAR if cell == label else _pick(random, DISTRACTING)
        r = _between(random, 5.5, 7.0) if cell == label else _between(random, 2.0, 3.2)
        row, column = divmod(cell, GRID)
        x, y = ((i + _between(random, 0.2, 0.8)) * SIDE / GRID for i in (column, row))
        middle = np.clip((x, y), 3.5, SIDE - 3.5)
        figure = _turned(figure, _between(random, 0, 2 * math.pi)) * r + middle
        placed.append((figure, _colour(random, ground)))
    return placed


def _crumbs(random: Random, most: int, ground: NDArray[np.float64]) -> list[Placed]:
    """Up to `most` specks, too small to be taken for a figure."""
    return [
        (_regular(5) * _between(random, 0.7, 1.3) + random.random(2) * SIDE, _colour(random, ground, 60))
        for _ in range(int(random.random() * (most + 1)))
    ]


@dataclass(frozen=True)
class Task:
    """What is drawn for a class, and how the classes are called."""

    draw: Callable[[int, Random, NDArray[np.float64]], list[Placed]]
    classes: tuple[str, ...]


TASKS = {
    "shapes_count": Task(count, tuple(str(n) for n in range(1, 9))),
    "shapes_orientation": Task(orientation, tuple(f"{360 * n / BINS:g}°" for n in range(BINS))),
    "shapes_location": Task(location, tuple(f"row {n // GRID} column {n % GRID}" for n in range(GRID**2))),
}


def generate(name: str, part: str, images: int) -> tuple[Pixels, Labels]:
    """Draw the first `images` pictures of a part (train or test): N, 32, 32, 3 and their labels."""
    task = TASKS[name]
    stream = zlib.crc32(f"{name}/{part}".encode())
    labels = np.concatenate(
        [
            np.argsort(_random(stream, 0, block).random(len(task.classes)), kind="stable")
            for block in range(-(-images // len(task.classes)))
        ]
    )[:images].astype(np.int64)
    pixels = np.empty((images, SIDE, SIDE, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        pixels[index] = _picture(task, int(label), _random(stream, 1, index))
    return pixels, labels


def _random(*seeds: int) -> Random:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))


def _picture(task: Task, label: int, random: Random) -> Pixels:
    """One picture: figures averaged from the fine drawing, over a sloping ground, with noise: H, W, 3."""
    ground = random.random(3) * 255
    canvas = Image.new("RGBX", (SIDE * FINE, SIDE * FINE))
    pen = ImageDraw.Draw(canvas)
    for polygon, colour in task.draw(label, random, ground):
        corners = np.rint(polygon * FINE).astype(int).ravel().tolist()
        pen.polygon(corners, fill=(*(int(c) for c in colour), 255))  # the fourth channel is coverage
    fine = np.asarray(canvas.reduce(FINE), dtype=np.float64)
    figures, cover = fine[..., :3], fine[..., 3:] / 255
    ramp = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    angle = _between(random, 0, 2 * math.pi)
    slope = np.add.outer(math.sin(angle) * ramp, math.cos(angle) * ramp)[..., None]
    behind = ground + slope * (random.random(3) - 0.5) * 160
    noise = (random.random((SIDE, SIDE, 3)) - 0.5) * _between(random, 10, 50)
    return np.rint(figures + (1 - cover) * behind + noise).clip(0, 255).astype(np.uint8)
