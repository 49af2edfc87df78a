"""The frozen network: a timm model, its weights, sites, channels and widths.

What downloads weights takes a moment to import, and timm seconds. The functions below import them when they
are asked; keys do without, for what was asked before is remembered.
"""

from collections.abc import Sequence
from pathlib import Path


def answers(address: str) -> bool:
    from pear_cli.backbone import downloads

    return downloads.answers(address)


def published_by_timm(name: str) -> tuple[str, str, str]:
    from pear_cli.backbone import timm_weights

    return timm_weights.published(name)


def download(url: str, path: Path, sha256: str | None, *, bar: bool) -> None:
    from pear_cli.backbone import timm_weights

    timm_weights.download(url, path, sha256, bar=bar)


def download_from_hub(repository: str, revision: str | None, files: Sequence[str], *, bar: bool) -> Path:
    from pear_cli.backbone import downloads

    return downloads.from_hub(repository, revision, files, bar=bar)
