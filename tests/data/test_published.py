"""torchvision's datasets in torchvision's own layout, small and made here; where they are downloaded from."""

import hashlib
import http.server
import inspect
import json
import pickle
import socket
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from pear_cli.config.node import node
from pear_cli.config.presets import config_dir
from pear_cli.data import fetch
from pear_cli.data.dataset import Dataset
from pear_cli.data.loading import load
from pear_cli.data.published import published
from pear_cli.data.torchvision import Torchvision
from pear_cli.data.verify import Findings
from pear_cli.errors import DataError
from pear_cli.store import cache


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


datasets = pytest.importorskip("torchvision.datasets")

RANDOM = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def array(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array(6, 8, 3)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dump(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return md5(path)


def cifar(root, patch, known, key, names, label):
    folder = root / known.base_folder
    lists = {}
    for part, count in (("train_list", 20), ("test_list", 10)):
        lists[part] = []
        for file, _ in getattr(known, part):
            batch = {"data": array(count, 3072), label: [i % len(names) for i in range(count)]}
            lists[part].append([file, dump(folder / file, batch)])
    meta = {**known.meta, "md5": dump(folder / known.meta["filename"], {key: names})}
    for name, value in {**lists, "meta": meta}.items():
        patch.setattr(known, name, value)


def cifar10(root, patch):
    cifar(root, patch, datasets.CIFAR10, "label_names", [f"c{i}" for i in range(10)], "labels")


def cifar100(root, patch):
    cifar(root, patch, datasets.CIFAR100, "fine_label_names", [f"c{i}" for i in range(5)], "fine_labels")


def flowers102(root, patch):
    from scipy.io import savemat

    folder = root / "flowers-102"
    for number in range(1, 31):
        picture(folder / "jpg" / f"image_{number:05}.jpg")
    labels = np.array([[1 + number % 3 for number in range(30)]])
    parts = {"trnid": np.arange(1, 11), "valid": np.arange(11, 21), "tstid": np.arange(21, 31)}
    savemat(folder / "imagelabels.mat", {"labels": labels})
    savemat(folder / "setid.mat", {name: [ids] for name, ids in parts.items()})
    files = dict(datasets.Flowers102._file_dict)
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        files[key] = (name, md5(folder / name))
    patch.setattr(datasets.Flowers102, "_file_dict", files)


def pets(root, patch):
    folder = root / "oxford-iiit-pet"
    for part in ("trainval", "test"):
        names = [f"{'Big_cat' if i % 2 else 'dog'}_{part}{i}" for i in range(10)]
        for name in names:
            picture(folder / "images" / f"{name}.jpg")
        lines = [f"{name} {1 + i % 2} 1 1" for i, name in enumerate(names)]
        write(folder / "annotations" / f"{part}.txt", "\n".join(lines))


def dtd(root, patch):
    folder = root / "dtd" / "dtd"
    for part in ("train", "val", "test"):
        names = [f"{'dotted' if i % 2 else 'banded'}/{part}_{i}.jpg" for i in range(10)]
        for name in names:
            picture(folder / "images" / name)
        write(folder / "labels" / f"{part}1.txt", "\n".join(names))


def svhn(root, patch):
    from scipy.io import savemat

    split_list = {}
    for part in ("train", "test"):
        url, name, _ = datasets.SVHN.split_list[part]
        labels = np.array([[1 + i % 10] for i in range(20)])
        savemat(root / name, {"X": array(32, 32, 3, 20), "y": labels})
        split_list[part] = [url, name, md5(root / name)]
    patch.setattr(datasets.SVHN, "split_list", split_list)


def eurosat(root, patch):
    for name in ("Forest", "River"):
        for number in range(10):
            picture(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg")


def food101(root, patch):
    folder = root / "food-101"
    for part in ("train", "test"):
        names = {dish: [f"{dish}/{part}{i}" for i in range(5)] for dish in ("pizza", "ramen")}
        for name in names["pizza"] + names["ramen"]:
            picture(folder / "images" / f"{name}.jpg")
        write(folder / "meta" / f"{part}.json", json.dumps(names))


def caltech101(root, patch):
    for name in ("BACKGROUND_Google", "Faces", "ant"):
        for number in range(1, 11):
            picture(root / "caltech101" / "101_ObjectCategories" / name / f"image_{number:04}.jpg")


def aircraft(root, patch):
    folder = root / "fgvc-aircraft-2013b" / "data"
    write(folder / "variants.txt", "707-320\nF/A-18\n")
    for part in ("train", "val", "test"):
        for number in range(10):
            picture(folder / "images" / f"{part}{number}.jpg")
        lines = [f"{part}{i} {('707-320', 'F/A-18')[i % 2]}" for i in range(10)]
        write(folder / f"images_variant_{part}.txt", "\n".join(lines))


def gtsrb(root, patch):
    folder = root / "gtsrb"
    for number in range(10):
        picture(folder / "GTSRB" / "Training" / f"{number % 2:05}" / f"{number}.ppm")
        picture(folder / "GTSRB" / "Final_Test" / "Images" / f"{number}.ppm")
    rows = [f"{number}.ppm;{number % 2}" for number in range(10)]
    write(folder / "GT-final_test.csv", "\n".join(["Filename;ClassId", *rows]))


def sun397(root, patch):
    write(root / "SUN397" / "ClassName.txt", "/a/abbey\n/b/bar/indoor\n")
    for number in range(10):
        for place in ("a/abbey", "b/bar/indoor"):
            picture(root / "SUN397" / place / f"sun_{number}.jpg")


def fashion_mnist(root, patch):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        head = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + array(count, 28, 28).tobytes())
        head = np.array([2049, count], dtype=">i4").tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


# Preset: how its files are made, classes, and images of train800, val200 and test.
MADE = {
    "cifar10": (cifar10, 10, (80, 20, 10)),
    "cifar100": (cifar100, 5, (16, 4, 10)),
    "flowers102": (flowers102, 102, (10, 10, 10)),
    "pets": (pets, 2, (8, 2, 10)),
    "dtd": (dtd, 2, (10, 10, 10)),
    "svhn": (svhn, 10, (16, 4, 20)),
    "eurosat": (eurosat, 2, (13, 3, 4)),
    "food101": (food101, 2, (8, 2, 10)),
    "caltech101": (caltech101, 2, (13, 3, 4)),
    "aircraft": (aircraft, 2, (10, 10, 10)),
    "gtsrb": (gtsrb, 2, (8, 2, 10)),
    "sun397": (sun397, 2, (13, 3, 4)),
    "fashion_mnist": (fashion_mnist, 10, (16, 4, 10)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """All of them beside each other in one folder."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEAR_DATA", str(root))
        patch.setenv("PEAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        for make, _, _ in MADE.values():
            make(root, patch)
        yield root


def preset(name: str, **settings: object) -> Torchvision:
    fields = {**OmegaConf.load(config_dir() / "dataset" / f"{name}.yaml"), "train_split": "train800"}
    return node({**fields, "download": False, **settings}, Dataset, "dataset")


@pytest.mark.parametrize("name", MADE)
def test_a_preset_reads_the_files_in_torchvisions_layout(place, name):
    _, classes, sizes = MADE[name]
    dataset = preset(name)
    loaded = [at_size(dataset, split, 8) for split in ("train800", "val200", "test")]
    assert tuple(map(len, loaded)) == sizes
    assert len(dataset.classes()) == classes
    assert len(at_size(dataset, "train800val200", 8)) == sizes[0] + sizes[1]
    contents = [{image.tobytes() for image in part.pixels} for part in loaded]
    assert not contents[0] & contents[1] | contents[0] & contents[2] | contents[1] & contents[2]
    assert len(set(loaded[2].labels.tolist())) > 1


@pytest.mark.parametrize("name", MADE)
def test_records_can_be_sent_to_another_process(place, name):
    records = preset(name).records("train800")
    sent = pickle.loads(pickle.dumps(records))
    assert [sent.name(0), sent.image(3).tobytes()] == [records.name(0), records.image(3).tobytes()]


def test_a_fingerprint_is_of_the_own_files_and_needs_torchvision_only_once(place, monkeypatch):
    names = ("cifar100", "eurosat", "pets", "svhn")
    before = {name: preset(name).fingerprint("train800") for name in names}
    monkeypatch.setattr(Torchvision, "opened", None)  # nobody is asked again
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert {name: preset(name).fingerprint("train800") for name in names} == before
    assert len({*before.values(), preset("eurosat", split_seed=1).fingerprint("train800")}) == 5
    assert preset("cifar100").classes() == ("c0", "c1", "c2", "c3", "c4")


def test_a_file_that_changes_is_seen(place):
    before = {name: preset(name).fingerprint("test") for name in ("eurosat", "pets")}
    picture(place / "eurosat" / "2750" / "River" / "River_3.jpg")
    assert preset("eurosat").fingerprint("test") != before["eurosat"]
    assert preset("pets").fingerprint("test") == before["pets"]


def test_the_test_images_of_a_set_without_such_are_the_same_whatever_the_seed(place):
    tests = [preset("sun397", split_seed=seed).records("test") for seed in (0, 7)]
    assert tests[0].labels.tolist() == tests[1].labels.tolist() == [0, 0, 1, 1]
    assert [tests[0].name(i) for i in range(4)] == [tests[1].name(i) for i in range(4)]
    drawn = [preset("sun397", split_seed=seed).records("val200") for seed in range(4)]
    assert len({tuple(map(d.name, range(len(d)))) for d in drawn}) > 1


def test_training_images_are_drawn_from_all_parts_but_the_test(place):
    drawn = preset("flowers102", train_images=10)
    assert [len(drawn.records(s)) for s in ("train800", "val200", "test")] == [8, 2, 10]


def test_an_unknown_part_is_named(place):
    with pytest.raises(Exception, match=r"DTD has no part 'trainval': Unknown value 'trainval'"):
        preset("dtd", train_part="trainval").classes()


def test_what_is_published_is_what_torchvision_asks_for():
    for name, stated in published().items():
        known = getattr(datasets, name)
        source = inspect.getsource(inspect.getmodule(known))
        assert all(
            archive.md5 in source and Path(archive.place).name in source for archive in stated.archives
        )
        for archive in stated.archives:
            assert archive.url.rpartition("/")[0].split("//")[1][:20] in source


@pytest.mark.parametrize("name", ["cifar10", "pets", "svhn"])
def test_numbers_and_checksums_are_compared_with_the_published_ones(place, name):
    dataset = preset(name)
    archive = place / published()[dataset.dataset].archives[0].place
    if not archive.exists():
        archive.write_bytes(b"cut off")
    found = {(problem.kind, problem.split) for problem in Findings(dataset).listed}
    assert {("count", part) for part in dataset.part_names} <= found
    assert ("checksum", "") in found


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A server on this machine that has the archive of DTD, and an own cache and root."""
    shelf = tmp_path / "shelf"
    dtd(shelf / "made", monkeypatch)
    with tarfile.open(shelf / "dtd-r1.0.1.tar.gz", "w:gz") as archive:
        archive.add(shelf / "made" / "dtd" / "dtd", "dtd")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=shelf))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(datasets.DTD, "_URL", f"http://127.0.0.1:{server.server_port}/dtd-r1.0.1.tar.gz")
    monkeypatch.setattr(datasets.DTD, "_MD5", md5(shelf / "dtd-r1.0.1.tar.gz"))
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield partial(preset, "dtd", root=str(tmp_path / "root"), download=True)
    server.shutdown()
    server.server_close()


def test_a_download_fills_the_root_once_and_says_so_on_stderr_only(publisher, tmp_path, capsys):
    dataset = publisher()
    assert len(at_size(dataset, "train800", 4)) == 10
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("downloading DTD from https://www.robots") == 1
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["dtd"]
    assert dataset.fingerprint("test") == publisher(download=False).fingerprint("test")
    assert publisher().compare() != []
    assert capsys.readouterr().err == ""


def test_an_interrupted_download_is_not_taken_for_the_dataset(publisher, tmp_path, monkeypatch):
    def interrupted(aside):
        picture(aside / "dtd" / "dtd" / "images" / "banded" / "half.jpg")
        (aside / "dtd" / "dtd-r1.0.1.tar.gz").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(tmp_path / "root", interrupted, lambda: False)
    assert not publisher().holding().present
    assert len(publisher().records("test")) == 10
    assert not (tmp_path / "root" / "dtd" / "dtd" / "images" / "banded" / "half.jpg").exists()


def test_an_archive_of_another_content_is_refused(publisher, monkeypatch):
    monkeypatch.setattr(datasets.DTD, "_MD5", "0" * 32)
    with pytest.raises(DataError, match=r"(?s)DTD is not complete in .*root \(File not found or corrupted"):
        publisher().records("test")


@pytest.mark.parametrize("name", MADE)
def test_without_a_network_the_place_the_files_and_the_source_are_named(tmp_path, monkeypatch, name):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    dataset = preset(name, root=str(tmp_path / "root"), download=True)
    stated = published()[dataset.dataset]
    with pytest.raises(DataError) as error:
        dataset.fingerprint("test")
    message = str(error.value)
    assert len(message.splitlines()) == 2
    assert all(part in message for part in (str(tmp_path / "root"), *stated.files, "check the network"))
    assert all(archive.url in message for archive in stated.archives)
    with pytest.raises(DataError, match=r"set dataset.download=true"):
        preset(name, root=str(tmp_path / "root")).classes()
    assert socket.getdefaulttimeout() is None


def test_a_damaged_image_is_named_by_its_path(place, tmp_path, monkeypatch):
    dtd(tmp_path, monkeypatch)
    (tmp_path / "dtd/dtd/images/banded/test_2.jpg").write_bytes(b"no image")
    (tmp_path / "dtd/dtd/images/dotted/test_3.jpg").unlink()
    found = list(Findings(preset("dtd", root=str(tmp_path))).decoded(lambda: None))
    assert [(p.kind, p.split, p.name) for p in found] == [
        ("unreadable", "test", "dtd/dtd/images/banded/test_2.jpg"),
        ("missing", "test", "dtd/dtd/images/dotted/test_3.jpg"),
    ]


def test_what_is_remembered_is_forgotten_when_the_cache_is(place, tmp_path, monkeypatch):
    expected = preset("eurosat").fingerprint("train800")
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path))
    assert cache.recall("anything") == {}
    assert preset("eurosat").fingerprint("train800") == expected
