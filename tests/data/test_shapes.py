"""Generated tasks: pinned pictures, balance, and that pixels alone do not give the answer away."""

import hashlib

import numpy as np
import pytest

from pear_cli.data import shapes
from pear_cli.data.loading import load
from pear_cli.data.shapes import TASKS, Shapes, generate
from pear_cli.errors import ConfigError
from pear_cli.store import cache


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))


PINNED = {
    "shapes_count": "a0ccad1bca62f0d2",
    "shapes_orientation": "8496adde29c031cb",
    "shapes_location": "a17f07f376ad21fe",
}


@pytest.mark.parametrize("name", TASKS)
def test_the_pictures_are_pinned_so_a_change_needs_a_new_version(name):
    pixels, labels = generate(name, "train", 12)
    assert hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()[:16] == PINNED[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_longer_part_begins_with_the_shorter_one(name):
    short, long = generate(name, "train", 5), generate(name, "train", 9)
    assert np.array_equal(short[0], long[0][:5])
    assert np.array_equal(short[1], long[1][:5])


@pytest.mark.parametrize("name", TASKS)
def test_classes_are_balanced_and_training_and_test_pictures_differ(name):
    pixels, labels = generate(name, "train", 50)
    assert np.ptp(np.bincount(labels, minlength=len(TASKS[name].classes))) <= 1
    other, _ = generate(name, "test", 50)
    assert not {p.tobytes() for p in pixels} & {p.tobytes() for p in other}


def test_splits_have_their_sizes_and_classes(monkeypatch):
    monkeypatch.setattr(shapes, "TEST_IMAGES", 40)
    dataset = Shapes("shapes_location")
    sizes = [len(at_size(dataset, split, 32)) for split in ("train800", "val200", "train800val200", "test")]
    assert sizes == [800, 200, 1000, 40]
    images = at_size(dataset, "val200", 16)
    assert images.pixels.shape == (200, 16, 16, 3)
    assert len(images.classes) == 16
    assert set(images.labels) == set(range(16))


def test_the_number_of_figures_is_the_class():
    for label in range(8):
        random = np.random.Generator(np.random.PCG64(label))
        assert len(shapes.count(label, random, np.zeros(3))) == int(TASKS["shapes_count"].classes[label])


def test_figures_to_be_counted_lie_inside_and_apart():
    for seed in range(20):
        placed = shapes.count(7, np.random.Generator(np.random.PCG64(seed)), np.zeros(3))
        middles = np.array([(p.min(0) + p.max(0)) / 2 for p, _ in placed])
        assert all(p.min() >= 0 and p.max() <= shapes.SIDE for p, _ in placed)
        gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2) + 99 * np.eye(8)
        assert gaps.min() > 1


def test_the_star_stands_in_the_cell_of_its_class():
    for label in range(16):
        random = np.random.Generator(np.random.PCG64(label))
        star, _ = shapes.location(label, random, np.zeros(3))[-1]
        assert len(star) == len(shapes.STAR)
        column, row = star.mean(axis=0) // (shapes.SIDE / shapes.GRID)
        assert 4 * row + column == label


def test_the_direction_is_that_of_the_tip():
    for label in range(16):
        random = np.random.Generator(np.random.PCG64(label))
        figure, _ = shapes.orientation(label, random, np.zeros(3))[-1]
        tip = figure[0] - figure.mean(axis=0)
        degrees = np.degrees(np.arctan2(tip[1], tip[0]))
        assert abs((degrees - 22.5 * label + 180) % 360 - 180) < 11.25


def test_fingerprints_follow_task_split_seed_and_version(monkeypatch):
    made = {
        Shapes(name, split_seed=seed).fingerprint(split)
        for name in TASKS
        for seed in (0, 1)
        for split in ("train800", "val200", "test")
    }
    assert len(made) == 18
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    assert Shapes("shapes_count").fingerprint("test") not in made
    assert not cache.folder().exists()  # nothing was drawn for a fingerprint


def test_a_broken_cache_is_drawn_again(monkeypatch):
    monkeypatch.setattr(shapes, "TRAIN_IMAGES", 20)
    dataset = Shapes("shapes_count")
    expected = at_size(dataset, "train800val200", 32).pixels
    (stored,) = cache.folder().rglob("*.npz")
    whole = stored.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 255
    for broken in (b"", whole[:500], bytes(altered), b"not an archive"):
        stored.write_bytes(broken)
        assert np.array_equal(at_size(dataset, "train800val200", 32).pixels, expected)
        assert stored.read_bytes() == whole


def test_pictures_come_from_the_cache_the_second_time(monkeypatch):
    monkeypatch.setattr(shapes, "TRAIN_IMAGES", 20)
    first = at_size(Shapes("shapes_count"), "val200", 32)
    monkeypatch.setattr(shapes, "generate", None)
    assert np.array_equal(at_size(Shapes("shapes_count"), "val200", 32).pixels, first.pixels)


def test_an_unknown_task_names_its_neighbour():
    with pytest.raises(ConfigError, match='did you mean "shapes_count"'):
        Shapes("shape_count")
