"""What the classes of the generated images look like: their tables, in numpy, from one seed."""

from __future__ import annotations

import numpy as np

OBJECTS = 9  # at most, in one image

HEADS = {  # label -> number of classes; "cells" is a set of 16 cells, kept as a bit mask
    "glyph": 500,
    "fractal": 150,
    "texture": 120,
    "shape": 40,
    "x": 8,
    "y": 8,
    "size": 6,
    "direction": 16,
    "axis": 16,
    "count": OBJECTS + 1,
    "cells": 16,
}
CONTROL, STROKES, ANGLES = 4, 4, 256
TIPPED, TWO_FOLD = 18, 28  # shapes [0, 18) point somewhere, [18, 28) have an axis, [28, 40) neither


def stroke_classes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Control points of up to four cubic Bézier strokes a class: straight, curved, or closed into a loop."""
    classes = HEADS["glyph"]
    points = rng.uniform(-1, 1, (classes, STROKES, CONTROL, 2))
    style = rng.random((classes, STROKES))
    joined = rng.random((classes, STROKES)) < 0.6
    for k in range(STROKES):
        if k:  # most strokes go on where the last one ended, as a pen does
            points[:, k, 0] = np.where(joined[:, k, None], points[:, k - 1, -1], points[:, k, 0])
        start, end = points[:, k, 0], points[:, k, -1]
        loop, straight = style[:, k] < 0.25, style[:, k] > 0.6
        points[loop, k, 1:3] *= 1.6
        points[loop, k, -1] = start[loop]
        for j in (1, 2):
            points[straight, k, j] = (start + (end - start) * j / 3)[straight]
    number = rng.choice(np.arange(1, STROKES + 1), classes, p=[0.2, 0.35, 0.3, 0.15])
    return points, np.arange(STROKES)[None] < number[:, None]


def outlines(rng: np.random.Generator) -> np.ndarray:
    """Radius against angle of each shape, with unit mean square; a tipped shape points along angle 0."""
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES

    def polygon(normals: np.ndarray, distances: np.ndarray) -> np.ndarray:
        facing = np.cos(angle[None] - normals[:, None])
        return np.where(facing > 1e-3, distances[:, None] / np.maximum(facing, 1e-3), 4.0).min(0)

    outlines = []
    for shape in range(HEADS["shape"]):
        u, v = rng.random(2)
        if shape < 9:  # a drop or a comet
            radius = 0.55 + (0.7 + 0.8 * u) * np.exp((3 + 9 * v) * (np.cos(angle) - 1))
            radius += 0.12 * rng.normal() * np.cos(2 * angle) + 0.1 * rng.normal() * np.cos(3 * angle)
        elif shape < TIPPED:  # an isosceles triangle, a kite, or a disc cut flat behind
            half = np.pi * (0.32 + 0.13 * u)
            normals, distances = np.array([half, -half, np.pi]), np.array([0.5, 0.5, 0.4 + 0.5 * v])
            radius = np.minimum(polygon(normals, distances), 1.6)
            if shape % 3 == 0:
                radius = np.minimum(1.0, polygon(np.array([np.pi]), np.array([0.05 + 0.3 * v])))
        elif shape < TWO_FOLD:  # a bar, an ellipse, a rhombus
            long = 1.6 + 2.4 * u
            if shape % 3 == 0:
                radius = 1 / np.sqrt((np.cos(angle) / long) ** 2 + np.sin(angle) ** 2)
            elif shape % 3 == 1:
                radius = polygon(np.arange(4) * np.pi / 2, np.array([long, 1.0, long, 1.0]))
            else:
                radius = 1 / (np.abs(np.cos(angle)) / long + np.abs(np.sin(angle)))
        elif shape < 34:  # a regular polygon; with many sides, a disc
            sides = (3, 4, 5, 6, 8, 60)[shape - TWO_FOLD]
            radius = polygon(np.arange(sides) * 2 * np.pi / sides, np.ones(sides))
        else:  # a star
            points = 3 + shape - 34
            radius = 1 + (0.35 + 0.3 * u) * np.cos(points * angle)
        outlines.append(radius / np.sqrt((radius**2).mean()))
    return np.stack(outlines)


def contractions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Affine maps of each fractal and the cumulative chance of each, in proportion to its determinant."""
    classes = HEADS["fractal"]
    turn, lean = rng.uniform(-np.pi, np.pi, (2, classes, 4))
    long = rng.uniform(0.4, 0.85, (classes, 4))
    short = rng.uniform(0.25, 0.7, (classes, 4)) * long

    def rotation(a: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(a), -np.sin(a), np.sin(a), np.cos(a)], -1).reshape(*a.shape, 2, 2)

    stretch = np.zeros((classes, 4, 2, 2))
    stretch[..., 0, 0], stretch[..., 1, 1] = long, short
    linear = rotation(turn) @ stretch @ rotation(lean)
    maps = np.concatenate([linear, rng.uniform(-1, 1, (classes, 4, 2, 1))], -1)
    weight = long * short * (np.arange(4) < rng.integers(2, 5, classes)[:, None])
    return maps, np.cumsum(weight / weight.sum(1, keepdims=True), 1)
