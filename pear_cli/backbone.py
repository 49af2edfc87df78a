"""Backbones: a timm model, frozen, with a fresh classifier; and the hash of its weights."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pear_cli import hashes, pretrained
from pear_cli.choices import BatchNorm
from pear_cli.errors import ConfigError, near
from pear_cli.nodes import Backbone

if TYPE_CHECKING:
    from torch import nn

RANDOM = "random-"
"""How the identity of random weights begins; that of a file is hex digits alone."""

BUNDLED_ARCHITECTURE = "vit_tiny_patch16_224"
BUNDLED = Path(__file__).resolve().parent / "weights"


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
    path = _file(config)
    if path is not None:
        content = hashes.content_hash(path)
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
    return {hashes.content_hash(path): path.stem for path in BUNDLED.glob("*.safetensors")}


def is_random(config: Backbone) -> bool:
    """Whether the frozen weights are neither a file's nor timm's."""
    return not (config.weights or config.pretrained)


def _file(config: Backbone) -> Path | None:
    """The file of the weights, which is downloaded where it has to be; None for random ones."""
    return pretrained.file_of(config.name) if config.pretrained else weights_file(config)


def build(config: Backbone, num_classes: int) -> "nn.Module":
    """The frozen backbone with a zero classifier of `num_classes`, which is trainable.

    Returns:
        A timm model in eval mode, float32, on the CPU.

    Raises:
        ConfigError: an unknown architecture, or weights that do not fit it.
    """
    import torch
    from torch import nn

    from pear_cli import batch_norm

    path = _file(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _create(config)
    _call_modules(model)
    if path is not None:
        _load(model, path)
        _check_finite(model, path)
    if config.batch_norm is BatchNorm.train:
        batch_norm.learn(model, config.name)
    model.reset_classifier(num_classes)
    model.requires_grad_(False)
    for parameter in head(model).parameters():
        nn.init.zeros_(parameter)
        parameter.requires_grad_(True)
    model.pretrained_cfg = {**model.pretrained_cfg, **_input(config)}
    frozen: nn.Module = model.eval()
    return frozen


def _input(config: Backbone) -> dict[str, Any]:
    """What the config says of the images, by the names of timm's `pretrained_cfg`.

    Raises:
        ConfigError: an `img_size` of two sides.
    """
    said: dict[str, Any] = {}
    if config.mean is not None and config.std is not None:
        said |= {"mean": config.mean, "std": config.std}
    size = config.args.get("img_size")
    if size is not None:
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) > 1:
            raise ConfigError(
                f"backbone.args.img_size = {list(size)}: images become squares; give one number"
            )
        said["input_size"] = (3, *sides, *sides)
    return said


def _create(config: Backbone) -> Any:
    import timm

    if config.name.partition(".")[0] not in timm.list_models():
        names = timm.list_models()
        raise ConfigError(f"no backbone {config.name!r} in timm{near(config.name.partition('.')[0], names)}")
    try:
        return timm.create_model(config.name, num_classes=0, drop_path_rate=config.drop_path, **config.args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if "img_size" in config.args and "'img_size'" in str(error):  # a convolutional network takes any size
            args = {name: value for name, value in config.args.items() if name != "img_size"}
            return _create(dataclasses.replace(config, args=args))
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"timm cannot make {config.name} with backbone.args = {config.args}: {line}"
        ) from None


def arguments(config: Backbone, model: Any) -> dict[str, Any]:
    """The arguments with which timm makes the model: `img_size` is the images' alone where it takes any."""
    sized = hasattr(getattr(model, "patch_embed", None), "img_size")
    return {name: value for name, value in config.args.items() if name != "img_size" or sized}


def _call_modules(model: "nn.Module") -> None:
    """Let attention call its `qkv`: Swin v2, BEiT and EVA read its weight past the module, and its hooks."""
    for module in model.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True  # type: ignore[assignment]


def _load(model: Any, path: Path) -> None:
    """Load a timm checkpoint into a model without classifier; the classifier of the file is left out.

    What timm does to weights of its own is done here too: tensors of older versions get the names of today,
    and position embeddings are resampled to `img_size` and `patch_size`.
    """
    import timm.models

    if path.suffix.lower() == ".npz":
        _check_blocks(model, path)
    renew = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if renew is not None and "adapt_layer_scale" in inspect.signature(renew).parameters:
        renew = functools.partial(renew, adapt_layer_scale=True)  # DeiT III calls them gamma_1, gamma_2
    try:
        with _quietly():
            keys = timm.models.load_checkpoint(
                model, str(path), use_ema=False, strict=False, filter_fn=renew, weights_only=True
            )
    except Exception as error:  # whatever is in the file, the message is the same
        if "Unsupported operand" in f"{error} {error.__cause__}":
            raise ConfigError(
                f"backbone.weights = {path} is of a pickle protocol that torch cannot read unless it runs "
                "what is in the file; save the tensors again, as safetensors or by torch.save's own protocol"
            ) from None
        if not _readable(path):
            raise ConfigError(
                f"backbone.weights = {path} is not a file of weights: safetensors, a state_dict of torch "
                "(a pickled model is refused: it could run anything), or .npz of a ViT in JAX"
            ) from None
        line = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__).strip()
        raise ConfigError(f"backbone.weights = {path} does not load into this backbone: {line}") from None
    if keys is None:  # an .npz of JAX, where timm itself asks for every tensor
        return
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


def _check_finite(model: "nn.Module", path: Path) -> None:
    """Raise ConfigError for weights that would make every logit nan."""
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"backbone.weights = {path} is damaged: {name} has values that are not finite")


def _check_blocks(model: Any, path: Path) -> None:
    """Raise ConfigError where a file of JAX has another number of blocks: timm would pass over the rest."""
    import numpy as np

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
    import numpy as np
    import timm.models

    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return bool(archive.files)
        with _quietly():
            return bool(timm.models.load_state_dict(str(path), use_ema=False, weights_only=True))
    except Exception:
        return False


def head(model: Any) -> "nn.Module":
    """The classifier, also of models that have several."""
    from torch import nn

    classifier = model.get_classifier()
    return nn.ModuleList(classifier) if isinstance(classifier, tuple | list) else classifier
