"""torchvision's datasets, with a small one standing in for those that need a download."""

import hashlib
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pear_cli.data.loading import load
from pear_cli.data.torchvision import Torchvision
from pear_cli.data.verify import Findings
from pear_cli.errors import AlteredFile, ConfigError, DataError


def at_size(dataset, split, size):
    return load(dataset, split, dataset.preparation(size))


datasets = pytest.importorskip("torchvision.datasets")


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
    sizes = [len(at_size(dataset(tmp_path), s, 4)) for s in ("train800", "val200", "train800val200", "test")]
    assert sizes == [8, 2, 10, 4]
    assert at_size(dataset(tmp_path), "test", 4).pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    drawn = at_size(dataset(tmp_path, train_images=4), "train800val200", 4)
    assert np.bincount(drawn.labels).tolist() == [2, 2]
    assert dataset(tmp_path).classes() == ("cat", "dog")
    assert capsys.readouterr().out == ""


def test_parts_may_have_names(tmp_path):
    parted = dataset(tmp_path, dataset="Parted", train_part="trainval")
    assert [len(at_size(parted, s, 4)) for s in ("train800", "test")] == [8, 4]


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
        at_size(cifar, "test", 32)
    assert socket.getdefaulttimeout() is None


def test_what_torchvision_lacks_is_named(tmp_path):
    with pytest.raises(ConfigError, match='no dataset "CIFAR1000"; did you mean "CIFAR100"'):
        dataset(tmp_path, dataset="CIFAR1000").classes()
    with pytest.raises(ConfigError, match=r"EuroSAT has no part 'test'; .*test_share=0\.2"):
        dataset(tmp_path, dataset="EuroSAT").classes()
    with pytest.raises(ConfigError, match="train_images = 1 is out of range: 2 to"):
        dataset(tmp_path, train_images=1)
    assert "torchvision" in sys.modules


CONTENT, WRONG = b"content", hashlib.md5(b"damaged").hexdigest()
STATED = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """The folder of a dataset whose files torchvision knows by their MD5, as CIFAR's; one is damaged."""
    lists = {"base_folder": "batches", "train_list": [["data", STATED]], "test_list": [["more", STATED]]}

    def complete(self, root, train=True, download=False):
        folder = Path(root) / "batches"
        if any((folder / name).read_bytes() != CONTENT for name in ("data", "more")):
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        self.targets = [0, 1] * 5

    monkeypatch.setattr(datasets, "Tiny", type("Tiny", (Tiny,), {**lists, "__init__": complete}))
    folder = tmp_path / "data" / "batches"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"damaged")
    (folder / "more").write_bytes(CONTENT)
    return folder


@pytest.mark.parametrize(
    ("download", "remedy"),
    [(True, "remove it, and it is downloaded again"), (False, "remove it, and put the published one there")],
)
def test_a_file_that_is_not_the_published_one_is_named_and_left_alone(tmp_path, listed, download, remedy):
    with pytest.raises(AlteredFile) as said:
        dataset(tmp_path, download=download).classes()
    assert str(said.value) == (
        f"{listed / 'data'} is not the published file: "
        f"its MD5 is {WRONG}, where {STATED} is published\n{remedy}"
    )
    assert (listed / "data").read_bytes() == b"damaged"
    (listed / "data").write_bytes(CONTENT)
    assert dataset(tmp_path, download=download).classes() == ("cat", "dog")


def test_verifying_finds_the_file_and_no_missing_dataset(tmp_path, listed):
    (problem,) = Findings(dataset(tmp_path)).listed
    assert (problem.kind, problem.name) == ("checksum", "batches/data")
    assert problem.message.startswith(f"its MD5 is {WRONG}, where {STATED} is published; remove it")


def test_the_files_of_cifar_are_known_by_torchvision_and_those_of_others_by_their_publishers():
    stated = Torchvision("cifar10", dataset="CIFAR10").opened.checksums
    assert len([name for name in stated if name.startswith("cifar-10-batches-py/")]) == 7
    assert "train_32x32.mat" in Torchvision("svhn", dataset="SVHN").opened.checksums
    assert "flowers-102/setid.mat" in Torchvision("flowers102", dataset="Flowers102").opened.checksums
