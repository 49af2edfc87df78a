"""Backbones: a timm model, frozen, with a fresh classifier; and the hash of its weights."""

import dataclasses
import hashlib
import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pear_cli.errors import ConfigError, near
from pear_cli.nodes import Backbone

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_FILE = "model.safetensors"
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
    if not path.is_file():
        there = sorted(p.stem for p in BUNDLED.glob("*.safetensors"))
        raise ConfigError(
            f"backbone.weights = {config.weights}: no such file{near(config.weights, there)}; "
            f"bundled weights: {', '.join(there) or 'none'}"
        )
    return path


def weights_hash(config: Backbone) -> str:
    """What identifies the frozen weights, without loading torch or timm.

    sha256 of the file; for random weights, the hash of all that determines them.

    Raises:
        ConfigError: pretrained weights that are not in the local cache.
    """
    path = weights_file(config)
    if path is None and config.pretrained:
        path = _pretrained_file(config)
    if path is not None:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    made_of = (
        "random",
        config.name,
        sorted(config.args.items()),
        config.seed,
        importlib.metadata.version("timm"),
    )
    return hashlib.sha256(repr(made_of).encode()).hexdigest()


def _pretrained_file(config: Backbone) -> Path:
    """timm's weights in the hub's cache; downloaded when they are not there yet.

    Raises:
        ConfigError: no such weights, or neither in the cache nor within reach.
    """
    import timm
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        known = timm.get_pretrained_cfg(config.name)
    except RuntimeError:  # the architecture is there, the tag is not
        known = None
    if known is None or not known.hf_hub_id:
        tags = timm.list_pretrained()
        raise ConfigError(f"timm has no pretrained weights for {config.name!r}{near(config.name, tags)}")
    hub = str(known.hf_hub_id) + (config.name if str(known.hf_hub_id).endswith("/") else "")
    cached = try_to_load_from_cache(hub, WEIGHTS_FILE)
    if isinstance(cached, str):
        return Path(cached)
    if _hub_answers():
        return Path(hf_hub_download(hub, WEIGHTS_FILE))
    raise ConfigError(
        f"backbone.pretrained: the weights of {config.name} are not in the local cache, and the hub is out "
        f"of reach.\nOn a machine with network run: hf download {hub} {WEIGHTS_FILE}\n"
        "then copy the file here and set backbone.pretrained=false backbone.weights=<file>"
    )


def _hub_answers() -> bool:
    """Whether a download can work at all: the hub's own client tries for half a minute before it gives up."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
    except OSError:
        return False
    return not constants.HF_HUB_OFFLINE


def build(config: Backbone, num_classes: int) -> "nn.Module":
    """The frozen backbone with a zero classifier of `num_classes`, which is trainable.

    Returns:
        A timm model in eval mode, float32, on the CPU.

    Raises:
        ConfigError: an unknown architecture, or weights that do not fit it.
    """
    import torch
    from torch import nn

    path = weights_file(config) or (_pretrained_file(config) if config.pretrained else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _create(config)
    _call_modules(model)
    if path is not None:
        _load(model, path)
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

    renew = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        keys = timm.models.load_checkpoint(model, str(path), use_ema=False, strict=False, filter_fn=renew)
    except Exception as error:  # whatever is in the file, the message is the same
        if not _readable(path):
            raise ConfigError(
                f"backbone.weights = {path} is not a safetensors or torch weights file "
                "(a state_dict, not a pickled model)"
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


def _readable(path: Path) -> bool:
    """Whether there are named tensors in a file, for whatever model."""
    import timm.models

    try:
        return bool(timm.models.load_state_dict(str(path), use_ema=False))
    except Exception:
        return False


def head(model: Any) -> "nn.Module":
    """The classifier, also of models that have several."""
    from torch import nn

    classifier = model.get_classifier()
    return nn.ModuleList(classifier) if isinstance(classifier, tuple | list) else classifier
