"""Images in files: what is read, what changes a fingerprint, and what the messages say."""

import os
import shutil
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from pear_cli.data.folder import ImageFolder
from pear_cli.data.loading import load
from pear_cli.data.splits import SPLITS
from pear_cli.data.transforms import suffixes
from pear_cli.data.verify import Findings
from pear_cli.data.vtab import Vtab
from pear_cli.errors import ConfigError, DataError


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for number in range(10):
        for label, name in enumerate(("cat", "dog")):
            picture(root / "train" / name / f"{number}.png", 100 * label + number)
    for label, name in enumerate(("cat", "dog")):
        picture(root / "test" / name / "more" / "t.PNG", 200 + label)
        (root / "test" / name / "Thumbs.db").write_bytes(b"")
    return root


def folder(root, **settings):
    return ImageFolder("photos", root=str(root), **settings)


@pytest.fixture
def task(tmp_path):
    root = tmp_path / "vtab" / "tiny"
    lines = []
    for number in range(10):
        picture(root / "images" / f"{number:02}.png", number)
        lines.append(f"images/{number:02}.png {number % 2}")
    picture(root / "images" / "of a test.png", 99)
    (root / "train800.txt").write_text("\n".join(lines[:8]) + "\n")
    (root / "val200.txt").write_text("\n".join(lines[8:]) + "\n\n")
    (root / "train800val200.txt").write_text("\n".join(lines) + "\n")
    (root / "test.txt").write_text("images/of a test.png 1\n")
    return root


def vtab(task, **settings):
    return Vtab("vtab", root=str(task.parent), task=task.name, **settings)


def test_a_class_is_a_folder_and_the_training_images_are_divided(photos):
    dataset = folder(photos)
    assert dataset.classes() == ("cat", "dog")
    train, val, both, test = (at_size(dataset, split, 4) for split in SPLITS)
    assert [len(part) for part in (train, val, both, test)] == [16, 4, 20, 2]
    assert both.pixels[:, 0, 0, 0].tolist() == [*range(10), *range(100, 110)]
    assert both.labels.tolist() == [0] * 10 + [1] * 10
    assert sorted([*train.pixels[:, 0, 0, 0], *val.pixels[:, 0, 0, 0]]) == both.pixels[:, 0, 0, 0].tolist()
    assert np.bincount(val.labels).tolist() == [2, 2]
    assert test.pixels[:, 0, 0, 0].tolist() == [200, 201]


def test_a_val_folder_is_val200_beside_a_test_folder_and_the_test_set_without_one(photos):
    shutil.copytree(photos / "test", photos / "val")
    sizes = [len(folder(photos).listing(s)) for s in SPLITS]
    assert sizes == [20, 2, 22, 2]
    shutil.rmtree(photos / "test")
    sizes = [len(folder(photos).listing(s)) for s in SPLITS]
    assert sizes == [16, 4, 20, 2]


def test_a_fingerprint_changes_with_content_label_name_and_split_seed_but_not_with_mtime(photos):
    made = [folder(photos).fingerprint("train800"), folder(photos, split_seed=1).fingerprint("train800")]
    for file in (photos / "train").rglob("*.png"):
        os.utime(file, (1, 1))
    assert folder(photos).fingerprint("train800") == made[0]
    moved = photos.with_name("elsewhere")
    shutil.copytree(photos, moved)
    assert folder(moved).fingerprint("train800") == made[0]
    for change in (
        lambda: picture(photos / "train" / "cat" / "0.png", 250),
        lambda: (photos / "train" / "cat" / "1.png").rename(photos / "train" / "dog" / "x.png"),
        lambda: (photos / "train" / "dog" / "x.png").rename(photos / "train" / "dog" / "y.png"),
        lambda: (photos / "train" / "dog").rename(photos / "train" / "wolf"),
    ):
        change()
        made.append(folder(photos).fingerprint("train800val200"))
    assert len(set(made)) == len(made)


def test_a_content_is_seen_to_change_behind_an_equal_size_and_mtime(photos):
    file = photos / "train" / "cat" / "0.png"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    before = folder(photos).fingerprint("train800val200")
    file.write_bytes(b"six")  # in place
    os.utime(file, (1, 1))
    assert folder(photos).fingerprint("train800val200") != before
    file.write_bytes(b"one")
    other = file.with_suffix(".new")
    other.write_bytes(b"two")
    os.utime(other, (1, 1))
    other.replace(file)
    assert folder(photos).fingerprint("train800val200") != before


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: shutil.rmtree(root), r"folder .*photos is missing .*set dataset.root"),
        (lambda root: shutil.rmtree(root / "test"), r"folder .*test is missing"),
        (lambda root: shutil.rmtree(root / "train"), r"folder .*train is missing"),
        (
            lambda root: shutil.rmtree(root / "train" / "dog"),
            r"only the class 'cat'; two class folders or more",
        ),
        (lambda root: (root / "train" / "ant").mkdir(), r"train/ant: class folder has no image"),
        (
            lambda root: (root / "test" / "cat").rename(root / "test" / "cats"),
            r"test/cats: .*train has no folder of this class; did you mean \"cat\"\?",
        ),
        (lambda root: (root / "train" / "cat" / "3.png").write_bytes(b"no"), r"image .*3.png cannot be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(photos, harm, message):
    harm(photos)
    with pytest.raises(DataError, match=message):
        [at_size(folder(photos), split, 4) for split in ("train800val200", "test")]


def test_without_a_root_files_are_looked_for_where_all_datasets_lie(photos, task, monkeypatch):
    monkeypatch.setenv("PEAR_DATA", str(photos.parent))
    assert ImageFolder("photos").fingerprint("test") == folder(photos).fingerprint("test")
    task.parent.rename(photos.parent / "vtab-1k")
    assert len(Vtab("vtab", task="tiny").listing("test")) == 1


def test_a_vtab_task_is_read_as_its_lists_have_it(task):
    dataset = vtab(task)
    sizes = [len(at_size(dataset, s, 4)) for s in SPLITS]
    assert sizes == [8, 2, 10, 1]
    assert at_size(dataset, "val200", 4).pixels[:, 0, 0, 0].tolist() == [8, 9]
    assert dataset.classes() == ("0", "1")
    assert len(vtab(task, num_classes=7).classes()) == 7


def test_missing_vtab_lists_are_made_from_the_others(task):
    expected = vtab(task).fingerprint("train800val200")
    (task / "train800val200.txt").rename(task / "both")
    assert vtab(task).fingerprint("train800val200") == expected
    (task / "both").rename(task / "train800val200.txt")
    (task / "train800.txt").unlink()
    (task / "val200.txt").unlink()
    assert [len(vtab(task).listing(s)) for s in ("train800", "val200")] == [8, 2]
    (task / "train800val200.txt").unlink()
    with pytest.raises(DataError, match=r"train800.txt is missing, and so is train800val200.txt"):
        vtab(task, num_classes=2).listing("train800")


def test_the_order_of_a_list_is_neither_in_the_fingerprint_nor_in_the_images(task):
    before = vtab(task).fingerprint("train800"), at_size(vtab(task), "train800", 4).pixels.tobytes()
    lines = (task / "train800.txt").read_text().splitlines()
    (task / "train800.txt").write_text("\n".join(reversed(lines)))
    assert (vtab(task).fingerprint("train800"), at_size(vtab(task), "train800", 4).pixels.tobytes()) == before
    (task / "train800.txt").write_text("\n".join([*lines[1:], lines[0][:-1] + "1"]))
    assert vtab(task).fingerprint("train800") != before[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/lost.png 1", r"lost.png is missing"),
        ("images/00.png 7", r"test.txt, line 1: label 7 of images/00.png is out of range: 0 to 1"),
        ("images/00.png -1", r"label -1"),
        ("images/00.png", r"test.txt, line 1: 'images/00.png' is not `path label`"),
        ("images/00.png one", r"is not `path label`: the label is not a number; number the classes from 0"),
        ("images/00.png class_a", r"the label is not a number"),
        ("images/00.png 3.0", r"the label is not written as a whole number, such as 3"),
        ("images/00.png 1e400", r"the label is not written as a whole number"),
        ("images/00.png " + "9" * 5000, r"9…' is not `path label`: the label is too large"),
        ('"images/00.png","1"', r"it has quotes"),
        ('"images/00.png" 1', r"it has quotes"),
        ("images/00.png,1", r"a comma or semicolon separates path and label; a space has to"),
        ("images/00.png; 1", r"a comma or semicolon separates"),
        ("1 images/00.png", r"the label comes first; write the path before it"),
        ("path label", r"it looks like a header; remove it"),
        ("label\timage", r"it looks like a header"),
        (r"images\00.png 1", r"images\\00.png has backslashes; write images/00.png"),
        ("images/00\0.png 1", r"it has a NUL byte; save the list as UTF-8 text"),
        ("images/00.png\0 1", r"it has a NUL byte"),
        ("../tiny/images/00.png 1", r"leaves the task's folder"),
        ("/images/00.png 1", r"leaves the task's folder"),
        ("", r"test.txt is empty"),
    ],
)
def test_what_is_wrong_with_a_vtab_list_is_named(task, line, message):
    (task / "test.txt").write_text(line)
    for read in (lambda: vtab(task).fingerprint("test"), lambda: at_size(vtab(task), "test", 4)):
        with pytest.raises(DataError, match=message):
            read()


@pytest.mark.parametrize(
    ("line", "label"),
    [("a, b.png 1", 1), ("it's.png  0", 0), ("a\\b.png\t1", 1), ("\ufeffimages/00.png 1\r", 1)],
)
def test_a_line_may_have_what_the_name_of_a_file_has(task, line, label):
    image = (task / "images" / "00.png").read_bytes()
    for name in ("a, b.png", "it's.png", "a\\b.png"):
        (task / name).write_bytes(image)
    (task / "test.txt").write_text(f"{line}\n\n")
    assert [found for _, found in vtab(task).listing("test")] == [label]


def test_a_missing_task_names_those_that_are_there(task):
    with pytest.raises(DataError, match=r"no task 'tiny2' .*; did you mean .tiny.\? found: tiny"):
        at_size(Vtab("vtab", root=str(task.parent), task="tiny2"), "test", 4)
    (task / "test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        at_size(vtab(task), "test", 4)
    (task / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt cannot be read: No such file"):
        at_size(vtab(task), "test", 4)


def test_a_task_with_one_class_is_refused(task):
    (task / "train800val200.txt").write_text("images/00.png 0\n")
    with pytest.raises(DataError, match="only one class"):
        vtab(task).classes()
    with pytest.raises(ConfigError, match="num_classes = 1"):
        vtab(task, num_classes=1)


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "mpo", "tga", "JPG", "Tiff", "jp2", "avif", "ico", "qoi", "pcx"]
)
def test_every_suffix_that_pillow_decodes_is_one_of_an_image(photos, suffix):
    if f".{suffix.lower()}" not in suffixes():
        pytest.skip("this Pillow cannot read it")
    kind = "JPEG" if suffix == "jfif" else None
    Image.new("RGB", (16, 16)).save(photos / "train" / "cat" / f"more.{suffix}", kind)
    assert len(folder(photos).listing("train800val200")) == 21
    assert at_size(folder(photos), "train800val200", 4).pixels.shape[0] == 21


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train/cat/a.heic", "convert it"),
        ("train/cat/deep/b.svg", "convert it"),
        ("test/dog/no_suffix", "convert it"),
        ("train/loose.png", "lies in no class folder"),
    ],
)
def test_a_file_that_is_passed_over_is_named_by_run_and_verify(photos, said, name, told):
    (photos / name).parent.mkdir(exist_ok=True)
    (photos / name).write_bytes(b"")
    for split in ("train800val200", "test"):
        folder(photos).listing(split)
    assert [line for line in said if name in line and "1 file " in line]
    (problem,) = Findings(folder(photos)).listed
    assert (problem.kind, problem.name) == ("skipped", name)
    assert told in problem.message


@pytest.mark.parametrize("spelled", [("Train", "TEST", "valid"), ("training", "testing", "Validation")])
def test_splits_are_found_by_their_usual_names(photos, spelled):
    shutil.copytree(photos / "test", photos / "val")
    for part, name in zip(("train", "test", "val"), spelled, strict=True):
        (photos / part).rename(photos / name)
    assert [len(folder(photos).listing(split)) for split in SPLITS] == [20, 2, 22, 2]
    shutil.copytree(photos / spelled[2], photos / "val")
    with pytest.raises(DataError, match=f"has both .*{spelled[2]}.*keep one of them"):
        folder(photos).listing("test")


def test_classes_in_the_root_are_divided_where_a_share_is_asked_for(photos):
    flat = photos / "train"
    with pytest.raises(DataError, match=r"train is missing; .*\(cat, dog\), dataset.test_share=0.2"):
        folder(flat).listing("train800val200")
    dataset = folder(flat, test_share=0.2)
    listings = [dataset.listing(split) for split in SPLITS]
    assert [len(listing) for listing in listings] == [13, 3, 16, 4]
    assert [label for _, label in listings[3]] == [0, 0, 1, 1]
    assert not set(listings[2]) & set(listings[3])
    assert dataset.fingerprint("test") != folder(flat, test_share=0.3).fingerprint("test")
    assert folder(flat, test_share=0.2, split_seed=1).listing("test") == listings[3]


def test_training_images_without_a_test_folder_offer_a_share(photos):
    with pytest.raises(ConfigError, match=r"test_share = 0.2 has no use: .*test"):
        folder(photos, test_share=0.2).listing("test")
    shutil.rmtree(photos / "test")
    with pytest.raises(DataError, match=r"test is missing .*dataset.test_share=0.2"):
        folder(photos).listing("test")
    assert len(folder(photos, test_share=0.2).listing("test")) == 4


def deep(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint16)).save(path)


@pytest.mark.parametrize(
    ("largest", "white", "levels"),
    [(200, 255, [0, 100, 200]), (4000, 4095, [0, 6, 12]), (65535, 65535, [0, 0, 0])],
)
def test_the_range_of_deep_grey_is_decided_once_a_dataset(tmp_path, said, largest, white, levels):
    for name in ("cat", "dog"):
        deep(tmp_path / "train" / name / "small.png", 0, 100, 200)
        deep(tmp_path / "train" / name / "large.png", 0, 0, largest)
        deep(tmp_path / "test" / name / "t.png", 0, 100, 200)
    dataset = folder(tmp_path)
    assert dataset.white() == white
    assert np.asarray(dataset.records("test").image(0))[0, :, 0].tolist() == levels
    assert any(f"4 of 4 training images are grey of more than 8 bits, with values up to {largest}" in line
               for line in said)  # fmt: skip
    same, other = folder(tmp_path, grey_range=white), folder(tmp_path, grey_range=1000)
    assert same.fingerprint("test") == dataset.fingerprint("test")
    assert other.fingerprint("test") != dataset.fingerprint("test")


def test_grey_above_16_bits_has_as_many_as_it_needs(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            values = np.array([[0, 44983, 89966]], np.int32)
            Image.fromarray(values).save(tmp_path / part / name / "deep.tif")
    dataset = folder(tmp_path)
    assert dataset.white() == 2**17 - 1
    assert np.asarray(dataset.records("test").image(0))[0, :, 0].tolist() == [0, 87, 175]


def test_two_unicode_spellings_of_a_class_are_one(photos):
    for part, spelling in (("train", "NFC"), ("test", "NFD")):
        (photos / part / "dog").rename(photos / part / normalize(spelling, "zoé"))
    dataset = folder(photos)
    assert dataset.classes() == ("cat", "zo\u00e9")
    assert [label for _, label in dataset.listing("test")] == [0, 1]
    picture(photos / "train" / normalize("NFD", "zoé") / "more.png", 7)
    assert [label for _, label in dataset.listing("train800val200")] == [0] * 10 + [1] * 11


@pytest.mark.parametrize(
    "entry",
    [
        b"\x12\x01\x03\0\x02\0\0\0\x01\0\x01\0",  # two values where one is expected
        b"\x0f\x01\x02\0\xff\xff\0\0\x1a\0\0\0",  # longer than the file
    ],
)
def test_pillow_does_not_warn_of_metadata_without_naming_the_image(photos, recwarn, entry):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    Image.new("RGB", (4, 3)).save(photos / "train" / "cat" / "odd.jpg", exif=exif)
    at_size(folder(photos), "train800val200", 4)
    assert not recwarn.list


@pytest.mark.parametrize("exif", [b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_malformed_exif_is_told_once_by_the_name_of_its_image(photos, said, recwarn, exif):
    Image.new("RGB", (4, 3)).save(photos / "train" / "cat" / "odd.jpg", exif=exif)
    for _ in range(2):
        at_size(folder(photos), "train800val200", 4)
    assert not [warning for warning in recwarn if "EXIF" in str(warning.message)]
    assert len([line for line in said if "odd.jpg has malformed EXIF" in line]) == (1 if len(exif) > 6 else 0)


def test_a_split_without_an_image_is_refused(photos):
    for name in ("cat", "dog"):
        for number in range(1, 10):
            (photos / "train" / name / f"{number}.png").unlink()
    with pytest.raises(DataError, match="val200 of photos has no image: too few"):
        at_size(folder(photos), "val200", 4)


def test_the_name_of_the_folder_is_that_of_the_task_and_of_no_key(photos):
    dataset = ImageFolder("mine", root=str(photos))
    assert dataset.title == "mine"
    unnamed = ImageFolder("imagefolder", root=str(photos))
    assert unnamed.title == photos.name
    before = dataset.fingerprint("test")
    moved = photos.rename(photos.parent / "moved")
    renamed = ImageFolder("imagefolder", root=str(moved))
    assert renamed.title == "moved"
    assert renamed.fingerprint("test") == before
