"""Datasets that timm opens: `timm.data.create_dataset`."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pear_cli.config.range import Range
from pear_cli.data import by_timm, hub_within_reach, storage
from pear_cli.data.condition import Holding
from pear_cli.data.rows import RowDataset, Rows
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

    args: Annotated[dict[str, Any], Range(-(2**63), 2**63 - 1)] = field(default_factory=dict)

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
        hub = self._kind in ("hfds", "hfids")
        root = None if self._kind == "hfds" and not self.root else self._root()
        divided = package is None and len(self.part_names) > 1
        with hub_within_reach(self.name.partition("/")[2], self.download) if hub else nullcontext():
            return by_timm(self.name, root, name, divided=divided, download=self.download, args=self.args)

    @property
    def _kind(self) -> str:
        return self.name.partition("/")[0].lower()

    def _root(self) -> Path:
        if self.root:
            return Path(self.root)
        here = storage.home()
        return here if self._kind == "torch" else here / self.name.strip("/").replace("/", "--")
