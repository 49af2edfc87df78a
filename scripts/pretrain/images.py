"""Labelled images made from formulas, to pretrain a small backbone without a data set.

Five kinds of image share one batch: glyphs (random strokes), fractals (iterated function systems), textures,
one shape, and several objects. Each carries the labels that make sense for it; the others are `ABSENT`.
Everything is vectorised torch on the device of the `World`, and a batch depends on its seed alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import classes
import numpy as np
import torch
from classes import ANGLES, CONTROL, HEADS, OBJECTS, STROKES, TIPPED, TWO_FOLD
from torch import Tensor
from torch.nn import functional as F

SIZE = 32  # pixels a side
ABSENT = -1
SHARES = {"glyphs": 0.38, "fractals": 0.06, "textures": 0.10, "one_shape": 0.24, "several": 0.22}
TICKS = 24  # points along a stroke
WINDOW, MARGIN = 12, 8  # pixels: the square an object is drawn in, and the rim that cuts objects off


@dataclass(frozen=True)
class Batch:
    """pixels: float B, 3, 32, 32 in [0, 1]; labels: int64 B, H in the order of `HEADS`, or `ABSENT`."""

    pixels: Tensor
    labels: Tensor

    def label(self, head: str) -> Tensor:
        return self.labels[:, list(HEADS).index(head)]


class World:
    """What the classes look like: fixed by `seed`, shared by every batch."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed, self.device = seed, torch.device(device)
        strokes, present = classes.stroke_classes(rng)
        self.strokes = self._tensor(strokes)  # 500, 4, 4, 2
        self.present = self._tensor(present)  # 500, 4
        self.outlines = self._tensor(classes.outlines(rng))  # 40, 256
        self.maps, self.cumulative = map(self._tensor, classes.contractions(rng))  # 150, 4, 2, 3 and 150, 4

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)

    def batch(self, size: int, stream: int, index: int) -> Batch:
        """Draw `size` images; the same (world, size, stream, index) gives the same images."""
        state = np.random.SeedSequence([self.seed, 1, stream, index]).generate_state(1, np.uint64)[0]
        draw = Draw(torch.Generator(self.device).manual_seed(int(state >> 1)), self.device)
        edges = [round(size * share) for share in np.cumsum([0.0, *SHARES.values()])]
        parts = [
            PAINTERS[kind](self, draw, stop - start)
            for kind, start, stop in zip(SHARES, edges, edges[1:], strict=False)
            if stop > start
        ]
        labels = [torch.stack([known.get(h, _absent(x)) for h in HEADS], 1) for x, known in parts]
        return Batch(_sensor(draw, torch.cat([pixels for pixels, _ in parts])), torch.cat(labels))


@dataclass(frozen=True)
class Draw:
    """Random numbers on a device."""

    generator: torch.Generator
    device: torch.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def chance(self, p: float, *shape: int) -> Tensor:
        return self.uniform(*shape) < p


def _absent(pixels: Tensor) -> Tensor:
    return torch.full((len(pixels),), ABSENT, device=pixels.device)


def _grid(device: torch.device) -> Tensor:
    return (torch.arange(SIZE, device=device) + 0.5) * 2 / SIZE - 1  # pixel centres in [-1, 1]


def _bins(value: Tensor, low: float, high: float, bins: int) -> Tensor:
    return ((value - low) / (high - low) * bins).long().clamp(0, bins - 1)


def _background(draw: Draw, n: int, plain: Tensor) -> Tensor:
    """Flat, a gradient or a grating between two near colours; black where `plain`. -> n, 3, 32, 32"""
    grid = _grid(draw.device)
    a = draw.uniform(n, 1, 1, high=2 * math.pi)
    u = a.cos() * grid[None, None, :] + a.sin() * grid[None, :, None]  # n, 32, 32
    wave = (u * draw.uniform(n, 1, 1, low=3, high=16) + a).sin()
    pattern = torch.where(draw.chance(0.5, n, 1, 1), u, wave) * draw.chance(0.6, n, 1, 1)
    base, other = draw.uniform(2, n, 3, 1, 1)
    scene = base + 0.25 * (other - base) * pattern[:, None]
    return torch.where(plain[:, None, None, None], torch.zeros(1, device=draw.device), scene)


def _ink(draw: Draw, background: Tensor, plain: Tensor) -> Tensor:
    """A colour that stands out from the background: n, 3, 1, 1; near white where `plain`."""
    n = len(background)
    mean = background.mean((2, 3), keepdim=True)
    hue = draw.uniform(n, 3, 1, 1)
    away = torch.where(mean.mean(1, keepdim=True) > 0.5, -1.0, 1.0)
    colour = mean + away * (0.3 + 0.5 * hue)
    return torch.where(plain[:, None, None, None], draw.uniform(n, 1, 1, 1, low=0.7, high=1.0), colour)


def _sensor(draw: Draw, pixels: Tensor) -> Tensor:
    """What a camera adds: noise on three images in five, and clipping."""
    n = len(pixels)
    level = draw.uniform(n, 1, 1, 1, high=0.08) * draw.chance(0.6, n, 1, 1, 1)
    return (pixels + level * draw.normal(*pixels.shape)).clamp(0, 1)


def glyphs(world: World, draw: Draw, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Strokes of a pen: the class fixes the control points, each image bends, turns and thickens them."""
    label = draw.integers(HEADS["glyph"], n)
    control = world.strokes[label] + 0.11 * draw.normal(n, STROKES, CONTROL, 2)
    t = torch.linspace(0, 1, TICKS, device=draw.device)[:, None]
    bernstein = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    curve = bernstein @ control  # n, 4, 24, 2
    present = world.present[label][:, :, None]  # n, 4, 1
    far = (curve * present[..., None]).flatten(1, 2)
    low, high = far.amin(1), far.amax(1)
    half = ((high - low).amax(1) / 2).clamp(min=0.3)
    curve = (curve - ((low + high) / 2)[:, None, None]) / half[:, None, None, None]
    turn, shear = draw.uniform(n, low=-0.35, high=0.35), draw.uniform(n, low=-0.3, high=0.3)
    zoom = draw.uniform(n, 2, low=0.85, high=1.1) * draw.uniform(n, 1, low=0.5, high=0.85)
    matrix = torch.stack([turn.cos(), shear - turn.sin(), turn.sin(), turn.cos()], 1).view(n, 1, 2, 2)
    curve = (curve @ matrix) * zoom[:, None, None] + draw.uniform(n, 1, 1, 2, low=-0.15, high=0.15)

    speed = (curve[:, :, 1:] - curve[:, :, :-1]).norm(dim=-1)  # n, 4, 23: lengths of the pieces
    middle = ((curve[:, :, 1:] + curve[:, :, :-1]) / 2).flatten(1, 2)  # n, 92, 2
    width = draw.uniform(n, 1, 1, low=0.045, high=0.12)
    grid = _grid(draw.device)
    near = torch.exp(-((grid - middle.unsqueeze(-1)) ** 2) / (2 * width[..., None] ** 2))  # n, 92, 2, 32
    # A Gaussian brush dragged along the curve is separable, so a stroke is one matrix product.
    across = near[:, :, 0] * (speed * present).flatten(1)[:, :, None]
    profile = near[:, :, 1].transpose(1, 2) @ across / (width * math.sqrt(2 * math.pi))
    mask = ((profile - 0.5) * draw.uniform(n, 1, 1, low=0.9, high=3.0) + 0.5).clamp(0, 1)[:, None]
    coarse = F.interpolate(F.avg_pool2d(mask, 4), size=SIZE, mode="bicubic", align_corners=False).clamp(0, 1)
    mask = torch.where(draw.chance(0.2, n, 1, 1, 1), coarse, mask)

    plain = draw.chance(0.6, n)
    back = _background(draw, n, plain)
    return back + mask * (_ink(draw, back, plain) - back), {"glyph": label}


def fractals(world: World, draw: Draw, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The attractor of random affine contractions, by the chaos game with 256 walkers."""
    label = draw.integers(HEADS["fractal"], n)
    maps, cumulative = world.maps[label] + 0.02 * draw.normal(n, 4, 2, 3), world.cumulative[label]
    walkers, skip, steps = 256, 4, 14
    at = draw.uniform(n, walkers, 2, low=-1)
    path = []
    rows = torch.arange(n, device=draw.device)[:, None]
    for step in range(steps):
        choice = (draw.uniform(n, walkers, 1) > cumulative[:, None, :3]).sum(-1)
        chosen = maps[rows, choice]  # n, walkers, 2, 3
        at = (chosen[..., :2] @ at[..., None]).squeeze(-1) + chosen[..., 2]
        if step >= skip:
            path.append(at)
    points = torch.cat(path, 1)
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    spread = (high - low).amax(-1, keepdim=True).clamp(min=0.1)
    place = ((points - (low + high) / 2) / spread * draw.uniform(n, 1, 1, low=0.7, high=0.98) + 0.5) * SIZE
    cell = place.long().clamp(0, SIZE - 1)
    mass = torch.zeros(n, SIZE * SIZE, device=draw.device)
    mass.scatter_add_(1, cell[..., 1] * SIZE + cell[..., 0], torch.ones(points.shape[:2], device=draw.device))
    mask = (mass.view(n, 1, SIZE, SIZE) / draw.uniform(n, 1, 1, 1, low=2, high=8)).clamp(0, 1)
    back = _background(draw, n, draw.chance(0.3, n))
    return back + mask * (_ink(draw, back, draw.chance(0.3, n)) - back), {"fractal": label}


def textures(world: World, draw: Draw, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Gratings and chequers: 3 profiles, 5 frequencies, 8 orientations."""
    label = draw.integers(HEADS["texture"], n)
    profile, frequency, orientation = label // 40, label // 8 % 5, label % 8
    a = (orientation + draw.uniform(n)) * math.pi / 8
    period = 2 * math.pi * 1.5 * 1.42 ** (frequency + draw.uniform(n, low=-0.3, high=0.3))
    grid, phase = _grid(draw.device), draw.uniform(2, n, 1, 1, high=2 * math.pi)
    turned = [a.cos(), a.sin()], [-a.sin(), a.cos()]
    waves = []
    for (cos, sin), offset in zip(turned, phase, strict=True):
        along = cos[:, None, None] * grid[None, None, :] + sin[:, None, None] * grid[None, :, None]
        waves.append((along * period[:, None, None] + offset).sin())
    square, check = (waves[0] * 4).clamp(-1, 1), (waves[0] * waves[1] * 4).clamp(-1, 1)
    kind = profile[:, None, None]
    wave = torch.where(kind == 0, waves[0], torch.where(kind == 1, square, check))[:, None]
    first, second = draw.uniform(2, n, 3, 1, 1)
    axis = torch.where(profile < 2, _bins(a, 0, math.pi, HEADS["axis"]), ABSENT)
    return first + (wave / 2 + 0.5) * (second - first), {"texture": label, "axis": axis}


def _depth(world: World, shape: Tensor, x: Tensor, y: Tensor, turn: Tensor, radius: Tensor) -> Tensor:
    """Distance to the rim along a ray from the centre, positive inside, in the units of `x`."""
    distance = (x * x + y * y).sqrt()
    at = ((torch.atan2(y, x) - turn) * (ANGLES / (2 * math.pi))).round().long() % ANGLES
    return world.outlines.view(-1)[shape * ANGLES + at] * radius - distance


def _facing(shape: Tensor, turn: Tensor) -> dict[str, Tensor]:
    direction = _bins(turn, 0, 2 * math.pi, HEADS["direction"])
    axis = _bins(turn % math.pi, 0, math.pi, HEADS["axis"])
    return {
        "direction": torch.where(shape < TIPPED, direction, ABSENT),
        "axis": torch.where(shape < TWO_FOLD, axis, ABSENT),
    }


def one_shape(world: World, draw: Draw, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """One shape of random size, place and turn; a quarter are outlines."""
    shape, turn = draw.integers(HEADS["shape"], n), draw.uniform(n, high=2 * math.pi)
    radius = draw.uniform(n, low=0.16, high=0.55)
    reach = (0.95 - radius).clamp(max=0.7)
    x, y = (draw.uniform(2, n, low=-1) * reach).unbind()
    grid = _grid(draw.device)
    dx = (grid[None, None, :] - x[:, None, None]).expand(n, SIZE, SIZE)
    dy = (grid[None, :, None] - y[:, None, None]).expand(n, SIZE, SIZE)
    depth = _depth(world, shape[:, None, None], dx, dy, turn[:, None, None], radius[:, None, None])
    sharp = draw.uniform(n, 1, 1, low=5, high=16)
    mask = (depth * sharp + 0.5).clamp(0, 1)
    hollow = mask * (1 - ((depth - 0.12) * sharp + 0.5).clamp(0, 1))
    mask = torch.where(draw.chance(0.25, n, 1, 1), hollow, mask)[:, None]
    plain = draw.chance(0.3, n)
    back = _background(draw, n, plain)
    labels = {
        "shape": shape,
        "x": _bins(x, -0.7, 0.7, HEADS["x"]),
        "y": _bins(y, -0.7, 0.7, HEADS["y"]),
        "size": _bins(radius, 0.16, 0.55, HEADS["size"]),
    }
    return back + mask * (_ink(draw, back, plain) - back), labels | _facing(shape, turn)


def _spread(draw: Draw, n: int, radius: Tensor) -> Tensor:
    """Centres in pixels, each one of 10 candidates that keeps clear of those before it. -> n, 9, 2"""
    room = (SIZE - 2 * radius)[:, None, None]
    candidates = radius[:, None, None] + draw.uniform(OBJECTS, n, 10, 2) * room
    placed = candidates[0][:, :1]
    for k in range(1, OBJECTS):
        gap = torch.cdist(candidates[k], placed).amin(2)  # n, 10
        # Any clear candidate will do: the farthest would push every object to the rim.
        clear = torch.minimum(gap, 2.3 * radius[:, None]) + 1e-3 * draw.uniform(n, 10)
        best = clear.argmax(1)[:, None, None].expand(n, 1, 2)
        placed = torch.cat([placed, candidates[k].gather(1, best)], 1)
    return placed


def several(world: World, draw: Draw, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """0 to 9 objects, of one shape or mixed, each drawn in a small window and laid over the last."""
    count, size = draw.integers(OBJECTS + 1, n), draw.uniform(n, low=1.5, high=4.0)
    centre = _spread(draw, n, size)
    alike = draw.chance(0.6, n, 1)
    shape = torch.where(alike, draw.integers(HEADS["shape"], n, 1), draw.integers(HEADS["shape"], n, OBJECTS))
    turn = draw.uniform(n, OBJECTS, high=2 * math.pi)
    radius = size[:, None] * draw.uniform(n, OBJECTS, low=0.75, high=1.1)
    corner = centre.floor().long() - WINDOW // 2  # n, 9, 2
    step = torch.arange(WINDOW, device=draw.device)
    cols, rows = corner[..., 0, None] + step, corner[..., 1, None] + step  # n, 9, 12
    dx = (cols + 0.5 - centre[..., 0, None])[:, :, None, :].expand(n, OBJECTS, WINDOW, WINDOW)
    dy = (rows + 0.5 - centre[..., 1, None])[:, :, :, None].expand(n, OBJECTS, WINDOW, WINDOW)
    depth = _depth(world, shape[..., None, None], dx, dy, turn[..., None, None], radius[..., None, None])
    shown = torch.arange(OBJECTS, device=draw.device) < count[:, None]  # n, 9
    mask = (depth + 0.5).clamp(0, 1) * shown[..., None, None]

    plain = draw.chance(0.3, n)
    back = _background(draw, n, plain)
    ink = _ink(draw, back, plain)[..., 0]  # n, 3, 1
    one_colour = draw.chance(0.6, n, 1, 1)
    wide = SIZE + 2 * MARGIN
    canvas = F.pad(back, (MARGIN,) * 4).flatten(2)
    place = ((rows + MARGIN)[..., None] * wide + (cols + MARGIN)[:, :, None, :]).flatten(2)  # n, 9, 144
    for k in range(OBJECTS):
        tint = torch.where(one_colour, ink, ink + 0.25 * draw.normal(n, 3, 1) * (~plain)[:, None, None])
        where = place[:, k, None].expand(n, 3, WINDOW * WINDOW)
        under = canvas.gather(2, where)
        canvas = canvas.scatter(2, where, under + mask[:, k].flatten(1)[:, None] * (tint - under))
    pixels = canvas.view(n, 3, wide, wide)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    cell = (centre / (SIZE // 4)).long().clamp(0, 3)
    bit = (cell[..., 1] * 4 + cell[..., 0])[..., None] == torch.arange(16, device=draw.device)
    held = (bit & shown[..., None]).any(1)  # n, 16
    return pixels, {"count": count, "cells": (held.long() << torch.arange(16, device=draw.device)).sum(1)}


PAINTERS = {paint.__name__: paint for paint in (glyphs, fractals, textures, one_shape, several)}
