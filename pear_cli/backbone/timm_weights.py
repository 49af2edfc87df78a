"""Where timm says that its weights are, and those that have an address alone."""

from pathlib import Path
from typing import Any

import timm
from torch.hub import download_url_to_file

from pear_cli.errors import ConfigError, near


def published(name: str) -> tuple[str, str, str]:
    """Repository of the hub, file in it, and address of the weights of a tag; empty where there is none.

    Raises:
        ConfigError: timm has no such weights.
    """
    try:
        known: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the architecture is there, the tag is not
        known = None
    if known is None or not (known.hf_hub_id or known.url):
        raise ConfigError(f"timm has no pretrained weights for {name!r}{near(name, timm.list_pretrained())}")
    return str(known.hf_hub_id or ""), str(known.hf_hub_filename or ""), str(known.url or "")


def download(url: str, path: Path, sha256: str | None, *, bar: bool) -> None:
    """Download weights to a file, whose hash begins with `sha256` where it is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    download_url_to_file(url, str(path), sha256, progress=bar)
