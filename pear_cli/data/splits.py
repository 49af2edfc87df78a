"""How training images are divided: always the same way, on every platform."""

import hashlib
import json

import numpy as np

from pear_cli.data.images import Indices, Labels

SPLITS = ("train800", "val200", "train800val200", "test")
TRAIN_SHARE = 0.8  # train800 of train800val200


def divide(labels: Labels, split: str, seed: int) -> Indices:
    """Indices of the training images that a training split takes, ascending.

    Args:
        labels: N, of all training images.
        split: train800, val200 or train800val200.
        seed: of the division, at least 0.
    """
    if split == "train800val200":
        return np.arange(len(labels), dtype=np.int64)
    train, val = draw(labels, round(TRAIN_SHARE * len(labels)), seed)
    return {"train800": train, "val200": val}[split]


def draw(labels: Labels, count: int, seed: int) -> tuple[Indices, Indices]:
    """Draw `count` images, each class in its proportion as far as whole images allow.

    A class gives the whole part of its share; the images still missing come from the classes with the
    largest fractions, the lower label first. The random keys are raw PCG64 output, which numpy keeps
    unchanged over versions and platforms.

    Returns:
        Indices of the drawn images and of the others, both ascending.
    """
    assert 0 <= count <= len(labels), (count, len(labels))
    keys = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(labels))
    names, sizes = np.unique(labels, return_counts=True)
    quota, fraction = np.divmod(sizes * count, max(len(labels), 1))
    quota[np.argsort(-fraction, kind="stable")[: count - quota.sum()]] += 1
    drawn = np.zeros(len(labels), dtype=bool)
    for name, wanted in zip(names, quota, strict=True):
        members = np.flatnonzero(labels == name)
        drawn[members[np.argsort(keys[members], kind="stable")[:wanted]]] = True
    return np.flatnonzero(drawn), np.flatnonzero(~drawn)


def digest(**facts: object) -> str:
    """SHA-256, in hex, of named facts made of strings, numbers and sequences of them."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
