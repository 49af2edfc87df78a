"""An adapted model made again from its description: on a backbone of its own, or on one that is there."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.method import Method
from pear_cli.backbone import backbones, batch_norm, identity
from pear_cli.backbone.widths import Widths
from pear_cli.config.choices import BatchNorm, KnowledgeKind, Resize
from pear_cli.config.settings import Knowledge
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.model.description import Description
from pear_cli.model.frozen import frozen_hash
from pear_cli.model.models import (
    adapt,
    adaptation,
    check_probe,
    input_size,
    load_tensors,
    narrow,
    stated,
)
from pear_cli.model.preprocessing import Preprocessing
from pear_cli.model.record import Bare, Record, cleared, record, share_map_of
from pear_cli.pruning import knowledge

WRAPPERS = ("_orig_mod", "module")
"""Where torch.compile, and DDP, FSDP or Accelerate, keep the model that they wrap."""

OWN = "give the model that it was attached to: in Python, load(…, backbone=model)"
"""The remedy where timm cannot make a backbone again."""


def rebuild(
    description: Description,
    stored: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    weights: str | None = None,
) -> nn.Module:
    """The model that was described, with its trained tensors and its knowledge, in eval mode.

    Args:
        description: of the model.
        stored: trained tensors, as `tensors` gave them.
        kept: encoded knowledge, as `knowledge.encode` gave it.
        weights: a file with the frozen weights, where the description's own place does not hold them.

    Raises:
        ConfigError: the frozen weights are missing or others.
        CorruptArtifact: tensors that do not fit.
    """
    model = made_again(description, weights)
    with backbones.bounded(f"{description.backbone.name} with its adapters"):
        adapt(model, description.built_method(), seed=0)
    _restore(model, description, stored, kept)
    return model.eval()


def rebuild_on(
    backbone: nn.Module,
    description: Description,
    stored: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    probe: Tensor,
) -> None:
    """Make a model that is there the one that was described, in place; where that fails, it stays as it was.

    Args:
        backbone: a timm model without adapters; it gets a new classifier and keeps its mode and device.
        description, stored, kept: as for `rebuild`.
        probe: logits of the fixed batch, which it must give.

    Raises:
        ConfigError: no bare model of timm, or one with other weights or of another input size.
        CorruptArtifact: tensors that do not fit, or other logits.
    """
    method = description.built_method()
    check_bare(backbone)
    check_backbone(backbone, description, method)
    bare = Bare.of(backbone, method)
    with bare.recording(backbone):
        backbones.call_modules(backbone)
        if description.backbone.batch_norm is BatchNorm.train:
            batch_norm.learn(backbone, description.backbone.name)
            bare.remember(batch_norm.statistics(backbone))
        backbones.renew_head(backbone, len(description.classes))
        adapted = adapt(backbone, method, seed=0)
        bare.remember(cleared(adapted, description.mask))
        _restore(backbone, description, stored, kept)
        record(backbone).bare = bare
        check_probe(backbone, description, probe)


def check_bare(model: Any) -> None:
    """Refuse a model that adapters cannot be attached to.

    Raises:
        ConfigError: it is none of timm's, has adapters already, or is not float32.
    """
    names = ("get_classifier", "reset_classifier", "pretrained_cfg")
    wrapped = isinstance(model, nn.Module) and any(name in model._modules for name in WRAPPERS)
    if not isinstance(model, nn.Module) or wrapped or not all(hasattr(model, name) for name in names):
        raise ConfigError(
            f"{type(model).__name__} is no model of timm: adapters attach to what timm.create_model makes; "
            "unwrap it first where it is compiled or wrapped"
        )
    if isinstance(model._modules.get("adaptation"), Adaptation):
        raise ConfigError("the model has adapters already; pear_cli.adapted(model).remove() takes them away")
    other = {str(p.dtype) for p in model.parameters()} - {"torch.float32"}
    if other:
        raise ConfigError(
            f"the model is {min(other)}: adapters train in float32; attach them to model.float(), and run "
            "it under torch.autocast"
        )


def check_backbone(backbone: nn.Module, description: Description, method: Method, known: str = "") -> None:
    """Refuse a backbone that is not the one of a description.

    Args:
        known: the backbone's `frozen_hash`, where it is computed already.

    Raises:
        ConfigError: it names what is different.
    """
    name, size = description.backbone.name, input_size(backbone)
    if description.size != size:
        raise ConfigError(
            f"the backbone reads images of {size}×{size} pixels, and the task was adapted on {name} with "
            f"{description.size}×{description.size}; make it with img_size={description.size}"
        )
    if description.frozen is None:  # of an older file: the probe logits tell
        return
    found = known or frozen_hash(backbone, method)
    if found != description.frozen:
        architecture = stated(backbone).get("architecture") or type(backbone).__name__
        raise ConfigError(
            f"this {architecture} has other frozen tensors than the {name} that the task was adapted on "
            f"(sha256 {found[:12]}… instead of {description.frozen[:12]}…); take the same weights and the "
            "same arguments"
        )


def made_again(description: Description, weights: str | None = None) -> nn.Module:
    """The bare backbone of a description, with a zero classifier.

    Args:
        weights: a file with the frozen weights, where the description's own place does not hold them.

    Raises:
        ConfigError: the frozen weights are missing or others.
    """
    config, classes = description.backbone, len(description.classes)
    if weights is not None:
        config = dataclasses.replace(config, weights=weights, pretrained=False)
    if description.weights is not None:
        found = identity.weights_hash(config)
        if found != description.weights:
            raise ConfigError(
                f"the frozen weights of {config.name} are others than this model was adapted on "
                f"(sha256 {found[:12]}… instead of {description.weights[:12]}…); name the right file "
                "with backbone.weights, or --weights"
            )
        return backbones.build(config, classes)
    try:
        model = backbones.build(config, classes)
    except ConfigError as error:
        raise ConfigError(f"{error.args[0]}; or {OWN}", *error.args[1:]) from None
    if frozen_hash(model, description.built_method()) != description.frozen:
        raise ConfigError(
            f"the weights of {config.name} that {'the file has' if config.weights else 'timm has'} are not "
            f"those that this task was adapted on; {OWN}"
        )
    return model


def _restore(
    model: nn.Module, description: Description, stored: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> None:
    """Give a model with new adapters what was described: pruned and shared parts, knowledge and tensors."""
    if description.size != input_size(model):
        raise CorruptArtifact(f"model.size = {description.size}, but its backbone reads {input_size(model)}")
    adapted = adaptation(model)
    try:
        if description.widths:
            narrow(model, Widths.from_json(description.widths))
    except (RuntimeError, IndexError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"what is pruned does not fit this model: {error}") from None
    restore_adapters(adapted, model, description, kept)
    load_tensors(model, stored)
    adapted.record = Record(description, dict(kept), share_map=share_map_of(model, description))
    state_data_config(model, description)


def restore_adapters(
    adapted: Adaptation, model: nn.Module, description: Description, kept: Mapping[str, Tensor]
) -> None:
    """Prune and share new adapters as described, and let them have the kept knowledge.

    Raises:
        CorruptArtifact: a description that does not fit them.
    """
    if adapted.owners().keys() != description.owners.keys():
        raise CorruptArtifact("the share map names other sites than this backbone has")
    if description.mask is not None:
        try:
            description.mask.apply(model, adapted)
        except (RuntimeError, IndexError, ValueError, AttributeError) as error:
            raise CorruptArtifact(f"what is pruned does not fit this model: {error}") from None
        if adapted.owners() != description.owners:
            raise CorruptArtifact("the share map and the mask of the model contradict each other")
    else:
        _check_owners(adapted, description.owners)
        adapted.share(description.owners)
    _check_kept(description.knowledge, kept)
    if description.knowledge is not None and description.knowledge.kind is not KnowledgeKind.none:
        adapters = knowledge.decode(kept, adapted.method, adapted.sites)
        adapted.keep(adapters, description.knowledge.beta, description.knowledge.learn_beta)


def state_data_config(model: nn.Module, description: Description) -> None:
    """Say on a model how its images are prepared, the way timm reads it."""
    images = Preprocessing.described(description, model)
    settable: Any = model
    settable.pretrained_cfg = settable.default_cfg = {
        **stated(model),
        "num_classes": len(description.classes),
        "input_size": (3, description.size, description.size),
        "fixed_input_size": True,
        "mean": images.mean,
        "std": images.std,
        "interpolation": description.interpolation.value,
        "crop_pct": description.crop_pct,
        "crop_mode": "center" if description.resize is Resize.crop else "squash",
        "label_names": tuple(description.classes),
    }


def _check_owners(adapted: Adaptation, owners: Mapping[str, str | None]) -> None:
    """Raise CorruptArtifact unless owner(owner(s)) = owner(s), within compatibility groups."""
    groups = {site.name: site.group for site in adapted.sites}
    for site, owner in owners.items():
        if owner is not None and (owners.get(owner) != owner or groups[owner] != groups[site]):
            raise CorruptArtifact(f"the share map lets {owner} serve at {site}, which it cannot")


def _check_kept(config: Knowledge | None, kept: Mapping[str, Tensor]) -> None:
    """Raise CorruptArtifact unless the kept tensors have the form that `config` states."""
    for name, tensor in kept.items():
        if config is None:
            raise CorruptArtifact(f"{name} is kept of a pruned adapter, but no knowledge is described")
        if name.endswith(".scale"):
            continue
        kind, scaled = config.kind, f"{name}.scale" in kept
        if not (scaled == (tensor.dtype is torch.int8) == (kind is KnowledgeKind.int8)):
            form = f"{tensor.dtype}{' with a scale' if scaled else ''}"
            raise CorruptArtifact(f"knowledge.kind = {kind.value}, but {name} is {form}")
        if kind is KnowledgeKind.lowrank and name.endswith(".down") and len(tensor) != config.rank:
            raise CorruptArtifact(f"knowledge.rank = {config.rank}, but {name} has rank {len(tensor)}")
