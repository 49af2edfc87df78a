"""Splits: sizes, proportions, and what moves them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pear_cli.config.choices import Interpolation, Resize
from pear_cli.data.bundled import Bundled
from pear_cli.data.dataset import Normalization
from pear_cli.data.images import Images
from pear_cli.data.preparation import Preparation
from pear_cli.data.splits import divide, draw
from pear_cli.errors import ConfigError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.floats(0, 1), st.integers(0, 3))
def test_a_draw_takes_each_class_in_its_proportion_to_within_one_image(values, share, seed):
    labels = np.array(values)
    count = int(share * len(labels))
    drawn, others = draw(labels, count, seed)
    assert len(drawn) == count
    assert sorted([*drawn, *others]) == list(range(len(labels)))
    assert list(drawn) == sorted(drawn)
    for label in set(values):
        expected = count * values.count(label) / len(values)
        assert abs((labels[drawn] == label).sum() - expected) < 1


def test_a_draw_is_the_same_on_every_platform_and_numpy():
    labels = np.arange(20) % 3
    assert draw(labels, 8, 0)[0].tolist() == [1, 2, 3, 11, 13, 15, 18, 19]
    assert draw(labels, 8, 1)[0].tolist() != draw(labels, 8, 0)[0].tolist()


def test_the_two_parts_of_the_training_images_are_disjoint_and_complete():
    labels = np.arange(1000) % 10
    train, val, both = (divide(labels, split, 3) for split in ("train800", "val200", "train800val200"))
    assert (len(train), len(val), len(both)) == (800, 200, 1000)
    assert sorted([*train, *val]) == both.tolist()
    assert np.bincount(labels[val]).tolist() == [20] * 10


def test_a_test_split_inside_the_training_split_is_refused():
    with pytest.raises(ConfigError, match=r"val200 is part of .* set dataset.train_split=train800"):
        Bundled("digits", test_split="val200")
    assert Bundled("digits", train_split="train800", test_split="val200").test_split == "val200"


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"name": ""}, "dataset.name is empty"),
        ({"train_split": "train80"}, 'train_split = "train80" is unknown; did you mean "train800"'),
        ({"test_split": "testing"}, 'did you mean "test"'),
        ({"split_seed": -1}, "split_seed = -1 is out of range"),
        ({"name": "digit"}, 'no bundled dataset "digit"; did you mean "digits"'),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings_, message):
    with pytest.raises(ConfigError, match=message):
        Bundled(**{"name": "digits", **settings_})


def test_only_the_backbones_own_normalization_has_no_numbers_here():
    assert [n.name for n in Normalization if n.statistics is None] == ["backbone"]
    assert Normalization.half.statistics == ((0.5,) * 3, (0.5,) * 3)
    assert all(n.name == n.value for n in Normalization)


def test_images_know_how_many_they_are():
    images = Images(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ("a", "b"))
    assert len(images) == 2


def test_importing_the_data_families_imports_no_torch():
    code = (
        "import sys\n"
        "from pear_cli.data import bundled, folder, shapes, torchvision\n"
        "found = {'torch', 'torchvision', 'timm', 'sklearn', 'mlxtend'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_backbone_states_crop_and_interpolation_where_the_dataset_leaves_them_to_it():
    stated = {"crop_pct": 0.95, "interpolation": "bilinear"}
    left = Bundled("digits", resize=Resize.crop, interpolation=Interpolation.backbone)
    assert left.preparation(8, stated) == Preparation(8, Resize.crop, 0.95, Interpolation.bilinear)
    assert left.preparation(8) == Preparation(8, Resize.crop, 0.875, Interpolation.bicubic)
    own = Bundled("digits", resize=Resize.crop, crop_pct=0.5)
    assert own.preparation(8, stated) == Preparation(8, Resize.crop, 0.5, Interpolation.bicubic)
    assert Bundled("digits", crop_pct=0.5).preparation(8, stated) == Preparation(8)
    with pytest.raises(ConfigError, match="it states lanczos, which is not offered"):
        left.preparation(8, {"interpolation": "lanczos"})


@pytest.mark.parametrize("crop_pct", [0, 1.1])
def test_a_crop_out_of_range_is_refused(crop_pct):
    with pytest.raises(ConfigError, match=r"dataset.crop_pct = .* is out of range"):
        Bundled("digits", crop_pct=crop_pct)
