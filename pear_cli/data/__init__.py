"""Labelled images as arrays, one family of datasets a file.

The libraries that know other people's datasets take seconds to load. The functions below load them when a
part is opened; keys and listings do without, for what was read before is remembered.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pear_cli.data.hub_parts import HubParts
    from pear_cli.data.rows import Rows
    from pear_cli.data.torchvision_parts import TorchvisionParts


def by_torchvision(dataset: str, folder: Path, names: tuple[str, ...], download: bool) -> "TorchvisionParts":
    from pear_cli.data.torchvision_parts import TorchvisionParts

    return TorchvisionParts(dataset, folder, names, download)


def by_hub(**settings: Any) -> "HubParts":
    from pear_cli.data.hub_parts import HubParts

    return HubParts(**settings)


def by_timm(name: str, root: Path | None, part: str, **settings: Any) -> "Rows":
    from pear_cli.data.timm_parts import open_part

    return open_part(name, root, part, **settings)


def hub_within_reach(path: str, download: bool) -> AbstractContextManager[None]:
    from pear_cli.data.hub_parts import within_reach

    return within_reach(path, download)
