"""Backbones: a timm model, frozen, with a fresh classifier."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pear_cli.backbone import batch_norm, weights
from pear_cli.backbone.identity import file_of
from pear_cli.config.choices import BatchNorm
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError, near
from pear_cli.system.environment import memory

MOST_PARAMETERS = 100_000
"""Tensors of one backbone; the deepest of timm's have some thousands."""


LARGEST_TRIED = 64
"""Images of this side are large enough for every backbone."""


def build(config: Backbone, num_classes: int) -> nn.Module:
    """The frozen backbone with a zero classifier of `num_classes`, which is trainable.

    Returns:
        A timm model in eval mode, float32, on the CPU.

    Raises:
        ConfigError: an unknown architecture, or weights that do not fit it.
    """
    path = file_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _create(config)
    _check_size(model, config)
    call_modules(model)
    if path is not None:
        weights.load(model, path)
    if config.batch_norm is BatchNorm.train:
        batch_norm.learn(model, config.name)
    renew_head(model, num_classes)
    model.pretrained_cfg = {**model.pretrained_cfg, **_input(config)}
    frozen: nn.Module = model.eval()
    return frozen


def renew_head(model: Any, num_classes: int) -> None:
    """Freeze a model, and give it a zero classifier of `num_classes`, which is trainable."""
    device = next(model.parameters()).device
    model.reset_classifier(num_classes)
    model.requires_grad_(False)
    for parameter in head(model.to(device)).parameters():
        nn.init.zeros_(parameter)
        parameter.requires_grad_(True)


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


def _check_size(model: Any, config: Backbone) -> None:
    """Try small images on a new model.

    Raises:
        ConfigError: they are smaller than its patch, or than what its convolutions need.
    """
    sides = _input(config).get("input_size", (3, LARGEST_TRIED))
    if sides[-1] >= LARGEST_TRIED:
        return
    try:
        with torch.inference_mode():
            features = model.eval().forward_features(torch.zeros(1, *sides))
        reason = "" if features.numel() else "nothing of an image remains"
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    if reason:
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        least = f"at least its patch, {patch[0]} pixels" if patch else "it takes larger images only"
        raise ConfigError(
            f"backbone.args.img_size = {sides[-1]} is too small for {config.name}: {least} ({reason})"
        )


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """Let modules be made only as long as their parameters fit into the memory of this machine.

    Args:
        name: of what is made, for the message.

    Raises:
        ConfigError: they do not; a description from a stranger may ask for any size.
    """
    count, size, most = 0, 0, memory()

    def registered(module: Any, name_of_it: str, parameter: Any) -> None:
        nonlocal count, size
        if parameter is not None:
            count, size = count + 1, size + parameter.nelement() * parameter.element_size()
        if count > MOST_PARAMETERS or size > most:
            raise ConfigError(
                f"{name} does not fit into the {most / 2**30:.0f} GiB of memory of this machine"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _create(config: Backbone) -> Any:

    if config.name.partition(".")[0] not in timm.list_models():
        names = timm.list_models()
        raise ConfigError(f"no backbone {config.name!r} in timm{near(config.name.partition('.')[0], names)}")
    try:
        with bounded(config.name):
            return timm.create_model(
                config.name, num_classes=0, drop_path_rate=config.drop_path, **config.args
            )
    except ConfigError:
        raise
    except Exception as error:  # timm has a dozen kinds for arguments that it does not expect
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


def call_modules(model: nn.Module) -> None:
    """Let attention call its `qkv`: Swin v2, BEiT and EVA read its weight past the module, and its hooks."""
    for module in model.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True  # type: ignore[assignment]


def multiplies_at_random(module: nn.Module) -> bool:
    """Whether a module is dropout or drop-path, and on: in training its output is x times what it draws."""
    if isinstance(module, DropPath):
        return bool(module.drop_prob)
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def head(model: Any) -> nn.Module:
    """The classifier, also of models that have several: DeiT's of the two tokens, VOLO's of the patches."""
    classifier = model.get_classifier()
    several = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
    if isinstance(getattr(model, "aux_head", None), nn.Module):  # renewed with the other, and not named
        several.append(model.aux_head)
    return nn.ModuleList(several) if len(several) > 1 else several[0]
