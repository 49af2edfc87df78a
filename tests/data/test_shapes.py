"""Generated tasks: pinned pictures, balance, and that pixels alone do not give the answer away."""

import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from pear_cli.data import condition, drawing, shapes
from pear_cli.data.drawing import TASKS, generate
from pear_cli.data.loading import load
from pear_cli.data.pinned import sha256
from pear_cli.data.shapes import Shapes
from pear_cli.data.splits import SPLITS
from pear_cli.errors import ConfigError, DataError
from pear_cli.store import cache


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


CORE = "numpy._core" if hasattr(np, "_core") else "numpy.core"
PARTS = [(name, part) for name in TASKS for part in ("train", "test")]
DISPATCHED = " ".join(import_module(f"{CORE}._multiarray_umath").__cpu_dispatch__)  # what can be disabled


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_the_pictures_are_those_that_are_pinned(name, part):
    pinned = Shapes.TABLE[name][part]
    assert sha256(*generate(name, part, pinned.images)) == pinned.sha256


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"OPENBLAS_CORETYPE": "Haswell"},
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": DISPATCHED},
    ],
    ids=lambda settings: " ".join(settings) or "as it is",
)
def test_a_sample_is_the_same_whatever_the_linear_algebra_and_the_processor(settings):
    code = f"import os; from {CORE}._multiarray_umath import __cpu_features__ as features\n"
    code += "disabled = os.environ.get('NPY_DISABLE_CPU_FEATURES', '').split()\n"
    code += "assert not any(features[name] for name in disabled), features\n"
    code += "from pear_cli.data.shapes import SAMPLE, SAMPLES, generate, sha256\n"
    code += "assert {n: sha256(*generate(n, 'train', SAMPLE)) for n in SAMPLES} == SAMPLES"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env={**os.environ, **settings})


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


def test_splits_have_their_sizes_and_classes():
    dataset = Shapes("shapes_location")
    assert [dataset.count(split) for split in SPLITS] == [800, 200, 1000, 5000]
    assert [len(at_size(dataset, split, 32)) for split in SPLITS[:3]] == [800, 200, 1000]
    images = at_size(dataset, "val200", 16)
    assert images.pixels.shape == (200, 16, 16, 3)
    assert len(images.classes) == 16
    assert set(images.labels) == set(range(16))


def test_the_number_of_figures_is_the_class():
    for label in range(8):
        random = np.random.Generator(np.random.PCG64(label))
        assert len(drawing.count(label, random, np.zeros(3))) == int(TASKS["shapes_count"].classes[label])


def test_figures_to_be_counted_lie_inside_and_apart():
    for seed in range(20):
        placed = drawing.count(7, np.random.Generator(np.random.PCG64(seed)), np.zeros(3))
        middles = np.array([(p.min(0) + p.max(0)) / 2 for p, _ in placed])
        assert all(p.min() >= 0 and p.max() <= drawing.SIDE for p, _ in placed)
        gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2) + 99 * np.eye(8)
        assert gaps.min() > 1


def test_the_star_stands_in_the_cell_of_its_class():
    for label in range(16):
        random = np.random.Generator(np.random.PCG64(label))
        star, _ = drawing.location(label, random, np.zeros(3))[-1]
        assert len(star) == len(drawing.STAR)
        column, row = star.mean(axis=0) // (drawing.SIDE / drawing.GRID)
        assert 4 * row + column == label


def test_the_direction_is_that_of_the_tip():
    for label in range(16):
        random = np.random.Generator(np.random.PCG64(label))
        figure, _ = drawing.orientation(label, random, np.zeros(3))[-1]
        tip = figure[0] - figure.mean(axis=0)
        degrees = np.degrees(np.arctan2(tip[1], tip[0]))
        assert abs((degrees - 22.5 * label + 180) % 360 - 180) < 11.25


def test_fingerprints_follow_the_content_and_the_division_and_nothing_is_drawn_for_them():
    made = {
        Shapes(name, split_seed=seed).fingerprint(split)
        for name in TASKS
        for seed in (0, 1)
        for split in SPLITS
    }
    assert len(made) == 3 * (2 + 2 + 1 + 1)  # a seed divides train800 from val200, and moves nothing else
    assert not cache.folder().exists()


def next_process():
    shapes._content.cache_clear()
    condition.say_once.cache_clear()


@pytest.fixture(autouse=True)
def own_process():
    next_process()


def inverted(pixels, labels):
    return 255 - pixels, labels


def another_label(pixels, labels):
    return pixels, np.where(np.arange(len(labels)) == 3, 99, labels)


@pytest.mark.parametrize(
    "alter",
    [
        inverted,
        another_label,
        lambda pixels, labels: (pixels[:10], labels[:10]),
        lambda pixels, labels: (pixels[:, ::2, ::2], labels),
        lambda pixels, labels: (pixels.astype(np.int16), labels),
        lambda pixels, labels: (pixels, labels.astype(np.int32)),
        lambda pixels, labels: None,
    ],
)
def test_cached_pictures_that_are_not_the_pinned_ones_are_drawn_again(said, alter):
    dataset = Shapes("shapes_count")
    whole = dataset.records("train800val200")
    (stored,) = cache.folder().rglob("*.npz")
    before, planted = stored.read_bytes(), alter(whole.pixels, whole.labels)
    if planted is None:
        stored.write_bytes(before[:500])
    else:
        np.savez(stored, pixels=planted[0], labels=planted[1])
    assert np.array_equal(dataset.records("train800val200").pixels, whole.pixels)
    assert stored.read_bytes() == before
    assert said == [
        f"{stored} is damaged or does not hold the images of shapes_count (train); they are made again"
    ]


def test_pictures_come_from_the_cache_the_second_time(monkeypatch, said):
    first = Shapes("shapes_count").records("val200")
    monkeypatch.setattr(shapes, "generate", None)
    assert np.array_equal(Shapes("shapes_count").records("val200").pixels, first.pixels)
    assert not said


def test_what_is_drawn_differently_is_another_dataset_and_said_once(monkeypatch, said):
    pinned = Shapes("shapes_count").fingerprint("train800val200")
    content = {part: Shapes("shapes_count").content(part) for part in ("train", "test")}
    shapes._content.cache_clear()
    calls = []
    monkeypatch.setattr(shapes, "generate", lambda *of: calls.append(of) or inverted(*generate(*of)))
    other = Shapes("shapes_count")
    assert len({other.fingerprint("train800val200") for _ in range(2)} | {pinned}) == 2
    assert other.content("test") != content["test"]
    assert len(calls) == 4  # a sample and all of it, for each part
    assert len(said) == 1
    for part in ("train", "test"):
        drawn = other.content(part)
        assert f"SHA-256 of {part} {drawn[:16]}… instead of {content[part][:16]}…" in said[0]
    assert f"(numpy {np.__version__}, Pillow " in said[0]
    drawn = other.content("train")
    assert sha256(*inverted(*generate("shapes_count", "train", 1000))) == drawn
    assert other.records("train800val200").pixels.shape == (1000, 32, 32, 3)
    next_process()
    monkeypatch.setattr(shapes, "generate", None)
    assert other.fingerprint("train800val200") != pinned
    assert len(other.records("train800val200")) == 1000
    assert len(said) == 2


def test_a_difference_that_the_sample_does_not_show_is_never_trained_on_under_the_pinned_key(
    monkeypatch, said
):
    def late(name, part, images):
        pixels, labels = generate(name, part, images)
        pixels[shapes.SAMPLE :, 0, 0] ^= 1
        return pixels, labels

    dataset = Shapes("shapes_count")
    pinned = dataset.fingerprint("train800val200")
    monkeypatch.setattr(shapes, "generate", late)
    for _ in range(2):
        with pytest.raises(DataError, match=r"(?s)is drawn here with SHA-256 .*, not 679082.*\nrun again"):
            dataset.records("train800val200")
    next_process()
    assert dataset.fingerprint("train800val200") != pinned
    assert dataset.fingerprint("test") == Shapes("shapes_count").fingerprint("test")
    assert len(dataset.records("train800val200")) == 1000
    assert len(said) == 1


def test_an_unknown_task_names_its_neighbour():
    with pytest.raises(ConfigError, match='did you mean "shapes_count"'):
        Shapes("shape_count")
