"""Damaged images are found before anything is trained, whatever keeps them."""

import io

import numpy as np
import pytest
from PIL import Image

from pear_cli.data import soundness
from pear_cli.data.bundled import Bundled
from pear_cli.data.files import Files
from pear_cli.data.folder import ImageFolder
from pear_cli.data.huggingface import HuggingFace
from pear_cli.data.timm import Timm
from pear_cli.data.vtab import Vtab
from pear_cli.errors import DataError

RANDOM = np.random.default_rng(0)


def encoded(form):
    file = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, form)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for part, count in (("train", 4), ("test", 3)):
        for name in ("ant", "bee"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(encoded("JPEG"))
    return root


def check(dataset):
    soundness.check(dataset, {split: dataset.fingerprint(split) for split in ("train800val200", "test")})


def halved(form):
    content = encoded(form)
    return content[: len(content) // 2]


DAMAGE = [halved("JPEG"), halved("PNG"), halved("TIFF"), halved("WEBP"), b"", b"text", encoded("JPEG")[:-20]]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_test_image_is_named_and_the_others_are_counted(photos, content):
    (photos / "test" / "bee" / "1.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"image .*test/bee/1\.jpg cannot be read: .*; replace or remove it$"):
        check(ImageFolder("photos", root=str(photos)))
    (photos / "test" / "bee" / "2.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"test/bee/1\.jpg .*\nand 1 more; pear data verify names them all"):
        check(ImageFolder("photos", root=str(photos)))


def test_sound_images_are_read_once_as_long_as_their_content_is_the_same(photos, monkeypatch):
    dataset, read = ImageFolder("photos", root=str(photos)), []
    monkeypatch.setattr(Files, "check", lambda self, index: read.append(self.name(index)))
    check(dataset)
    assert len(read) == 14
    photos.rename(photos.parent / "moved")
    moved = ImageFolder("photos", root=str(photos.parent / "moved"))
    check(moved)
    assert len(read) == 14
    (photos.parent / "moved" / "test" / "ant" / "0.jpg").write_bytes(encoded("JPEG"))
    check(moved)
    assert len(read) == 14 + 6


def test_what_comes_with_pear_is_not_read_for_it(monkeypatch):
    monkeypatch.setattr(Bundled, "records", None)
    check(Bundled("digits"))


def by_timm(root):
    return Timm("folder", root=str(root), test_part="test")


def by_hub(root):
    datasets = pytest.importorskip("datasets")
    datasets.config.HF_DATASETS_CACHE = root.parent / "hf"
    return HuggingFace("mine", path=str(root))


def by_lists(root):
    for part, listed in (("train", "train800val200"), ("test", "test")):
        paths = [path.relative_to(root) for path in (root / part).rglob("*.jpg")]
        lines = [f"{path} {int(path.parent.name == 'bee')}" for path in paths]
        (root / f"{listed}.txt").write_text("\n".join(lines))
    return Vtab("vtab", root=str(root.parent), task=root.name)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (by_timm, r"row 4 of folder \(test\), .*test/bee/1\.jpg"),
        (by_hub, r"row 4 of .*photos \(test\)"),
        (by_lists, r"image .*test/bee/1\.jpg"),
    ],
)
@pytest.mark.parametrize("content", [DAMAGE[0], b"text", b""])
def test_other_families_name_the_file_or_the_row(photos, family, name, content):
    (photos / "test" / "bee" / "1.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{name} cannot be read: .*; replace or remove it$") as caught:
        check(family(photos))
    assert " at 0x" not in str(caught.value)
