"""What verifying finds: everything, not only the first."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pear_cli.data import inventory
from pear_cli.data.bundled import Bundled
from pear_cli.data.folder import ImageFolder
from pear_cli.data.verify import Findings, all_at_once
from pear_cli.data.vtab import Vtab
from pear_cli.errors import DataError

RANDOM = np.random.default_rng(0)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        for number in range(5):
            picture(root / "train" / name / f"{number}.png")
        picture(root / "test" / name / "t.png")
    return root


def found(dataset):
    findings = Findings(dataset)
    problems = [*findings.listed, *findings.decoded(lambda: None)]
    return {(problem.kind, problem.split, problem.name): problem.message for problem in problems}


def folder(root):
    return ImageFolder("photos", root=str(root))


def test_nothing_is_wrong_with_a_sound_dataset(photos):
    steps = []
    findings = Findings(folder(photos))
    assert [*findings.listed, *findings.decoded(lambda: steps.append(1))] == []
    assert len(steps) == findings.images == 12


@pytest.mark.parametrize("dataset", [Bundled("digits"), Bundled("mnist5k")], ids=str)
def test_what_comes_with_pear_is_sound(dataset):
    assert not {kind for kind, _, _ in found(dataset)}


def test_every_damaged_image_is_named(photos):
    whole = (photos / "train" / "cat" / "0.png").read_bytes()
    (photos / "train" / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
    (photos / "train" / "dog" / "4.png").write_bytes(b"")
    (photos / "test" / "dog" / "t.png").write_bytes(b"text")
    (photos / "test" / "cat" / "gone.png").symlink_to(photos / "nowhere.png")
    problems = found(folder(photos))
    assert {(kind, name) for kind, _, name in problems} == {
        ("unreadable", "train/cat/0.png"),
        ("unreadable", "train/dog/4.png"),
        ("unreadable", "test/dog/t.png"),
        ("missing", "test/cat/gone.png"),
    }
    assert all(message for message in problems.values())


def test_every_class_folder_that_is_empty_or_unknown_is_named(photos):
    for name in ("train/ant", "train/bee", "test/dogs"):
        (photos / name).mkdir()
    assert set(found(folder(photos))) == {
        ("class", "train", "train/ant"),
        ("class", "train", "train/bee"),
        ("class", "test", "test/dogs"),
        ("class", "train800val200", "ant"),
        ("class", "train800val200", "bee"),
    }


def test_every_picture_that_is_in_two_splits_is_named_with_its_other(photos):
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "test" / "cat" / "copy.png")
    Image.open(photos / "train" / "dog" / "2.png").save(photos / "test" / "dog" / "again.bmp")
    shutil.copy(photos / "test" / "dog" / "t.png", photos / "test" / "dog" / "twice.png")  # the same split
    problems = found(folder(photos))
    assert set(problems) == {
        ("duplicate", "test", "test/cat/copy.png"),
        ("duplicate", "test", "test/dog/again.bmp"),
    }
    assert problems["duplicate", "test", "test/cat/copy.png"].startswith(
        "the same picture as train/cat/1.png ("
    )


def test_everything_that_is_wrong_with_lists_is_named(tmp_path):
    task = tmp_path / "vtab" / "tiny"
    for number in range(12):
        picture(task / "images" / f"{number}.png")
    good = [f"images/{number}.png {number % 2}" for number in range(12)]
    (task / "train800.txt").write_text("\n".join([*good[:4], good[0], "images/1.png 0", "images/2.png"]))
    (task / "val200.txt").write_text("\n".join([good[4], "images/5.png 7", "images/no.png 1"]))
    (task / "test.txt").write_text("\n".join([good[6], good[3], "../x.png 0"]))
    problems = found(Vtab("vtab", root=str(task.parent), task="tiny", num_classes=3))
    assert {(kind, name) for kind, _, name in problems} == {
        ("repeated", "train800.txt, line 5"),
        ("label", "train800.txt, line 2"),
        ("list", "train800.txt, line 7"),
        ("label", "val200.txt, line 2"),
        ("missing", "images/no.png"),
        ("list", "test.txt, line 3"),
        ("duplicate", "images/3.png"),
        ("class", "2"),
    }


@pytest.mark.parametrize("bad", ["{} cat", "{} 3.0", '"{}",0', "0 {}", "{},0", "{}\0 0", "i\\{} 0"])
def test_lists_without_one_line_that_can_be_read_have_a_finding_a_line(tmp_path, bad):
    task = tmp_path / "tiny"
    for number in range(3):
        picture(task / "images" / f"{number}.png")
    lines = "\n".join(bad.format(f"images/{number}.png") for number in range(3))
    for name in ("train800val200.txt", "test.txt"):
        (task / name).write_text(lines)
    problems = found(Vtab("vtab", root=str(tmp_path), task="tiny"))
    named = {f"{name}, line {number}" for name in ("train800val200.txt", "test.txt") for number in (1, 2, 3)}
    assert {(kind, name) for kind, _, name in problems} == {("list", name) for name in named}


def test_a_header_is_one_finding(tmp_path):
    task = tmp_path / "tiny"
    for number in range(4):
        picture(task / "images" / f"{number}.png")
    lines = [f"images/{number}.png {number % 2}" for number in range(4)]
    (task / "train800val200.txt").write_text("\n".join(["path label", *lines[:2]]))
    (task / "test.txt").write_text("\n".join(lines[2:]))
    ((place, message),) = found(Vtab("vtab", root=str(tmp_path), task="tiny")).items()
    assert place == ("list", "train800", "train800val200.txt, line 1")
    assert message == "'path label' is not `path label`: it looks like a header; remove it"


def test_labels_from_1_are_one_finding_and_the_images_are_decoded_all_the_same(tmp_path):
    task = tmp_path / "tiny"
    for number in range(4):
        picture(task / "images" / f"{number}.png")
    (task / "images" / "3.png").write_bytes(b"")
    lines = [f"images/{number}.png {1 + number % 2}" for number in range(4)]
    (task / "train800val200.txt").write_text("\n".join(lines[:2]))
    (task / "test.txt").write_text("\n".join(lines[2:]))
    problems = found(Vtab("vtab", root=str(tmp_path), task="tiny"))
    assert {(kind, name) for kind, _, name in problems} == {("label", ""), ("unreadable", "images/3.png")}


def test_images_that_only_the_whole_training_list_has_are_decoded_too(tmp_path):
    task = tmp_path / "tiny"
    for number in range(4):
        picture(task / "images" / f"{number}.png")
    lines = [f"images/{number}.png {number % 2}" for number in range(4)]
    (task / "images" / "3.png").write_bytes(b"")
    for name, chosen in (("train800", lines[:1]), ("val200", lines[1:2]), ("test", lines[2:3])):
        (task / f"{name}.txt").write_text("\n".join(chosen))
    (task / "train800val200.txt").write_text("\n".join([*lines[:2], lines[3]]))
    problems = found(Vtab("vtab", root=str(tmp_path), task="tiny"))
    assert list(problems) == [("class", "test", "1"), ("unreadable", "train800val200", "images/3.png")]


def test_a_dataset_that_is_not_there_is_one_finding_a_split(tmp_path):
    assert {kind for kind, _, _ in found(folder(tmp_path / "nowhere"))} == {"missing"}


def test_a_survey_is_remembered_until_a_file_changes(photos):
    dataset = folder(photos)
    assert inventory.known(dataset) is None
    survey = inventory.survey(dataset)
    assert survey.images == {"train800": 8, "val200": 2, "train800val200": 10, "test": 2}
    assert survey.classes == 2
    assert inventory.known(dataset) == survey
    os.utime(photos / "train" / "cat" / "1.png", (1, 1))
    assert inventory.known(dataset) is None
    assert inventory.survey(dataset) == survey
    altered = bytearray((photos / "train" / "cat" / "1.png").read_bytes())
    altered[-20] ^= 1  # in place, size and time as before
    (photos / "train" / "cat" / "1.png").write_bytes(altered)
    os.utime(photos / "train" / "cat" / "1.png", (1, 1))
    assert inventory.known(dataset) is None
    assert inventory.survey(dataset).fingerprints["test"] == survey.fingerprints["test"]
    assert inventory.survey(dataset).fingerprints["train800val200"] != survey.fingerprints["train800val200"]
    picture(photos / "train" / "cat" / "new.png")
    assert inventory.known(dataset) is None
    assert inventory.known(folder(photos / "nowhere")) is None


def test_a_class_of_training_without_test_images_is_named(photos):
    for number in range(3):
        picture(photos / "train" / "emu" / f"{number}.png")
    problems = found(folder(photos))
    assert problems == {("class", "test", "emu"): "no test image has this class, which training has"}


def test_one_error_has_all_that_lists_and_files_lack(photos):
    for name in ("train/ant", "test/dogs"):
        (photos / name).mkdir()
    (photos / "test" / "cat" / "gone.png").symlink_to(photos / "nowhere.png")
    first = DataError("the first")
    said = str(all_at_once(folder(photos), first)).splitlines()
    assert said[0] == "4 things are wrong with photos"
    assert [line.partition(": ")[0] for line in said[1:]] == [
        "train/ant", "test/dogs", "ant", "test/cat/gone.png",
    ]  # fmt: skip
    assert all_at_once(folder(photos / "nowhere"), first) is first


def test_an_error_names_twenty_things_and_counts_the_others(tmp_path):
    task = tmp_path / "tiny"
    picture(task / "images" / "0.png")
    (task / "train800val200.txt").write_text("\n".join(f"images/{i}.png {i % 2}" for i in range(31)))
    (task / "test.txt").write_text("images/0.png 0\nimages/0.png 1")
    said = str(all_at_once(Vtab("vtab", root=str(tmp_path), task="tiny"), DataError("x"))).splitlines()
    assert len(said) == 22
    assert said[-1] == "and 11 more; pear data verify names them all"
