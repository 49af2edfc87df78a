"""An adapted model: made new, described as data, and made again from its description."""

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.method import Method
from pear_cli.backbone import backbones, batch_norm
from pear_cli.backbone.changes import evaluating
from pear_cli.backbone.widths import Left, Widths
from pear_cli.config.settings import Backbone
from pear_cli.data.dataset import Dataset
from pear_cli.errors import CorruptArtifact
from pear_cli.model.description import Description
from pear_cli.model.frozen import frozen_hash
from pear_cli.training.engine import derive

PROBE_TOLERANCE = 1e-4  # of the probe logits, relative to the largest of them


def create(config: Backbone, method: Method, num_classes: int, seed: int) -> nn.Module:
    """A frozen backbone with new adapters at every site; `model.adaptation` holds them.

    Args:
        config: the backbone.
        method: what to attach.
        num_classes: width of the new, zero classifier.
        seed: of the adapters' initial values.
    """
    model = backbones.build(config, num_classes)
    with backbones.bounded(f"{config.name} with its adapters"):
        adapt(model, method, seed)
    return model


def adapt(model: nn.Module, method: Method, seed: int) -> Adaptation:
    """Attach new adapters to a frozen backbone, in place, and let train what the method trains of it.

    Args:
        model: it gets the adapters as its submodule `adaptation`, on its device.
        method: what to attach.
        seed: of the adapters' initial values.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "adapters"))
        new = Adaptation(model, method)
    for name, parameter in model.named_parameters():
        if method.adapts(name):
            parameter.requires_grad_(True)
    return new.to(next(model.parameters()).device).attach(model)


def describe(
    model: nn.Module,
    *,
    backbone: Backbone,
    weights: str,
    method: dict[str, Any],
    dataset: Dataset,
    classes: tuple[str, ...],
    grey_range: int | None = None,
) -> Description:
    """The description of a dense model that `create` made.

    Args:
        weights: hash of the frozen weights.
        method: its config node.
        dataset: says how images become the model's input.
        classes, grey_range: as `Description` has them.
    """
    prepared = dataset.preparation(input_size(model), stated(model))
    return Description(
        backbone=backbone,
        weights=weights,
        method=method,
        classes=classes,
        normalization=dataset.normalization,
        size=prepared.size,
        resize=prepared.resize,
        crop_pct=prepared.crop_pct,
        interpolation=prepared.interpolation,
        owners=adaptation(model).owners(),
        knowledge=None,
        mask=None,
        widths=None,
        timm=importlib.metadata.version("timm"),
        grey_range=grey_range,
        frozen=frozen_hash(model, adaptation(model).method),
    )


def whole(description: Description) -> nn.Module:
    """The network that was described as it was before any pruning, with new adapters and a new classifier."""
    return create(description.backbone, description.built_method(), len(description.classes), seed=0)


def adaptation(model: nn.Module) -> Adaptation:
    """The adapters of a model that `create` or `rebuild` made."""
    found = model.adaptation
    assert isinstance(found, Adaptation)
    return found


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters, each once, by owner: `adapter.…`, `head.…`, `backbone.…`."""
    adapters = {f"adapter.{name}": p for name, p in adaptation(model).trained().items()}
    head = _head(model)
    known = {id(p) for p in (*adapters.values(), *head.values(), *adaptation(model).parameters())}
    rest = {f"backbone.{n}": p for n, p in model.named_parameters() if p.requires_grad and id(p) not in known}
    return adapters | {name: p for name, p in head.items() if p.requires_grad} | rest


def _head(model: nn.Module) -> dict[str, nn.Parameter]:
    return {f"head.{name}": p for name, p in backbones.head(model).named_parameters()}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a task stores: its trained parameters, the classifier, and what was gathered meanwhile."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in _state(model).items()}


def _state(model: nn.Module) -> dict[str, Tensor]:
    gathered = {f"backbone.{name}": t for name, t in batch_norm.statistics(model).items()}
    adapters = {f"adapter.{name}": t for name, t in adaptation(model).tensors().items()}
    return trained(model) | _head(model) | adapters | gathered


def load_tensors(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Set what `tensors` gave, in place.

    Raises:
        CorruptArtifact: names or shapes that are not the model's.
    """
    assign(_state(model), stored)


def assign(parameters: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Set tensors by name, in place.

    Raises:
        CorruptArtifact: names or shapes that are not the same.
    """
    if parameters.keys() != stored.keys():
        names = sorted(parameters.keys() ^ stored.keys())
        raise CorruptArtifact(f"the tensors are not those of this model: {', '.join(names[:3])} …")
    for name, parameter in parameters.items():
        if parameter.shape != stored[name].shape:
            raise CorruptArtifact(f"{name} is {tuple(stored[name].shape)}, not {tuple(parameter.shape)}")
        parameter.data.copy_(stored[name])


def left_of(model: nn.Module, widths: Widths) -> dict[str, Left]:
    """What narrowing a model would leave of its trained tensors, by stored name; of those that it changes."""
    adapters = {
        f"adapter.{home}.{name}": left
        for home, parameters in adaptation(model).left(widths).items()
        for name, left in parameters.items()
    }
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    lost = widths.left(model)
    rest = {name: own.get(id(parameter), "") for name, parameter in trained(model).items()}
    return adapters | {name: lost[path] for name, path in rest.items() if path in lost}


def narrow(model: nn.Module, widths: Widths) -> None:
    """Remove channels from a dense model, in place: from the backbone, the adapters and the classifier."""
    adapted = adaptation(model)
    of_adapters = adapted.left(widths)
    widths.narrow(model)
    for home, left in of_adapters.items():
        adapted.adapters()[home].narrow(left)


def input_size(model: nn.Module) -> int:
    """Side of the square input, in pixels."""
    embed: Any = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    config: Any = model.pretrained_cfg
    return int(size[0] if size is not None else config["input_size"][-1])


def stated(model: nn.Module) -> Mapping[str, Any]:
    """What the backbone says of its images, by timm's names."""
    known: Any = model.pretrained_cfg
    return dict(known)


@torch.inference_mode()
def probe(model: nn.Module, size: int) -> Tensor:
    """Logits (4, K) of a fixed batch, on the CPU in float32: what a faithful copy of the model repeats."""
    device = next(model.parameters()).device
    with evaluating(model):
        logits: Tensor = model.cpu()(fixed_batch(size))
    model.to(device)
    return logits


def fixed_batch(size: int) -> Tensor:
    """The images (4, 3, size, size) of which faithful copies of a model give the same logits."""
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


def check_probe(model: nn.Module, description: Description, stored: Tensor) -> None:
    """Raise CorruptArtifact if the model answers the fixed batch otherwise than when it was stored."""
    check_logits(lambda: probe(model, description.size), description, stored)


def check_logits(answer: Callable[[], Tensor], description: Description, stored: Tensor) -> None:
    """`check_probe` of whatever computes the logits (4, K) of the fixed batch."""
    try:
        now = answer()
    except RuntimeError as failure:
        raise CorruptArtifact(f"the model cannot be computed: {failure}") from None
    if now.shape != stored.shape:
        raise CorruptArtifact(f"the stored logits are {tuple(stored.shape)}, not {tuple(now.shape)}")
    error = (now - stored).abs().max().item()
    if not error <= PROBE_TOLERANCE * max(1.0, stored.abs().max().item()):
        here = importlib.metadata.version("timm")
        if here == description.timm:
            remedy = "the files are not those that were stored; make it again"
        else:
            remedy = (
                f"it was made with timm {description.timm}, this is timm {here}; "
                f"install timm=={description.timm}, or train again"
            )
        raise CorruptArtifact(
            f"the model gives other logits than when it was stored (off by {error:.2g}): {remedy}"
        )
