"""torchvision's datasets, with a small one standing in for those that need a download."""

import socket
import sys

import numpy as np
import pytest
from PIL import Image

from pear_cli.data.torchvision import Torchvision
from pear_cli.errors import ConfigError, DataError

datasets = pytest.importorskip("torchvision.datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))


class Tiny:
    """Ten training and four test images of two classes; a download is one file."""

    classes = ("cat", "dog")
    made = 0

    def __init__(self, root, train=True, download=False):
        from pathlib import Path

        Tiny.made += 1
        file = Path(root) / "batches" / "data"
        if download and not file.exists():
            file.parent.mkdir(parents=True)
            file.write_bytes(b"content")
            print("a line that must not reach stdout")
        if not file.exists():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        self.targets = [index % 2 for index in range(10 if train else 4)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return Image.new("L", (4, 4), index), self.targets[index]


class Parted(Tiny):
    """The same with names in place of a truth value."""

    def __init__(self, root, split="train", download=False):
        assert split in ("trainval", "test")
        super().__init__(root, split == "trainval", download)
        self._labels, self.targets = self.targets, [None] * len(self.targets)

    def __getitem__(self, index):
        return Image.new("L", (4, 4), index), self._labels[index]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    for family in (Tiny, Parted):
        monkeypatch.setattr(datasets, family.__name__, family, raising=False)


def dataset(root, **settings):
    return Torchvision("tiny", root=str(root / "data"), **{"dataset": "Tiny", **settings})


def test_the_training_images_are_divided_and_the_test_images_left_alone(tmp_path, capsys):
    sizes = [len(dataset(tmp_path).load(s, 4)) for s in ("train800", "val200", "train800val200", "test")]
    assert sizes == [8, 2, 10, 4]
    assert dataset(tmp_path).load("test", 4).pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    drawn = dataset(tmp_path, train_images=4).load("train800val200", 4)
    assert np.bincount(drawn.labels).tolist() == [2, 2]
    assert dataset(tmp_path).classes() == ("cat", "dog")
    assert capsys.readouterr().out == ""


def test_parts_may_have_names(tmp_path):
    parted = dataset(tmp_path, dataset="Parted", train_part="trainval")
    assert [len(parted.load(s, 4)) for s in ("train800", "test")] == [8, 4]


def test_a_fingerprint_asks_torchvision_once_and_sees_what_changes(tmp_path):
    first = dataset(tmp_path).fingerprint("train800")
    made = Tiny.made
    assert dataset(tmp_path).fingerprint("train800") == first
    assert Tiny.made == made
    others = [
        dataset(tmp_path, **s).fingerprint("train800") for s in ({"split_seed": 1}, {"train_images": 4})
    ]
    (tmp_path / "data" / "batches" / "data").write_bytes(b"altered")
    others.append(dataset(tmp_path).fingerprint("train800"))
    assert len({first, *others}) == 4
    (tmp_path / "data" / "batches" / "archive.tar.gz").write_bytes(b"")
    assert dataset(tmp_path).fingerprint("train800") == others[-1]


def test_files_that_are_missing_are_an_error_with_a_remedy(tmp_path):
    for read in ("fingerprint", "classes"):
        with pytest.raises(
            DataError, match=r"Tiny is not complete in .*data .*\n.*set dataset.download=true"
        ):
            getattr(dataset(tmp_path, download=False), read)(*["test"][: read == "fingerprint"])


def test_a_download_that_fails_names_the_folder_and_the_files(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    cifar = Torchvision("cifar10", root=str(tmp_path / "cifar10"), dataset="CIFAR10")
    with pytest.raises(
        DataError, match=r"(?s)CIFAR10 .*/cifar10 .*cifar-10-batches-py, from https://.*; check the network"
    ):
        cifar.load("test", 32)
    assert socket.getdefaulttimeout() is None


def test_what_torchvision_lacks_is_named(tmp_path):
    with pytest.raises(ConfigError, match='no dataset "CIFAR1000"; did you mean "CIFAR100"'):
        dataset(tmp_path, dataset="CIFAR1000").classes()
    with pytest.raises(ConfigError, match=r"EuroSAT has no part 'test'; .*test_share=0\.2"):
        dataset(tmp_path, dataset="EuroSAT").classes()
    with pytest.raises(ConfigError, match="train_images = 1 is wrong"):
        dataset(tmp_path, train_images=1)
    assert "torchvision" in sys.modules
