"""Which weights a backbone has: their file and their hash, known without torch."""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from pear_cli.backbone import pretrained
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError, near
from pear_cli.store import cache

RANDOM = "random-"
"""How the identity of random weights begins; that of a file is hex digits alone."""

BUNDLED_ARCHITECTURE = "vit_tiny_patch16_224"
BUNDLED = Path(__file__).resolve().parent.parent / "weights"


def weights_file(config: Backbone) -> Path | None:
    """The file that the weights come from, or None for random ones and for timm's own.

    Raises:
        ConfigError: `backbone.weights` names no file.
    """
    if config.weights is None:
        return None
    bundled = BUNDLED / f"{config.weights}.safetensors"
    if bundled.is_file() and config.name != BUNDLED_ARCHITECTURE:
        raise ConfigError(
            f"backbone.weights = {config.weights} is a small {BUNDLED_ARCHITECTURE}, not {config.name}; for "
            f"models of timm use backbone=timm backbone.name={config.name}"
        )
    path = bundled if bundled.is_file() else Path(config.weights).expanduser()
    if path.is_dir():
        raise ConfigError(f"backbone.weights = {config.weights} is a folder; name the file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"backbone.weights = {config.weights} is a pipe, socket or device; weights are read "
            "several times, from a plain file"
        )
    if not path.is_file():
        there = sorted(p.stem for p in BUNDLED.glob("*.safetensors"))
        raise ConfigError(
            f"backbone.weights = {config.weights}: no such file{near(config.weights, there)}; "
            f"bundled weights: {', '.join(there) or 'none'}"
        )
    return path


def weights_hash(config: Backbone) -> str:
    """What identifies the frozen weights, without loading torch.

    sha256 of the file; for random weights `random-` and the hash of all that determines them.

    Raises:
        ConfigError: pretrained weights that are neither in a cache nor within reach, or damaged.
    """
    path = file_of(config)
    if path is not None:
        content = cache.content_hash(path)
        if config.pretrained:
            pretrained.check(path, content)
        return content
    made_of = (
        config.name,
        sorted(config.args.items()),
        config.seed,
        importlib.metadata.version("timm"),
    )
    return RANDOM + hashlib.sha256(repr(made_of).encode()).hexdigest()


def weights_name(identity: str) -> str:
    """What a reader calls the weights of a hash: `random`, the name of bundled ones, else the hash itself."""
    if identity.startswith(RANDOM):
        return RANDOM.rstrip("-")
    return _bundled().get(identity, identity)


@functools.cache
def _bundled() -> dict[str, str]:
    return {cache.content_hash(path): path.stem for path in BUNDLED.glob("*.safetensors")}


def is_random(config: Backbone) -> bool:
    """Whether the frozen weights are neither a file's nor timm's."""
    return not (config.weights or config.pretrained)


def file_of(config: Backbone) -> Path | None:
    """The file of the weights, which is downloaded where it has to be; None for random ones."""
    return pretrained.file_of(config.name) if config.pretrained else weights_file(config)
