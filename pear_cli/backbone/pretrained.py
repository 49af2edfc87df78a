"""timm's pretrained weights as a file: from the caches of their publishers, or downloaded and verified."""

import dataclasses
import importlib.metadata
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants

from pear_cli.backbone import answers, download, download_from_hub, published_by_timm
from pear_cli.errors import ConfigError
from pear_cli.store import cache as hashes
from pear_cli.system import progress

SAFE = {
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}
"""What a repository of the hub calls the same weights without pickle."""

STATED = re.compile(r"(?<=-)[0-9a-f]{8,}(?=\.\w+$)")
"""What torch's hub has of a file's SHA-256 in its name."""


@dataclass(frozen=True)
class Source:
    """Where the weights of a timm tag are published.

    Args:
        name: architecture and tag.
        hub: repository of the Hugging Face hub, such as `timm/vit_base_patch16_224.orig_in21k`; None where
            there is only an address.
        revision: of the repository; None is the newest.
        files: names of the weights in the repository, the preferred first.
        url: address of a file; None where there is a repository.
    """

    name: str
    hub: str | None
    revision: str | None
    files: tuple[str, ...]
    url: str | None


def file_of(name: str) -> Path:
    """The weights of a timm tag; downloaded when they are in no cache yet.

    Raises:
        ConfigError: no such weights, or neither in the cache nor within reach; the message has the command
            that fetches them.
    """
    source = _source(name)
    found = _cached(source)
    if found is not None:
        return found
    if not _within_reach(source):
        raise ConfigError(_out_of_reach(source), _remedy(source))
    try:
        return _downloaded(source)
    except ConfigError:
        raise
    except Exception as error:  # the clients have a dozen kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"the weights of {name} could not be downloaded: {reason}", _remedy(source)
        ) from None


def check(path: Path, sha256: str) -> None:
    """Raise ConfigError unless a file has the hash that its publisher put into its name.

    The hub's cache names a file by its SHA-256, and links to it; torch's hub puts its first digits
    at the end.
    """
    blob = path.resolve().name
    stated = re.fullmatch("[0-9a-f]{64}", blob) or STATED.search(blob)
    if stated is not None and not sha256.startswith(stated[0]):
        raise ConfigError(
            f"{path} is damaged: its sha256 is {sha256[:12]}… instead of {stated[0][:12]}…",
            f"remove {path.resolve()} and run again to download it anew",
        )


def _source(name: str) -> Source:
    """Where timm says that the weights are; asked once for each version, for importing it takes seconds."""
    key = f"weights of {name} in timm {importlib.metadata.version('timm')}"
    known = hashes.recall(key)
    try:
        return Source(**{**known, "files": tuple(known["files"])})
    except (TypeError, KeyError):  # not asked before
        source = _ask_timm(name)
        hashes.remember(key, dataclasses.asdict(source))
        return source


def _ask_timm(name: str) -> Source:
    repository, file, url = published_by_timm(name)
    if not repository:
        return Source(name, None, None, (), url)
    hub, _, revision = repository.partition("@")
    stated = file or "pytorch_model.bin"
    files = dict.fromkeys((SAFE.get(stated, re.sub(r"\.bin$", ".safetensors", stated)), stated))
    return Source(name, hub + (name if hub.endswith("/") else ""), revision or None, tuple(files), None)


def _cached(source: Source) -> Path | None:
    if source.url is not None:
        path = _torch_hub() / Path(urlsplit(source.url).path).name
        return path if path.is_file() else None
    for file in source.files:
        found = huggingface_hub.try_to_load_from_cache(str(source.hub), file, revision=source.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _torch_hub() -> Path:
    """Where torch.hub keeps weights, by the rule that it documents; torch itself takes seconds to import."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _downloaded(source: Source) -> Path:
    progress.say(f"downloading the weights of {source.name} from {source.url or source.hub}")
    bar = progress.console.is_terminal and not progress.is_quiet()
    if source.url is not None:
        path = _torch_hub() / Path(urlsplit(source.url).path).name
        stated = STATED.search(path.name)
        download(source.url, path, stated and stated[0], bar=bar)
        return path
    path = download_from_hub(str(source.hub), source.revision, source.files, bar=bar)
    check(path, hashes.content_hash(path))
    return path


def _within_reach(source: Source) -> bool:
    if source.url is None and constants.HF_HUB_OFFLINE:
        return False
    return answers(source.url or constants.ENDPOINT)


def _out_of_reach(source: Source) -> str:
    place = constants.HF_HUB_CACHE if source.url is None else str(_torch_hub())
    why = f"{urlsplit(source.url or constants.ENDPOINT).hostname} is out of reach"
    if source.url is None and constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    return f"the weights of {source.name} are not in {place}, and {why}"


def _remedy(source: Source) -> str:
    fetch = f"curl -LO {source.url}"
    if source.url is None:
        fetch = f"hf download {source.hub} {source.files[0]} --local-dir ."
    return (
        f"where there is a network: {fetch}; then here: backbone.pretrained=false backbone.weights=FILE; "
        "to try everything with random weights: backbone.pretrained=false"
    )
