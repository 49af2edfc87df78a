"""Weights from a repository of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from pear_cli.errors import ConfigError


def download(repository: str, revision: str | None, files: Sequence[str], *, bar: bool) -> Path:
    """Download the first of `files` that a repository has into the cache of the hub's client.

    Raises:
        ConfigError: it has none of them.
    """
    (enable_progress_bars if bar else disable_progress_bars)()
    for file in files:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    raise ConfigError(f"{repository} has none of {', '.join(files)}")
