"""Pretraining of the bundled backbone: the generated images, the budget, and resuming."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

SCRIPTS = Path(__file__).parents[2] / "scripts" / "pretrain"


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


images, mini = script("images"), script("mini")
HEADS, ABSENT = script("classes").HEADS, images.ABSENT


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    return images.World(0)


def test_a_batch_depends_on_its_seed_stream_and_index_alone(world):
    batch, again = world.batch(40, 0, 3), images.World(0).batch(40, 0, 3)
    assert torch.equal(batch.pixels, again.pixels)
    assert torch.equal(batch.labels, again.labels)
    for other in (world.batch(40, 0, 4), world.batch(40, 1, 3), images.World(1).batch(40, 0, 3)):
        assert not torch.equal(batch.pixels, other.pixels)


def test_pixels_are_in_range_and_every_label_has_its_images(world):
    batch = world.batch(300, 0, 0)
    assert batch.pixels.shape == (300, 3, 32, 32)
    assert batch.pixels.min() >= 0
    assert batch.pixels.max() <= 1
    for head, classes in HEADS.items():
        label = batch.label(head)[batch.label(head) != ABSENT]
        assert len(label) > 10
        assert label.min() >= 0
        assert label.max() < (2**classes if head == "cells" else classes)


def test_a_cell_is_named_for_each_object_and_none_for_an_empty_image(world):
    batch = world.batch(400, 0, 1)
    count, cells = batch.label("count"), batch.label("cells")
    named = torch.tensor([bin(c).count("1") for c in cells.tolist()])
    several = count != ABSENT
    assert (named[several] <= count[several]).all()
    assert ((named == 0) == (count == 0))[several].all()


def test_a_tipped_shape_is_balanced_about_its_direction_and_not_across_it():
    outlines = images.World(0).outlines[: script("classes").TIPPED]
    angle = torch.arange(outlines.shape[1]) * 2 * torch.pi / outlines.shape[1]
    # The centre of mass of a region of radius r(a) lies along the sum of r^3 (cos a, sin a).
    x, y = (outlines**3 * angle.cos()).sum(1), (outlines**3 * angle.sin()).sum(1)
    assert (x.abs() > 20 * y.abs()).all()


def test_the_learning_rate_is_flat_until_40_percent_and_ends_at_zero():
    budget = mini.Budget(images=1000, minutes=None)
    assert budget.rate(0, 0.0) == 0.01
    assert budget.rate(500, budget.progress(400, 0)) == 1.0
    assert budget.rate(500, budget.progress(700, 0)) == pytest.approx(0.5)
    assert budget.rate(500, budget.progress(1000, 0)) == 0.0
    assert mini.Budget(images=1000, minutes=1).progress(100, 30) == 0.5


@pytest.fixture
def small(monkeypatch):
    """Two blocks and quick evaluations: the same code in a second."""
    monkeypatch.setitem(mini.ARCHITECTURE, "depth", 2)
    evaluate = mini.evaluate
    monkeypatch.setattr(mini, "evaluate", lambda student, world: evaluate(student, world, batches=1, size=32))


def pretrain(folder: Path, *more: str) -> dict[str, torch.Tensor]:
    out = folder / "mini.safetensors"
    mini.main(["--images", "64", "--batch", "16", "--out", str(out), "--work", str(folder / "work"), *more])
    return load_file(out)


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path, small):
    whole = pretrain(tmp_path / "whole")
    half = pretrain(tmp_path / "resumed", "--stop-at", "2")
    resumed = pretrain(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], half[name]) for name in whole)


def test_the_weights_load_into_timm_and_say_how_they_were_made(tmp_path, small):
    weights = pretrain(tmp_path)
    out = tmp_path / "mini.safetensors"
    model = timm.create_model(mini.NAME, **mini.ARCHITECTURE, checkpoint_path=str(out))
    assert all(torch.equal(model.state_dict()[name], weights[name].float()) for name in weights)
    with safe_open(out, "pt") as file:
        assert file.metadata()["images"] == "64"
    results = json.loads(out.with_suffix(".json").read_text())
    assert results["finished"]
    assert results["heads"].keys() == HEADS.keys()


def test_a_state_of_another_seed_is_refused(tmp_path, small):
    pretrain(tmp_path)
    with pytest.raises(SystemExit, match="is of seed 0 and batch 16: choose another --work"):
        pretrain(tmp_path, "--seed", "1")
