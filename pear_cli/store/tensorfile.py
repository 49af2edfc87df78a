"""The bytes of a safetensors file, with its header in an order of our own: equal content, equal bytes."""

import json
from collections.abc import Mapping
from typing import Any

from pear_cli.store.canonical import parse

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself reads no longer ones."""


def split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and tensor bytes of a file.

    Raises:
        ValueError: it is no safetensors file.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, LARGEST_HEADER):
        raise ValueError("it is not a safetensors file")
    try:
        header = parse(content[8 : 8 + length])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ValueError("it is not a safetensors file")
    return header, memoryview(content)[8 + length :]


def join(header: Mapping[str, Any], data: memoryview, texts: Mapping[str, str]) -> bytes:
    """A file with `texts` in its header, by name; safetensors itself would write them in a random order.

    Args:
        header: where each tensor stands in `data`, as `split` gave it.
        data: the tensor bytes.
        texts: the header's `__metadata__`.
    """
    header = {"__metadata__": dict(sorted(texts.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, data])
