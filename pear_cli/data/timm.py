"""Datasets that timm opens: `timm.data.create_dataset`."""

import contextlib
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pear_cli.data import places
from pear_cli.data.condition import Holding
from pear_cli.data.fetch import downloading
from pear_cli.data.huggingface import reached
from pear_cli.data.published import PUBLISHED
from pear_cli.data.rows import RowDataset, Rows
from pear_cli.data.torchvision import BROKEN
from pear_cli.errors import ConfigError, DataError

PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}
"""What timm needs for the names that begin so."""


@dataclass(frozen=True)
class Timm(RowDataset):
    """A dataset by timm's name for it: torch/cifar100, hfds/NAME, wds/, tfds/NAME, or folder.

    Names that begin with wds, tfds or hfids are read in order and held in memory, decoded: for them only.

    Args:
        name: as `timm.data.create_dataset` takes it; results call the dataset so.
        train_part, val_part, test_part: what timm calls splits; for `folder` and `torch/` names such as train
            and validation, for `wds` also shards such as train-{0000..0009}.tar.
        args: further arguments of `timm.data.create_dataset`, such as input_key, target_key, class_map.

    Raises:
        ConfigError: arguments that are another setting.
        DataError: the package that timm needs, or the dataset, is neither there nor to be had.
    """

    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = {"name", "root", "split", "download", "is_training", "seed", "trust_remote_code"}
        for refused in sorted(settings & set(self.args)):
            raise ConfigError(
                f"dataset.args.{refused} is refused: it has a setting of its own, or is no choice"
            )
        names = self.args.get("class_map")
        if isinstance(names, str) and not names.endswith(".txt"):
            raise ConfigError(f"dataset.args.class_map = {names} is refused: only a .txt file is no pickle")

    def holding(self) -> Holding:
        return Holding(self.known_files(), f"timm: {self.name}")

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "root": str(self._root()), "args": self.args}

    def part(self, name: str) -> Rows:
        package = PACKAGES.get(self._kind)
        if package and find_spec(package) is None:
            raise DataError(
                f"{self.name} needs the package {package}, which is not installed: pip install {package}"
            )
        from torch.utils.data import IterableDataset

        source, title = self._open(name), f"{self.name} ({name})"
        reader = getattr(source, "reader", None)
        names = getattr(source if reader is None else reader, "class_to_idx", None) or {}
        classes = sorted(names, key=names.__getitem__) or None
        if isinstance(source, IterableDataset):
            held = [(image.copy(), int(label)) for image, label in source]
            stated = getattr(reader, "num_samples", 0) or len(held)
            if stated != len(held):
                raise DataError(
                    f"{title} has {stated} images, but {len(held)} can be read; timm has said which"
                )
            labels = np.array([label for _, label in held], dtype=np.int64)
            return Rows(title, _Held([image for image, _ in held]), labels, classes, [self._root()])
        if reader is None:
            labels = np.asarray(source.targets).astype(np.int64)
            return Rows(title, _Decoded(source), labels, classes, self._files(source))
        targets = reader.iter_targets() if hasattr(reader, "iter_targets") else [t for _, t in reader.samples]
        labels = np.array([-1 if target is None else target for target in targets], dtype=np.int64)
        return Rows(title, _Encoded(reader), labels, classes, self._files(reader))

    @property
    def _kind(self) -> str:
        return self.name.partition("/")[0].lower()

    def _root(self) -> Path:
        if self.root:
            return Path(self.root)
        here = places.home()
        return here if self._kind == "torch" else here / self.name.strip("/").replace("/", "--")

    def _open(self, part: str) -> Any:
        from timm.data.dataset_factory import create_dataset

        root = None if self._kind == "hfds" and not self.root else str(self._root())
        try:
            with self._patiently(), contextlib.redirect_stdout(sys.stderr):
                source = create_dataset(self.name, root, split=part, download=self.download, **self.args)
        except (*BROKEN, AssertionError, LookupError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". You can use ")[0]
            where = f" in {root}" if root else ""
            remedy = "the network" if self.download else "what lies there, or set dataset.download=true"
            raise DataError(
                f"{self.name}, part {part}, cannot be opened by timm{where}: {reason or 'nothing there'}\n"
                f"check dataset.name, dataset.root and {remedy}"
            ) from None
        whole = root is not None and getattr(getattr(source, "reader", None), "root", None) == root
        if whole and self._kind not in PACKAGES and len(self.part_names) > 1:
            raise DataError(f"{root} has no folder {part!r}; timm would take all of {root} for it")
        return source

    def _patiently(self) -> contextlib.AbstractContextManager[None]:
        if self._kind in ("hfds", "hfids"):
            return reached(self.name.partition("/")[2], self.download)
        return downloading()

    def _files(self, source: Any) -> list[Path]:
        if self._kind == "hfds":
            return [Path(file["filename"]) for file in source.dataset.cache_files]
        known = PUBLISHED.get(type(source).__name__)
        return [self._root() / name for name in known.files] if known else [self._root()]


@dataclass(frozen=True)
class _Held:
    images: list[Image.Image]

    def __call__(self, index: int) -> Image.Image:
        return self.images[index]


@dataclass(frozen=True)
class _Decoded:
    """The images of torchvision's object."""

    source: Any

    def __call__(self, index: int) -> Image.Image:
        image = self.source[index][0]
        assert isinstance(image, Image.Image), type(image)
        return image


@dataclass(frozen=True)
class _Encoded:
    """The files of timm's reader; timm's own dataset would take another image for one that is damaged."""

    reader: Any

    def __call__(self, index: int) -> bytes:
        with self.reader[index][0] as file:
            return bytes(file.read())
