"""Datasets in the rows of other libraries: timm's loaders, and the Hugging Face hub's."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from pear_cli.data import inventory
from pear_cli.data.huggingface import HuggingFace
from pear_cli.data.loading import load
from pear_cli.data.rows import Rows
from pear_cli.data.timm import Timm
from pear_cli.errors import ConfigError, DataError


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


RANDOM = np.random.default_rng(0)
NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def own_data(monkeypatch):
    monkeypatch.delenv("PEAR_DATA", raising=False)


def pictures(count):
    return [Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


def encoded(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.fixture
def folders(tmp_path):
    for part, count in (("train", 12), ("val", 6)):
        for number, image in enumerate(pictures(count)):
            folder = tmp_path / "folders" / part / NAMES[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}.png")
    return tmp_path / "folders"


def check(dataset):
    """A dataset of 12 training and 6 test images of three classes: read, surveyed, sent."""
    survey = inventory.survey(dataset)
    assert survey.images == {"train800": 10, "val200": 2, "train800val200": 12, "test": 6}
    assert survey.classes == 3
    assert inventory.known(dataset) == survey
    loaded = at_size(dataset, "test", 8)
    assert sorted(loaded.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    records = dataset.records("train800")
    sent = pickle.loads(pickle.dumps(records))
    assert sent.image(2).tobytes() == records.image(2).tobytes()
    assert len({records.image(row).tobytes() for row in range(10)}) == 10
    return survey


def timm(name, root, **settings):
    return Timm(name, root=str(root), **{"test_part": "validation", **settings})


def test_timm_reads_folders_and_a_change_is_seen(folders):
    dataset = timm("folder", folders)
    before = check(dataset).fingerprints
    assert dataset.classes() == NAMES
    pictures(1)[0].save(folders / "val" / "bee" / "1.png")
    assert dataset.fingerprint("test") != before["test"]


def test_timm_is_not_asked_again_while_no_file_changes(folders, monkeypatch):
    before = timm("folder", folders).fingerprint("train800")
    monkeypatch.setattr(Timm, "part", None)
    assert timm("folder", folders).fingerprint("train800") == before
    assert timm("folder", folders).classes() == NAMES


def test_a_damaged_image_is_named_and_not_replaced_by_another(folders):
    (folders / "val" / "ant" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"row 0 of folder \(validation\), .*/val/ant/0.png cannot be read"):
        at_size(timm("folder", folders), "test", 8)


def test_a_part_that_timm_would_take_the_whole_folder_for_is_refused(folders):
    with pytest.raises(DataError, match=r"folders has no folder 'test'; timm would take all"):
        timm("folder", folders, test_part="test").classes()
    whole = timm("folder", folders / "train", train_part="all", test_part=None, test_share=0.5)
    assert [len(whole.records(split)) for split in ("train800val200", "test")] == [6, 6]


def test_parts_with_other_classes_are_refused(folders):
    (folders / "val" / "ant").rename(folders / "val" / "dog")
    with pytest.raises(DataError, match=r"the classes of its parts differ: train, validation"):
        timm("folder", folders).classes()


def test_what_timm_cannot_open_is_named(tmp_path, monkeypatch):
    for name in ("folder", "torch/nothing"):
        with pytest.raises(
            DataError, match=rf"(?s){name}, part train, cannot be opened .*\ncheck dataset.name"
        ):
            timm(name, tmp_path / "nowhere").classes()
    monkeypatch.setattr("pear_cli.data.timm.find_spec", lambda name: None)
    for kind, package in (("wds", "webdataset"), ("tfds", "tensorflow_datasets"), ("hfds", "datasets")):
        with pytest.raises(DataError, match=rf"{kind}/x needs the package {package}.*pip install {package}"):
            timm(f"{kind}/x", tmp_path).classes()
    with pytest.raises(ConfigError, match=r"dataset\.args\.split is refused"):
        timm("folder", tmp_path, args={"split": "train"})


@pytest.mark.filterwarnings("ignore")  # webdataset leaves its files open
def test_timm_reads_webdatasets(tmp_path):
    pytest.importorskip("webdataset")
    splits, shards = {}, tmp_path / "shards"
    shards.mkdir()
    for part, count in (("train", 12), ("validation", 6)):
        with tarfile.open(shards / f"{part}.tar", "w") as archive:
            for number, image in enumerate(pictures(count)):
                for suffix, content in (("png", encoded(image)), ("cls", str(number % 3).encode())):
                    member = tarfile.TarInfo(f"{number:04}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        files = {"filenames": [f"{part}.tar"], "shard_lengths": [count]}
        splits[part] = {"name": part, "num_samples": count, **files}
    (shards / "info.json").write_text(json.dumps({"splits": splits}))
    check(timm("wds/mine", shards))


def test_labels_that_are_none_are_counted():
    labels = np.array([0, -1, 2, -1])
    with pytest.raises(
        DataError, match=r"x: row 1 has label -1, outside 0 to 2, as have 2 of 4 rows; -1 stands"
    ):
        Rows("x", lambda row: b"", labels, NAMES)


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(NAMES)))

    def part(count):
        rows = {"image": pictures(count), "label": [number % 3 for number in range(count)]}
        return datasets.Dataset.from_dict(rows, features=kinds)

    return datasets.DatasetDict(train=part(12), test=part(6))


def parquet(table, folder):
    folder.mkdir()
    for part, rows in table.items():
        rows.to_parquet(folder / f"{part}-00000-of-00001.parquet")
    return folder


def test_hugging_face_reads_what_it_saved_parquet_and_folders(table, tmp_path, folders):
    table.save_to_disk(tmp_path / "saved")
    saved = HuggingFace("mine", path=str(tmp_path / "saved"))
    read = HuggingFace("mine", path=str(parquet(table, tmp_path / "parquet")))
    assert check(saved).fingerprints == check(read).fingerprints
    assert saved.classes() == NAMES
    check(HuggingFace("mine", path=str(folders), test_part="validation"))


def test_labels_may_be_texts(table, tmp_path):
    texts = table.map(lambda row: {"kind": NAMES[row["label"]]}).remove_columns("label")
    dataset = HuggingFace("mine", path=str(parquet(texts, tmp_path / "texts")), label_key="kind")
    check(dataset)
    assert dataset.classes() == NAMES


def test_columns_and_parts_that_are_not_there_are_named(table, tmp_path):
    path = str(parquet(table, tmp_path / "parquet"))
    for settings, message in (
        ({"label_key": "lable"}, r'label_key = "lable" is no column; did you mean "label"'),
        ({"test_part": "validation"}, r"part validation, cannot be loaded"),
        ({"path": None}, r"dataset\.path is not set"),
        ({"path": str(tmp_path / "nothing")}, r"nothing, part train, cannot be loaded"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            HuggingFace("mine", **{"path": path, **settings}).classes()


@pytest.mark.parametrize("download", [True, False])
def test_without_a_network_the_hub_is_not_asked_again_and_again(table, monkeypatch, download):
    import socket

    calls = []

    def offline(*_, **__):
        calls.append(1)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    remedy = "check the name and the network" if download else "set dataset.download=true"
    with pytest.raises(DataError, match=rf"(?s)someone/thing, part train, cannot be loaded: .*\n{remedy}"):
        HuggingFace("mine", path="someone/thing", download=download).classes()
    assert len(calls) <= int(download)


def test_without_the_package_its_name_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets.*pip install 'pear-cli\[hf\]'"):
        HuggingFace("mine", path="someone/thing").classes()


@pytest.mark.parametrize(("white", "refused"), [(255, True), (4095, True), (65535, False)])
def test_grey_of_16_bits_that_would_be_black_is_refused_with_the_remedy(folders, white, refused):
    for place in folders.rglob("*.png"):
        values = RANDOM.integers(0, white + 1, (8, 8), dtype=np.uint16)
        values[0, 0] = white
        Image.fromarray(values).save(place)
    if refused:
        with pytest.raises(DataError, match=rf"12 of 12 images are grey .* up to {white}, .*\n.*imagefolder"):
            timm("folder", folders).fingerprint("test")
    else:
        check(timm("folder", folders, test_part="val"))
