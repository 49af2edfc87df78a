"""Reading config files: one that grows without bound where its aliases are filled in is refused."""

import math
from contextlib import suppress
from pathlib import Path

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult

from pear_cli.errors import ConfigError

MOST_NODES = 100_000
"""Of a config file, aliases filled in."""


class Presets(ConfigRepository):
    """Hydra's repository of config files, but for files that aliases make too large to be read."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and source.scheme() == "file":
            _check_aliases(Path(source.path, source._normalize_file_name(config_path)))
        return super().load_config(config_path)


def _check_aliases(path: Path) -> None:
    """Raise ConfigError for a YAML file that becomes larger than `MOST_NODES` where aliases are filled in."""
    text = path.read_text("utf-8", errors="replace")
    if "*" not in text:
        return
    sizes: dict[int, float] = {}

    def size(node: yaml.Node | None) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # until it is known: a node within itself has no end
            content = node.value if isinstance(node, yaml.CollectionNode) else ()
            below = [part for item in content for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(map(size, below))
        return sizes[id(node)]

    with suppress(yaml.YAMLError):  # Hydra says what is wrong with it
        if size(yaml.compose(text)) > MOST_NODES:
            raise ConfigError(
                f"{path}: its aliases make more than {MOST_NODES} settings; write out what they stand for"
            )
