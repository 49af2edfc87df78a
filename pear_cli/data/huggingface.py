"""Datasets of the Hugging Face hub, and of folders that its library writes or reads."""

import contextlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pear_cli.data.condition import Holding
from pear_cli.data.fetch import PATIENCE
from pear_cli.data.rows import RowDataset, Rows
from pear_cli.errors import ConfigError, DataError, near

SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in its folder


@dataclass(frozen=True)
class HuggingFace(RowDataset):
    """A dataset that the library `datasets` loads.

    Args:
        path: a name on the hub, such as uoft-cs/cifar100, or a folder: one that `save_to_disk` wrote, or one
            with parquet or image files.
        config: which one of several that the dataset has; null where there is one.
        image_key: column of the images; null takes the only one that has some.
        label_key: column of the labels; null takes the only one of classes. Numbers stand for themselves,
            texts for their rank among all of the training part.
        root: where the library keeps what it has downloaded and prepared; null is its own cache.

    Raises:
        ConfigError: no path, a column that is not there.
        DataError: the package `datasets`, or the dataset, is neither there nor to be had.
    """

    path: str | None = None
    config: str | None = None
    image_key: str | None = None
    label_key: str | None = None

    def holding(self) -> Holding:
        local = self.path is not None and Path(self.path).is_dir()
        places = (Path(str(self.path)).absolute(),) if local else self.known_files()
        return Holding(
            places, "your own folder" if local else f"the Hugging Face hub: {self.path or 'set dataset.path'}"
        )

    def identity(self) -> dict[str, Any]:
        path = str(self.path)
        where = str(Path(path).absolute()) if Path(path).is_dir() else path
        return {
            "path": where,
            "config": self.config,
            "keys": [self.image_key, self.label_key],
            "root": self.root,
        }

    def part(self, name: str) -> Rows:
        table = self._load(name)
        image, label = self._columns(table)
        import datasets

        labels, classes = self._labels(table, name, label)
        rows = table.cast_column(image, datasets.Image(decode=False))
        files = [Path(file["filename"]) for file in table.cache_files]
        if Path(str(self.path)).is_dir():
            files.append(Path(str(self.path)).absolute())
        return Rows(f"{self.path} ({name})", _Cell(rows, image), labels, classes, files)

    def _load(self, part: str) -> Any:
        if not self.path:
            raise ConfigError("dataset.path is not set: name a dataset of the hub, or a folder")
        datasets = _library()
        try:
            with reached(self.path, self.download), contextlib.redirect_stdout(sys.stderr):
                if any((Path(self.path) / name).is_file() for name in SAVED):
                    loaded = datasets.load_from_disk(self.path)
                    found = loaded if isinstance(loaded, dict) else {self.train_part: loaded}
                    if part not in found:
                        parts = ", ".join(found)
                        hint = near(part, found) or ";"
                        raise ConfigError(f"{self.path} has no part {part!r}{hint} parts: {parts}")
                    return found[part]
                return datasets.load_dataset(self.path, self.config, split=part, cache_dir=self.root)
        except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "check the name and the network" if self.download else "set dataset.download=true"
            raise DataError(f"{self.path}, part {part}, cannot be loaded: {reason}\n{remedy}") from None

    def _columns(self, table: Any) -> tuple[str, str]:
        import datasets

        features = table.features
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        if not labels:
            labels = [name for name in ("label", "labels", "target", "class") if name in features][:1]
        chosen = []
        for key, named, found in (
            ("image_key", self.image_key, images),
            ("label_key", self.label_key, labels),
        ):
            if named is not None and named not in features:
                hint = near(named, features) or ";"
                raise ConfigError(
                    f'dataset.{key} = "{named}" is no column{hint} columns: {", ".join(features)}'
                )
            if named is None and len(found) != 1:
                what = f"{len(found)} columns could be it" if found else "no column could be it"
                raise ConfigError(
                    f"dataset.{key} is not set, and {what}; columns of {self.path}: {', '.join(features)}"
                )
            chosen.append(named or found[0])
        return chosen[0], chosen[1]

    def _labels(self, table: Any, part: str, key: str) -> tuple[Any, list[str]]:
        import datasets

        column = table.with_format(None)[key][:]
        if any(value is None for value in column):
            raise DataError(f"{self.path} ({part}): row {list(column).index(None)} has no label in {key!r}")
        kind = table.features[key]
        if isinstance(kind, datasets.ClassLabel):
            return np.array(column, dtype=np.int64), list(kind.names)
        training = column if part == self.train_part else self._load(self.train_part)[key][:]
        if all(isinstance(value, int) for value in training):
            return np.array(column, dtype=np.int64), [str(n) for n in range(max(training) + 1)]
        names = sorted(set(map(str, training)))
        index = {name: label for label, name in enumerate(names)}
        return np.array([index.get(str(value), -1) for value in column], dtype=np.int64), names


@dataclass(frozen=True)
class _Cell:
    """The encoded image of a row."""

    table: Any
    column: str

    def __call__(self, index: int) -> bytes:
        cell = self.table[index][self.column]
        if cell is None:
            raise OSError("there is no image")
        content = cell["bytes"]
        return bytes(content) if content is not None else Path(cell["path"]).read_bytes()


@contextlib.contextmanager
def reached(path: str, download: bool) -> Iterator[None]:
    """Let the library use only what it has already, where the hub cannot be reached or must not be.

    Without a network it would try again and again.

    Args:
        path: what is to be loaded; a folder needs no hub.
        download: whether the hub may be asked.
    """
    import datasets
    from huggingface_hub import constants

    kept = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not (Path(path).is_dir() or (download and _answers(constants.ENDPOINT))):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = kept


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "dataset=hf needs the package datasets, which is not installed: pip install 'pear-cli[hf]'"
        ) from None
    return datasets
