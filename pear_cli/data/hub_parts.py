"""What the library `datasets` makes of a name on the Hugging Face hub, or of a folder."""

import contextlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import constants

from pear_cli.data.rows import Rows
from pear_cli.errors import ConfigError, DataError, near

PATIENCE = 10.0  # seconds in which the hub must answer
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in its folder


@dataclass(frozen=True)
class HubParts:
    """The parts of a dataset as the library has them.

    Args:
        path, config, image_key, label_key, root, train_part, download: see `HuggingFace`.
    """

    path: str
    config: str | None
    image_key: str | None
    label_key: str | None
    root: str | None
    train_part: str
    download: bool

    def part(self, name: str) -> Rows:
        """The images of a part.

        Raises:
            ConfigError: no such column.
            DataError: it is neither there nor to be had, or a row has no label.
        """
        table = self._load(name)
        features = table.features
        image = self._column("image_key", self.image_key, features, _of(datasets.Image, features))
        usual = [name for name in ("label", "labels", "target", "class") if name in features][:1]
        label = self._column(
            "label_key", self.label_key, features, _of(datasets.ClassLabel, features) or usual
        )
        labels, classes = self._labels(table, name, label)
        files = [Path(file["filename"]) for file in table.cache_files]
        if Path(self.path).is_dir():
            files.append(Path(self.path).absolute())
        rows = table.cast_column(image, datasets.Image(decode=False))
        return Rows(f"{self.path} ({name})", partial(_encoded, rows, image), labels, classes, files)

    def _load(self, part: str) -> Any:
        try:
            with within_reach(self.path, self.download), contextlib.redirect_stdout(sys.stderr):
                if any((Path(self.path) / name).is_file() for name in SAVED):
                    loaded = datasets.load_from_disk(self.path)
                    found = loaded if isinstance(loaded, dict) else {self.train_part: loaded}
                    if part not in found:
                        hint = near(part, found) or ";"
                        raise ConfigError(f"{self.path} has no part {part!r}{hint} parts: {', '.join(found)}")
                    return found[part]
                return datasets.load_dataset(self.path, self.config, split=part, cache_dir=self.root)
        except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "check the name and the network" if self.download else "set dataset.download=true"
            raise DataError(f"{self.path}, part {part}, cannot be loaded: {reason}", remedy) from None

    def _column(self, key: str, named: str | None, features: Any, found: list[str]) -> str:
        """The column that is named, or else the only one that could be it."""
        if named is not None and named not in features:
            hint = near(named, features) or ";"
            raise ConfigError(f'dataset.{key} = "{named}" is no column{hint} columns: {", ".join(features)}')
        if named is None and len(found) != 1:
            what = f"{len(found)} columns could be it" if found else "no column could be it"
            raise ConfigError(
                f"dataset.{key} is not set, and {what}; columns of {self.path}: {', '.join(features)}"
            )
        return named or found[0]

    def _labels(self, table: Any, part: str, key: str) -> tuple[Any, list[str]]:
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


def _encoded(table: Any, column: str, index: int) -> bytes:
    """The encoded image of a row."""
    cell = table[index][column]
    if cell is None:
        raise OSError("there is no image")
    content = cell["bytes"]
    return bytes(content) if content is not None else Path(cell["path"]).read_bytes()


def _of(kind: type, features: Any) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, kind)]


@contextlib.contextmanager
def within_reach(path: str, download: bool) -> Iterator[None]:
    """Let the library use only what it has already, where the hub cannot be reached or must not be.

    Without a network it would try again and again.

    Args:
        path: what is to be loaded; a folder needs no hub.
        download: whether the hub may be asked.
    """
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
