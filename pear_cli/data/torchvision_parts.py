"""What torchvision makes of the files of its datasets, and their download."""

import contextlib
import http.client
import inspect
import lzma
import os
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import datasets

from pear_cli.data.fetch import fetch
from pear_cli.data.files import Files
from pear_cli.data.images import Labels, Records
from pear_cli.data.published import ARCHIVES, Published, altered, published
from pear_cli.data.rows import Rows
from pear_cli.errors import AlteredFile, ConfigError, DataError, near
from pear_cli.system import progress

UNPACKING = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
BROKEN = (OSError, RuntimeError, ValueError, EOFError, ImportError, http.client.HTTPException, *UNPACKING)
"""What torchvision and all below it raise for missing and damaged files, and for lost connections."""

PICKLED = ("LSUN", "LSUNClass")
"""Classes that unpickle a file without knowing its checksum: it could run anything."""


@dataclass(frozen=True)
class TorchvisionParts:
    """The parts of a dataset as torchvision's class has them.

    Args:
        dataset: the class.
        folder: the root, as torchvision calls it.
        names: the parts that are used.
        download: fetch the files when they are not there.
    """

    dataset: str
    folder: Path
    names: tuple[str, ...]
    download: bool

    def part(self, name: str) -> Records:
        """The images of a part, from files of their own, or else as torchvision decodes them."""
        source = self.source(name)
        paths, labels = _paths(source), _labels(source)
        if paths is None:
            return Rows(f"{self.dataset} ({name})", partial(decoded, source), labels, None)
        names = [Path(os.path.relpath(path, self.folder)).as_posix() for path in paths]
        return Files(self.folder, sorted(zip(names, labels.tolist(), strict=True)))

    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where they have no names."""
        sources = [self.source(name) for name in self.names]
        for source in sources:
            if names := getattr(source, "classes", getattr(source, "categories", None)):
                return tuple(map(str, names))
        largest = max(int(_labels(source).max(initial=0)) for source in sources)
        return tuple(map(str, range(largest + 1)))

    @cached_property
    def checksums(self) -> Mapping[str, str]:
        """The MD5 of files, as far as they are published, by path below the root.

        torchvision's classes of CIFAR know the files that their archive consists of.
        """
        known = family(self.dataset)
        folder, meta = getattr(known, "base_folder", ""), getattr(known, "meta", None)
        unpacked = [*getattr(known, "train_list", ()), *getattr(known, "test_list", ())]
        unpacked += [(meta["filename"], meta["md5"])] if isinstance(meta, dict) else []
        archives = {archive.place: archive.md5 for archive in self._published.archives if archive.md5}
        return {f"{folder}/{name}": md5 for name, md5 in unpacked} | archives

    @property
    def remedy(self) -> str:
        """What to do about a file that is not the published one."""
        then = "it is downloaded again" if self.download else "put the published one there"
        return f"remove it, and {then}"

    def source(self, part: str) -> Any:
        """torchvision's object for a part, downloaded where needed and allowed."""
        for name in self.names:  # a part that cannot be is told before anything is downloaded
            self._arguments(name)
        try:
            return self._opened(self.folder, part, download=False)
        except ImportError as error:
            raise DataError(f"{self.dataset} needs a package: {error}") from None
        except BROKEN as error:
            self._check_unaltered()
            if not self.download:
                raise DataError(*self._unavailable(error)) from None
        try:
            fetch(self.folder, self._download, self._is_there)
            return self._opened(self.folder, part, download=False)
        except BROKEN as error:
            raise DataError(*self._unavailable(error)) from None

    @property
    def _published(self) -> Published:
        return published().get(self.dataset, Published())

    def _opened(self, root: Path, part: str, download: bool) -> Any:
        """torchvision's object for a part.

        Raises:
            ConfigError: there is no such part.
        """
        known = family(self.dataset)
        allowed = {"download": download} if "download" in inspect.signature(known).parameters else {}
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return known(root=str(root), **self._arguments(part), **allowed)
            except ValueError as error:
                if "Valid values" not in str(error):
                    raise
                raise ConfigError(f"{self.dataset} has no part {part!r}: {error}") from None

    def _download(self, aside: Path) -> None:
        address = self._published.address or f"torchvision's {self.dataset}"
        progress.say(f"downloading {self.dataset} from {address} to {self.folder}")
        for part in self.names:
            self._opened(aside, part, download=True)

    def _is_there(self) -> bool:
        try:
            for part in self.names:
                self._opened(self.folder, part, download=False)
        except BROKEN:
            return False
        return True

    def _arguments(self, part: str) -> dict[str, object]:
        parameters = inspect.signature(family(self.dataset)).parameters
        if "split" in parameters:
            return {"split": part}
        options = ("train", "test") if "train" in parameters else ("train",)
        if part not in options:
            remedy = "; set dataset.test_part=null dataset.test_share=0.2" if options == ("train",) else ""
            raise ConfigError(f"{self.dataset} has no part {part!r}; parts: {', '.join(options)}{remedy}")
        return {"train": part == "train"} if "train" in parameters else {}

    def _check_unaltered(self) -> None:
        """Raise AlteredFile where the dataset is not complete for a file that is not the published one."""
        own = {place: md5 for place, md5 in self.checksums.items() if not place.endswith(ARCHIVES)}
        found = list(altered(self.folder, own))
        if found:
            more = f" and {len(found) - 1} more; pear data verify names them all" if found[1:] else ""
            place, differs = found[0]
            raise AlteredFile(
                f"{self.folder / place} is not the published file: {differs}{more}", self.remedy
            )

    def _unavailable(self, error: Exception) -> tuple[str, str]:
        expected = ", ".join(self._published.files) or "its unpacked archive"
        urls = " ".join(archive.url for archive in self._published.archives)
        remedy = "check the network" if self.download else "set dataset.download=true"
        return (
            f"{self.dataset} is not complete in {self.folder} ({reason(error)})",
            f"expected there: {expected}{f', from {urls}' if urls else ''}; {remedy}, put it there, or point "
            "dataset.root or $PEAR_DATA to where it is",
        )


def decoded(source: Any, index: int) -> Image.Image:
    """An image of torchvision's object."""
    image = source[index][0]
    assert isinstance(image, Image.Image), type(image)
    return image


def family(name: str) -> Any:
    """torchvision's class of this name.

    Raises:
        ConfigError: there is none, or it would unpickle what nobody has checked.
    """
    known = getattr(datasets, name, None)
    if name in PICKLED:
        raise ConfigError(f"dataset.dataset = {name} is refused: torchvision unpickles a file of its folder")
    if not isinstance(known, type):
        raise ConfigError(f'torchvision has no dataset "{name}"{near(name, datasets.__all__)}')
    return known


def reason(error: Exception) -> str:
    """What torchvision says in its first line, without its advice."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". You can use ")[0]


def _labels(source: Any) -> Labels:
    """Labels of a torchvision dataset, from its list of them where it keeps one, else image by image."""
    for attribute in ("targets", "_labels", "labels", "y"):
        held = getattr(source, attribute, None)
        if isinstance(held, Sequence | np.ndarray) or hasattr(held, "tolist"):
            found = np.asarray(held)
            if found.shape == (len(source),) and found.dtype.kind in "iu":
                return found.astype(np.int64)
    pairs = getattr(source, "_samples", None)
    if pairs is not None and len(pairs) == len(source):
        return np.array([label for _, label in pairs], dtype=np.int64)
    return np.array([source[index][1] for index in range(len(source))], dtype=np.int64)


def _paths(source: Any) -> list[str] | None:
    """Where a torchvision dataset keeps its images, one file each; None for one that keeps them otherwise."""
    if hasattr(source, "categories") and hasattr(source, "y"):  # Caltech101 puts them together when asked
        folder = Path(source.root) / "101_ObjectCategories"
        return [
            str(folder / source.categories[label] / f"image_{number:04d}.jpg")
            for label, number in zip(source.y, source.index, strict=True)
        ]
    for attribute in ("_image_files", "_images", "samples", "_samples"):
        held = getattr(source, attribute, None)
        if isinstance(held, Sequence) and len(held) == len(source):
            return [str(item[0] if isinstance(item, tuple) else item) for item in held]
    return None
