"""The stage store: artifacts named by all that made them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def load_tensors(content: bytes) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, on the CPU, by name; torch is imported for it.

    Raises:
        ValueError: it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(content))
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(error) from error


def save_tensors(tensors: "Mapping[str, Tensor]") -> bytes:
    """A safetensors file of tensors on the CPU, by name."""
    from safetensors.torch import save

    return bytes(save(dict(tensors)))
