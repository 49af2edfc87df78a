"""Files as people have them: names, links, rights, and leftovers of their systems."""

import os

import numpy as np
import pytest
from PIL import Image

from pear_cli.data import storage, transforms
from pear_cli.data.folder import ImageFolder
from pear_cli.data.loading import load
from pear_cli.data.vtab import Vtab
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import threads


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "My фото 写真 é"
    for part, count in (("train", 5), ("test", 1)):
        for name in ("Straße 1", "кот"):
            for number in range(count):
                picture(root / part / name / f"Bild №{number} (Kopie).PNG", number)
    return root


def folder(root):
    return ImageFolder("photos", root=str(root))


def test_names_may_have_spaces_and_any_letters(photos):
    assert folder(photos).classes() == ("Straße 1", "кот")
    assert [len(at_size(folder(photos), s, 4)) for s in ("train800", "val200", "test")] == [8, 2, 2]
    assert len(folder(photos).fingerprint("test")) == 64


def test_names_that_are_no_text_are_read_all_the_same(photos):
    try:
        os.rename(
            photos / "test" / "кот" / "Bild №0 (Kopie).PNG",
            os.fsencode(photos / "test" / "кот") + b"/\xff.png",
        )
    except OSError:
        pytest.skip("this file system wants text")
    assert len(at_size(folder(photos), "test", 4)) == 2
    assert len(folder(photos).fingerprint("test")) == 64


def test_leftovers_of_systems_are_passed_over(photos):
    expected = folder(photos).fingerprint("train800")
    for name in (".DS_Store", "._Bild.png", "Thumbs.db", "desktop.ini", "notes.txt"):
        (photos / "train" / "кот" / name).write_bytes(b"x")
    picture(photos / "train" / ".trash" / "a.png")
    picture(photos / "train" / "кот" / ".hidden" / "a.png")
    (photos / "train" / "README.png").write_bytes(b"beside the classes")
    assert folder(photos).fingerprint("train800") == expected


def test_links_are_followed_but_not_in_circles(photos, tmp_path):
    picture(tmp_path / "elsewhere" / "one.png")
    (photos / "train" / "кот" / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "train" / "кот" / "again").symlink_to(photos / "train")
    (photos / "train" / "кот" / "self").symlink_to("self")
    (tmp_path / "elsewhere" / "back").symlink_to(photos / "train" / "кот")
    names = [name for name, _ in folder(photos).listing("train800val200")]
    assert "train/кот/more/one.png" in names
    assert len(names) < 40
    (photos / "train" / "дом").symlink_to(tmp_path / "elsewhere")
    assert folder(photos).classes() == ("Straße 1", "дом", "кот")


@pytest.mark.parametrize("back", ["..", "../..", "../../train"])
def test_a_link_back_to_all_classes_gives_a_class_none_of_the_others(photos, back):
    before = folder(photos).listing("train800val200")
    (photos / "train" / "кот" / "all").symlink_to(back, target_is_directory=True)
    assert folder(photos).listing("train800val200") == before


def test_a_link_that_leads_nowhere_is_a_missing_image(photos):
    (photos / "test" / "кот" / "gone.png").symlink_to(photos / "nothing.png")
    with pytest.raises(DataError, match=r"gone\.png is missing"):
        folder(photos).fingerprint("test")


def test_a_folder_without_permission_is_named(photos, monkeypatch):
    scan = os.scandir

    def refused(place):
        if str(place).endswith("кот"):
            raise PermissionError(13, "Permission denied")
        return scan(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"folder .*кот cannot be read: Permission denied"):
        folder(photos).listing("test")


def test_a_file_in_place_of_a_folder_is_said_to_be_one(photos):
    with pytest.raises(DataError, match=r"is a file; a folder is needed there"):
        folder(photos / "test" / "кот" / "Bild №0 (Kopie).PNG").classes()


def test_a_test_set_may_lack_a_class_and_a_split_be_smaller_than_a_batch(photos):
    for file in (photos / "test" / "кот").iterdir():
        file.unlink()
    (photos / "test" / "кот").rmdir()
    test = at_size(folder(photos), "test", 4)
    assert (test.labels.tolist(), len(test.classes)) == ([0], 2)


@pytest.fixture
def task(tmp_path):
    root = tmp_path / "vtab" / "tiny"
    for number in range(6):
        picture(root / "images" / f"of a  cat ü {number}.JPG", number)
    return root


def lists(task, train, test="images/of a  cat ü 5.JPG 1", **settings):
    (task / "train800val200.txt").write_text(train, encoding="utf-8")
    (task / "test.txt").write_text(test, encoding="utf-8")
    return Vtab("vtab", root=str(task.parent), task="tiny", **settings)


def lines(labels):
    return "\n".join(f"images/of a  cat ü {number}.JPG {label}" for number, label in enumerate(labels))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("between", [" ", "\t", "   "])
def test_a_path_in_a_list_may_have_spaces(task, end, between):
    text = lines([0, 1, 0, 1]).replace(".JPG ", f".JPG{between}").replace("\n", end)
    dataset = lists(task, "\ufeff" + text + end)
    assert [len(at_size(dataset, split, 4)) for split in ("train800val200", "test")] == [4, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 1, 2], r"tiny: the training labels go from 1 to 2 without 0; number the classes from 0"),
        ([0, 1, 3, 3], r"go from 0 to 3 without 2; .*or set dataset\.num_classes"),
        ([-1, 0, 1, 1], r"go from -1 to 1; number the classes from 0"),
    ],
)
def test_labels_with_gaps_are_refused_unless_their_number_is_given(task, labels, message):
    with pytest.raises(DataError, match=message):
        lists(task, lines(labels)).fingerprint("train800val200")
    if min(labels) >= 0:
        assert len(lists(task, lines(labels), num_classes=4).listing("train800val200")) == 4


def test_a_label_beyond_the_given_number_is_named_with_its_list_and_line(task):
    with pytest.raises(DataError, match=r"train800val200\.txt, line 2: label 2 of .* out of range: 0 to 1"):
        lists(task, lines([1, 2, 1, 2]), num_classes=2).listing("train800val200")
    with pytest.raises(DataError, match=r"\nand 1 more; pear data verify names them all"):
        lists(task, lines([1, 2, 1, 2]), num_classes=2).listing("train800val200")


def test_a_repeated_line_is_read_as_it_stands_and_a_second_label_refused(task):
    text = lines([0, 1, 0, 1])
    first = text.splitlines()[0]
    assert len(lists(task, f"{text}\n{first}").listing("train800val200")) == 5
    with pytest.raises(
        DataError, match=r"line 5: .*cat ü 0.JPG has label 1 here and 0 in train800val200.txt, line 1"
    ):
        lists(task, f"{text}\n{first[:-1]}1").listing("train800val200")


def test_home_is_where_the_user_says_else_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("PEAR_DATA", raising=False)
    assert storage.home() == tmp_path / "cache" / "data"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEAR_DATA", "mine")
    assert storage.home() == tmp_path / "mine"


def test_work_by_threads_keeps_its_order_and_ends_with_the_first_error():
    assert list(threads.each(lambda n: n * n, range(200))) == [n * n for n in range(200)]
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise DataError("three")
        return number

    with pytest.raises(DataError, match="three"):
        list(threads.each(work, range(100000)))
    assert len(begun) < 1000


def test_hashes_are_kept_when_the_reading_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED_NS", 0)
    for number in range(200):
        (tmp_path / f"{number}").write_bytes(bytes([number]))
    seen = []

    def interrupted():
        seen.append(1)
        if len(seen) == 150:
            raise KeyboardInterrupt

    names = [str(number) for number in range(200)]
    with pytest.raises(KeyboardInterrupt):
        cache.content_hashes(tmp_path, names, interrupted)
    reads = []
    monkeypatch.setattr(cache, "sha256", lambda path: reads.append(path) or "0" * 64)
    cache.content_hashes(tmp_path, names)
    assert len(reads) <= 50
    assert np.all([int(path.name) >= 150 for path in reads])


def test_a_label_beyond_all_bounds_costs_no_memory(task):
    with pytest.raises(DataError, match="go from 0 to 1000000000 without 2; number the classes from 0"):
        lists(task, lines([0, 1, 10**9, 1])).classes()


def test_a_pipe_and_floating_point_values_are_refused_and_not_waited_for(tmp_path):
    pipe, floating = tmp_path / "pipe.png", tmp_path / "floating.tif"
    os.mkfifo(pipe)
    Image.fromarray(np.ones((4, 4), np.float32)).save(floating)
    with pytest.raises(DataError, match=r"pipe\.png cannot be read: it is not a regular file"):
        transforms.read(pipe)
    with pytest.raises(OSError, match="no regular file"):
        cache.sha256(pipe)
    with pytest.raises(
        DataError, match=r"floating\.tif cannot be read: its values are floating-point numbers"
    ):
        transforms.read(floating)
