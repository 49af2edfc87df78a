"""Datasets of the Hugging Face hub, and of folders that its library writes or reads."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pear_cli.data import by_hub
from pear_cli.data.condition import Holding
from pear_cli.data.rows import RowDataset, Rows
from pear_cli.errors import ConfigError, DataError


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
        if self._folder:
            return Holding((self._folder,), "your own folder")
        return Holding(self.known_files(), f"the Hugging Face hub: {self.path or 'set dataset.path'}")

    def identity(self) -> dict[str, Any]:
        return {
            "path": str(self._folder or self.path),
            "config": self.config,
            "keys": [self.image_key, self.label_key],
            "root": self.root,
        }

    def part(self, name: str) -> Rows:
        if not self.path:
            raise ConfigError("dataset.path is not set: name a dataset of the hub, or a folder")
        if find_spec("datasets") is None:
            raise DataError(
                "dataset=hf needs the package datasets, which is not installed: pip install 'pear-cli[hf]'"
            )
        return by_hub(
            path=self.path,
            config=self.config,
            image_key=self.image_key,
            label_key=self.label_key,
            root=self.root,
            train_part=self.train_part,
            download=self.download,
        ).part(name)

    @property
    def _folder(self) -> Path | None:
        """The folder that `path` names, if it names one."""
        return Path(self.path).absolute() if self.path and Path(self.path).is_dir() else None
