"""Datasets that torchvision knows and downloads."""

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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pear_cli.data import places
from pear_cli.data.checksums import altered, stated
from pear_cli.data.condition import Holding, Problem
from pear_cli.data.fetch import ARCHIVES, fetch
from pear_cli.data.folder import Files
from pear_cli.data.images import Labels, Records
from pear_cli.data.parts import Parted
from pear_cli.data.published import PUBLISHED, Published
from pear_cli.data.splits import digest
from pear_cli.data.transforms import to_rgb
from pear_cli.errors import AlteredFile, ConfigError, DataError, near
from pear_cli.store import cache
from pear_cli.system import progress

BROKEN = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    ImportError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    http.client.HTTPException,
)
"""What torchvision and all below it raise for missing and damaged files, and for lost connections."""


PICKLED = ("LSUN", "LSUNClass")
"""Classes that unpickle a file without knowing its checksum: it could run anything."""


@dataclass(frozen=True)
class Torchvision(Parted):
    """A dataset of `torchvision.datasets`, in the layout that torchvision gives its files.

    Several may lie beside each other: of those in `published.PUBLISHED` it is known which files are theirs;
    any other one needs a root of its own.

    Args:
        dataset: class in `torchvision.datasets`, such as CIFAR10 or Flowers102. Its parts are the values of
            its argument `split`, or `train` and `test`.

    Raises:
        ConfigError: a class that torchvision lacks, a part that it lacks.
        DataError: the files are neither there nor to be had.
    """

    dataset: str = "CIFAR10"

    def holding(self) -> Holding:
        urls = [archive.url for archive in self._published.archives]
        source = os.path.commonpath(urls).replace(":/", "://", 1) if urls else f"torchvision's {self.dataset}"
        return Holding(self._places, source)

    def classes(self) -> tuple[str, ...]:
        return tuple(self._facts()["classes"])

    def fingerprint(self, split: str) -> str:
        """Of all files of the dataset but archives; torchvision is asked until it finds them complete."""
        self._facts()
        names = self._files()
        with progress.ticker(f"reading {self.name}", len(names), late=True) as ticker:
            contents = cache.content_hashes(self.folder(), names, ticker.step)
        return digest(
            family="torchvision",
            dataset=self.dataset,
            files=[(name, *content) for name, content in zip(names, contents, strict=True)],
            split=split,
            **self.division(),
        )

    def part(self, name: str) -> Records:
        source = self._source(name)
        paths, labels = _paths(source), _labels(source)
        if paths is None:
            return Source(f"{self.dataset} ({name})", source, labels)
        names = [Path(os.path.relpath(path, self.folder())).as_posix() for path in paths]
        return Files(self.folder(), sorted(zip(names, labels.tolist(), strict=True)))

    def compare(self) -> list[Problem]:
        problems = [
            Problem("checksum", "", file.place, f"{file}; {self._remedy}")
            for file in altered(self.folder(), self._checksums)
        ]
        with contextlib.suppress(DataError):  # what is not there has no number
            for part in self.part_names:
                found, published = len(self.part(part)), self._published.images.get(part)
                if published not in (found, None):
                    message = f"{found} images, where {published} are published"
                    problems.append(Problem("count", part, f"{self.dataset} ({part})", message))
        return problems

    def folder(self) -> Path:
        """The root, as torchvision calls it."""
        if self.root:
            return Path(self.root).expanduser().absolute()
        return places.home() if self.dataset in PUBLISHED else places.home() / self.name

    @cached_property
    def _published(self) -> Published:
        return PUBLISHED.get(self.dataset, Published((), ()))

    @cached_property
    def _places(self) -> tuple[Path, ...]:
        return tuple(self.folder() / name for name in self._published.files) or (self.folder(),)

    @cached_property
    def _checksums(self) -> Mapping[str, str]:
        return stated(_class(self.dataset), self._published)

    def _files(self) -> list[str]:
        """Paths of the dataset's files below the root, sorted, without archives."""
        found = []
        for place in self._places:
            prefix = place.relative_to(self.folder()).as_posix().removeprefix(".")
            within = [f"/{name}" for name, _ in places.files(place)] if place.is_dir() else [""]
            found += [f"{prefix}{name}".removeprefix("/") for name in within]
        return sorted(name for name in found if not name.endswith(ARCHIVES))

    def _facts(self) -> dict[str, Any]:
        """The classes, once torchvision has found all parts; remembered until a file changes."""
        key = f"torchvision {self.dataset} {self.folder()} {' '.join(self.part_names)}"
        known, signature = cache.recall(key), places.signature(self._places)
        if signature and known.get("signature") == signature:
            return known
        sources = [self._source(name) for name in self.part_names]
        names = next(
            (n for s in sources for n in [getattr(s, "classes", getattr(s, "categories", None))] if n), ()
        )
        largest = max(int(_labels(source).max(initial=0)) for source in sources)
        facts = {
            "signature": places.signature(self._places),
            "classes": [str(name) for name in names or range(largest + 1)],
        }
        cache.remember(key, facts)
        return facts

    def _source(self, part: str) -> Any:
        """torchvision's object for a part, downloaded where needed and allowed."""
        for name in self.part_names:  # a part that cannot be is told before anything is downloaded
            self._arguments(name)
        try:
            return self._opened(self.folder(), part, download=False)
        except ImportError as error:
            raise DataError(f"{self.dataset} needs a package: {error}") from None
        except BROKEN as error:
            self._check_unaltered()
            if not self.download:
                raise DataError(self._unavailable(error)) from None
        try:
            fetch(self.folder(), self._download, self._is_there)
            return self._opened(self.folder(), part, download=False)
        except BROKEN as error:
            raise DataError(self._unavailable(error)) from None

    def _opened(self, root: Path, part: str, download: bool) -> Any:
        """torchvision's object for a part.

        Raises:
            ConfigError: there is no such part.
        """
        known = _class(self.dataset)
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
        progress.say(f"downloading {self.dataset} from {self.holding().source} to {self.folder()}")
        for part in self.part_names:
            self._opened(aside, part, download=True)

    def _is_there(self) -> bool:
        try:
            for part in self.part_names:
                self._opened(self.folder(), part, download=False)
        except BROKEN:
            return False
        return True

    def _arguments(self, part: str) -> dict[str, object]:
        parameters = inspect.signature(_class(self.dataset)).parameters
        if "split" in parameters:
            return {"split": part}
        options = ("train", "test") if "train" in parameters else ("train",)
        if part not in options:
            remedy = "; set dataset.test_part=null dataset.test_share=0.2" if options == ("train",) else ""
            raise ConfigError(f"{self.dataset} has no part {part!r}; parts: {', '.join(options)}{remedy}")
        return {"train": part == "train"} if "train" in parameters else {}

    def _check_unaltered(self) -> None:
        """Raise AlteredFile where the dataset is not complete for a file that is not the published one."""
        own = {place: md5 for place, md5 in self._checksums.items() if not place.endswith(ARCHIVES)}
        found = list(altered(self.folder(), own))
        if found:
            more = f" and {len(found) - 1} more; pear data verify names them all" if found[1:] else ""
            path = self.folder() / found[0].place
            raise AlteredFile(f"{path} is not the published file: {found[0]}{more}\n{self._remedy}")

    @property
    def _remedy(self) -> str:
        """What to do about a file that is not the published one."""
        then = "it is downloaded again" if self.download else "put the published one there"
        return f"remove it, and {then}"

    def _unavailable(self, error: Exception) -> str:
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". You can use ")[0]
        expected = ", ".join(self._published.files) or "its unpacked archive"
        urls = " ".join(archive.url for archive in self._published.archives)
        remedy = "check the network" if self.download else "set dataset.download=true"
        return (
            f"{self.dataset} is not complete in {self.folder()} ({reason})\n"
            f"expected there: {expected}{f', from {urls}' if urls else ''}; {remedy}, put it there, or point "
            "dataset.root or $PEAR_DATA to where it is"
        )


class Source(Records):
    """The images of torchvision's object."""

    def __init__(self, title: str, source: Any, labels: Labels) -> None:
        self.title, self.source, self.labels = title, source, labels

    def name(self, index: int) -> str:
        return f"image {index} of {self.title}"

    def image(self, index: int) -> Image.Image:
        try:
            image = self.source[index][0]
            assert isinstance(image, Image.Image), type(image)
            return to_rgb(image)
        except BROKEN as error:
            raise DataError(f"{self.name(index)} cannot be read: {error}; replace the file") from None


def _class(name: str) -> Any:
    from torchvision import datasets

    known = getattr(datasets, name, None)
    if name in PICKLED:
        raise ConfigError(f"dataset.dataset = {name} is refused: torchvision unpickles a file of its folder")
    if not isinstance(known, type):
        raise ConfigError(f'torchvision has no dataset "{name}"{near(name, datasets.__all__)}')
    return known


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
        numbered = zip(source.y, source.index, strict=True)
        return [
            str(folder / source.categories[label] / f"image_{number:04d}.jpg") for label, number in numbered
        ]
    for attribute in ("_image_files", "_images", "samples", "_samples"):
        held = getattr(source, attribute, None)
        if isinstance(held, Sequence) and len(held) == len(source):
            return [str(item[0] if isinstance(item, tuple) else item) for item in held]
    return None
