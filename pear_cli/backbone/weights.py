"""Files of a backbone's weights: read without running what is in them, and checked against the model."""

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import timm.models
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pear_cli.errors import ConfigError
from pear_cli.system import progress

GROUPS = ("model_state_dict", "state_dict", "teacher", "model", "student")
"""What training scripts call the weights in a checkpoint."""
PREFIXES = ("module", "_orig_mod", "teacher", "model", "backbone", "encoder")
"""What the names of their tensors begin with; a teacher's come before those of its student."""


def load(model: Any, path: Path) -> None:
    """Load a timm checkpoint into a model without classifier; the classifier of the file is left out.

    What timm does to weights of its own is done here too: tensors of older versions get the names of today,
    and position embeddings are resampled to `img_size` and `patch_size`.

    Raises:
        ConfigError: it is no file of weights, of another model, or has values that are not finite.
    """
    _refuse_exported(path)
    if path.suffix.lower() == ".npz":
        _check_blocks(model, path)
    renew = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if renew is not None and "adapt_layer_scale" in inspect.signature(renew).parameters:
        renew = functools.partial(renew, adapt_layer_scale=True)  # DeiT III calls them gamma_1, gamma_2

    def prepared(state: Any, into: Any) -> Any:
        bare = _bare(state, into, path)
        return bare if renew is None else renew(bare, into)

    try:
        with _quietly():
            keys = timm.models.load_checkpoint(
                model, str(path), use_ema=False, strict=False, filter_fn=prepared, weights_only=True
            )
    except ConfigError:
        raise
    except Exception as error:  # whatever is in the file, the message is the same
        if "Unsupported operand" in f"{error} {error.__cause__}":
            raise ConfigError(
                f"backbone.weights = {path} is of a pickle protocol that torch reads only by running what "
                "is in it (a pickled model is refused); save its tensors as safetensors, or with torch.save"
            ) from None
        if not _readable(path):
            raise ConfigError(
                f"backbone.weights = {path} is not a file of weights: safetensors, a state_dict of torch "
                "(a pickled model is refused: it could run anything), or .npz of a ViT in JAX"
            ) from None
        line = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__).strip()
        raise ConfigError(f"backbone.weights = {path} does not load into this backbone: {line}") from None
    if keys is not None:  # None is an .npz of JAX, where timm itself asks for every tensor
        _check_complete(keys, model, path)
    _check_finite(model, path)


def _bare(state: Any, model: Any, path: Path) -> Any:
    """The tensors of a checkpoint by the names that a model has: without the groups and prefixes around them.

    Training scripts save `{"model_state_dict": …}` or `{"teacher": …}`, and names like `module.model.norm`. A
    prefix may be any below which all of the model is found; where there are several, the first of `PREFIXES`.

    Raises:
        ConfigError: the model is found below several prefixes that say nothing.
    """
    taken = ""
    while group := next((name for name in GROUPS if isinstance(state.get(name), Mapping)), None):
        state, taken = state[group], f"{taken}{group} → "
    own = list(model.state_dict())
    while prefix := _complete_below(state, own, path) or _known(state, own):
        state = {name[len(prefix) :]: held for name, held in state.items() if name.startswith(prefix)}
        taken += prefix
    if taken:
        _say(f"{path}: the weights are those of {taken.removesuffix(' → ')}")
    return state


def _complete_below(state: Mapping[str, Any], own: list[str], path: Path) -> str:
    """The prefix below which all of a model is found, or nothing."""
    if not own or set(own) <= state.keys():
        return ""
    ends = (name[: -len(own[0])] for name in state if name.endswith(f".{own[0]}"))
    whole = [prefix for prefix in ends if all(prefix + name in state for name in own)]
    if len(whole) < 2:
        return "".join(whole)
    known = [prefix for name in PREFIXES for prefix in whole if prefix.startswith(f"{name}.")]
    if not known:
        raise ConfigError(
            f"backbone.weights = {path} has weights below {' and below '.join(whole)}; save one of the two"
        )
    return known[0]


def _known(state: Mapping[str, Any], own: list[str]) -> str:
    """The first usual prefix that names begin with, for weights whose names timm has changed since."""
    found = next((f"{name}." for name in PREFIXES if _begin(state, f"{name}.")), "")
    return "" if _begin(own, found) else found


@functools.cache
def _say(text: str) -> None:
    """Say something once, however often a file is loaded."""
    progress.say(text)


def _begin(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _refuse_exported(path: Path) -> None:
    """Raise ConfigError for adapters that pear exported; merged models are plain weights."""
    with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        if "pear_schema" in (file.metadata() or {}):
            raise ConfigError(
                f"backbone.weights = {path} is a model that pear exported: its adapters, without the frozen "
                "backbone. Name the backbone's own file, or write both in one with pear export KEY --merge"
            )


def _check_complete(keys: Any, model: Any, path: Path) -> None:
    """Raise ConfigError where the file lacks a tensor, or has one too many."""
    unknown = [name for name in keys.unexpected_keys if not name.startswith(("head", "fc.", "classifier"))]
    for names, what in ((keys.missing_keys, "it lacks"), (unknown, "it has the unknown")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ConfigError(
                f"backbone.weights = {path} does not fit {type(model).__name__}: {what} "
                f"{', '.join(names[:3])}{more}; check backbone.name and backbone.args"
            )


@contextmanager
def _quietly() -> Iterator[None]:
    """Let torch read a checkpoint without remarks, such as one on its pickle protocol; errors stay errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_finite(model: nn.Module, path: Path) -> None:
    """Raise ConfigError for weights that would make every logit nan."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"backbone.weights = {path} is damaged: {name} has values that are not finite")


def _check_blocks(model: Any, path: Path) -> None:
    """Raise ConfigError where a file of JAX has another number of blocks: timm would pass over the rest."""
    with suppress(OSError, ValueError), np.load(path, allow_pickle=False) as archive:
        found = {block[1] for name in archive.files if (block := re.search(r"encoderblock_(\d+)/", name))}
        blocks = len(getattr(model, "blocks", found))
        if found and len(found) != blocks:
            raise ConfigError(
                f"backbone.weights = {path} does not fit {type(model).__name__}: it has {len(found)} blocks, "
                f"not {blocks}; check backbone.name and backbone.args"
            )


def _readable(path: Path) -> bool:
    """Whether there are named tensors in a file, for whatever model."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return bool(archive.files)
        with _quietly():
            return bool(timm.models.load_state_dict(str(path), use_ema=False, weights_only=True))
    except Exception:
        return False
