"""Downloads: whether they can work, and weights from a repository of the Hugging Face hub."""

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from pear_cli.errors import ConfigError

PATIENCE = 5.0
"""Seconds that a host has to answer."""


def answers(address: str) -> bool:
    """Whether a host is within reach: the hub's own client tries for half a minute before it gives up."""
    host = urlsplit(address)
    proxies = getproxies()
    proxy = proxies.get(host.scheme, proxies.get("all"))
    if proxy and not proxy_bypass(host.hostname or ""):
        host = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = host.port or (80 if host.scheme == "http" else 443)
    answered = threading.Event()

    def knock() -> None:
        with suppress(OSError):
            socket.create_connection((host.hostname or "", port), timeout=PATIENCE).close()
            answered.set()

    thread = threading.Thread(target=knock, daemon=True)  # looking up a name knows no time limit
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def from_hub(repository: str, revision: str | None, files: Sequence[str], *, bar: bool) -> Path:
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
