"""Augmentation is drawn for each image, from a seed alone, and its operations are timm's."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.mixup import Mixup as TimmMixup

from pear_cli.config.choices import Augment
from pear_cli.data.augment import Mixup, augmentation, flip_crop, operations
from pear_cli.system.team import Part

SIDE = 32


def photo(side=SIDE):
    """A smooth picture, on which interpolations agree."""
    y, x = np.mgrid[:side, :side] / side
    waves = [0.5 + 0.4 * np.sin(5 * x + 3 * y + phase) for phase in (0, 1, 2)]
    return (255 * np.stack(waves, -1)).astype(np.uint8)


def batch(count=8):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)


def all_of(count):
    return Part(torch.arange(count), count, count)


@pytest.mark.parametrize("kind", [Augment.flip_crop, Augment.randaugment])
def test_a_part_of_a_batch_becomes_what_it_is_in_the_whole(kind):
    whole = augmentation(kind, 0)(batch(), all_of(8))
    for places in ([0, 1, 2], [7, 3], [5]):
        part = Part(torch.tensor(places), 8, len(places))
        assert torch.equal(augmentation(kind, 0)(batch()[places], part), whole[places])


@pytest.mark.parametrize("kind", [Augment.flip_crop, Augment.randaugment])
def test_an_epochs_augmentation_depends_on_its_seed_alone(kind):
    one, again, other = (augmentation(kind, seed) for seed in (1, 1, 2))
    torch.manual_seed(5)
    first = [one(batch(), all_of(8)), one(batch(), all_of(8))]
    torch.manual_seed(6)
    for expected in first:
        found = again(batch(), all_of(8))
        assert torch.equal(found, expected)
        assert found.dtype == torch.uint8
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(other(batch(), all_of(8)), first[0])


def test_without_augmentation_there_is_nothing_to_do():
    assert augmentation(Augment.none, 0) is None


def test_images_are_mirrored_and_moved_each_on_its_own():
    images = batch(32)
    moved = flip_crop(images, all_of(32), torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images.float(), [4] * 4, mode="reflect").to(torch.uint8)
    seen = set()
    for image, candidates in zip(moved, padded, strict=True):
        cuts = {
            (top, left): candidates[:, top : top + SIDE, left : left + SIDE]
            for top in range(9)
            for left in range(9)
        }
        found = [
            (*place, mirrored)
            for place, cut in cuts.items()
            for mirrored in (False, True)
            if torch.equal(image, cut.flip(-1) if mirrored else cut)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 16
    assert {mirrored for *_, mirrored in seen} == {False, True}


GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", list(operations(SIDE)))
def test_an_operation_is_timms(name, sign, monkeypatch):
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
    timms = auto_augment.AugmentOp(name, prob=1.0, magnitude=9, hparams={"interpolation": Image.BILINEAR})
    expected = np.asarray(timms(Image.fromarray(photo()))).astype(int)
    pixels = torch.from_numpy(photo()).permute(2, 0, 1)[None]
    found = operations(SIDE)[name](pixels, sign)[0].permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - expected)
    if name in GEOMETRIC:  # at the border of what is filled one blends and the other does not
        assert np.quantile(difference[2:-2, 2:-2], 0.9) <= 1
    else:
        assert difference.max() <= 1


def test_rand_augment_leaves_some_images_and_changes_others():
    images = batch(64)
    both = [augmentation(kind, 0)(images, all_of(64)) for kind in (Augment.randaugment, Augment.flip_crop)]
    same = (both[0] == both[1]).flatten(1).all(1).float().mean()
    assert 0.1 < same < 0.5  # a quarter draws no operation; some operations change nothing


def test_mixup_is_timms(monkeypatch):
    images = batch(4).float()
    monkeypatch.setattr(np.random, "beta", lambda *_: 0.8)
    expected, _ = TimmMixup(mixup_alpha=0.4, num_classes=3)(images.clone(), torch.tensor([0, 1, 2, 0]))
    mix = Mixup(0.4, seed=0)
    mix.draw = type("Fixed", (), {"beta": staticmethod(lambda *_: 0.2)})
    mixed, weight = mix(images, images.flip(0))
    assert weight == 0.8
    torch.testing.assert_close(mixed, expected)


def test_mixup_weights_are_of_the_beta_distribution_and_of_the_seed():
    one, again = Mixup(1.0, seed=3), Mixup(1.0, seed=3)
    weights = [one(torch.zeros(1), torch.zeros(1))[1] for _ in range(400)]
    assert weights == [again(torch.zeros(1), torch.zeros(1))[1] for _ in range(400)]
    assert 0.5 <= min(weights) <= max(weights) <= 1
    assert np.mean(weights) == pytest.approx(0.75, abs=0.02)  # uniform on [0.5, 1]
