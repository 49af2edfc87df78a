"""Adapters attached to a timm model of somebody's own, in place, and removed again."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from torch import nn

from pear_cli.adapters.method import Method
from pear_cli.backbone import backbones
from pear_cli.config.settings import Backbone
from pear_cli.data.dataset import Normalization
from pear_cli.errors import ConfigError
from pear_cli.model.description import Description
from pear_cli.model.frozen import frozen_hash
from pear_cli.model.models import adapt, input_size, stated
from pear_cli.model.preprocessing import Preprocessing
from pear_cli.model.rebuild import check_bare
from pear_cli.model.record import Bare, Record, record
from pear_cli.store.canonical import canonical, to_node


def attach(
    model: nn.Module,
    method: Method,
    *,
    seed: int,
    train_head: bool,
    create_args: Mapping[str, Any],
    preprocessing: Preprocessing | None,
) -> None:
    """Freeze a model, and attach new adapters, in place; where that fails, the model stays as it was.

    Args:
        model: a timm model with a classifier and without adapters; it keeps its mode and device.
        method: what to attach, and where.
        seed: of the adapters' initial values.
        train_head: whether the classifier is trained too.
        create_args: with which timm made the model.
        preprocessing: of its images; None is timm's own evaluation transform.

    Raises:
        ConfigError: a model that cannot be adapted; see `check_bare` and `Adaptation`.
        TrainingError: a module that the model never calls.
    """
    check_bare(model)
    classes = classifier_width(model)
    images = preprocessing or Preprocessing.of_timm(model)
    if images.size != input_size(model):
        raise ConfigError(
            f"preprocessing.size = {images.size}, but the model reads images of {input_size(model)} pixels; "
            "make the one like the other"
        )
    backbone = _backbone(model, create_args, images)
    canonical(backbone.to_json(), "create_args")  # what no file can hold is told before any training
    bare = Bare.of(model, method)
    with bare.recording(model):
        backbones.call_modules(model)
        model.requires_grad_(False)
        adapted = adapt(model, method, seed)
        backbones.head(model).requires_grad_(train_head)
        try:
            adapted.check_called_by(model, images.size)
        except (RuntimeError, AssertionError) as error:
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(
                f"the model takes no images (3, {images.size}, {images.size}): {line}"
            ) from None
    adapted.record = Record(
        Description(
            backbone=backbone,
            weights=None,
            method=to_node(method, "lr"),
            classes=tuple(map(str, range(classes))),
            normalization=Normalization.backbone,
            size=images.size,
            resize=images.resize,
            crop_pct=images.crop_pct,
            interpolation=images.interpolation,
            owners=adapted.owners(),
            knowledge=None,
            mask=None,
            widths=None,
            timm=importlib.metadata.version("timm"),
            grey_range=images.grey_range,
            frozen=frozen_hash(model, method),
        ),
        named=False,
        bare=bare,
    )


def classifier_width(model: Any) -> int:
    """The number of classes of a model.

    Raises:
        ConfigError: it has no classifier of at least two.
    """
    widths = {len(p) for p in backbones.head(model).parameters()}
    if len(widths) != 1 or min(widths) < 2:
        raise ConfigError(
            "the model has no classifier of two or more classes: make it with num_classes=, or call "
            "model.reset_classifier(n) before attach"
        )
    return widths.pop()


def remove(model: nn.Module) -> None:
    """Make an adapted model what it was before, bit for bit, in place.

    Raises:
        ConfigError: a model whose weights before are not known, since it was made with its adapters.
    """
    bare = record(model).bare
    if bare is None:
        raise ConfigError(
            "this model was made with its adapters, and was never bare: make it with timm.create_model, and "
            "load the task onto it with load(…, backbone=model)"
        )
    bare.restore(model)


def _backbone(model: nn.Module, create_args: Mapping[str, Any], images: Preprocessing) -> Backbone:
    """The model as timm would make it again: by architecture, tag and arguments."""
    known = stated(model)
    name, tag = known.get("architecture") or type(model).__name__.lower(), known.get("tag")
    args = dict(create_args)
    for given in ("num_classes", "pretrained"):
        args.pop(given, None)
    return Backbone(
        name=f"{name}.{tag}" if tag else str(name),
        pretrained=bool(tag or known.get("hf_hub_id") or known.get("url")),
        weights=None,
        seed=0,
        drop_path=float(args.pop("drop_path_rate", 0.0)),
        mean=tuple(map(float, images.mean)),
        std=tuple(map(float, images.std)),
        args=args,
    )
