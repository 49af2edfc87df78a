"""Pear as a library: a stored model as a plain timm model, and what it scores."""

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from pear_cli.backbone import identity
from pear_cli.config.choices import Resize
from pear_cli.config.settings import Runtime
from pear_cli.data import loading
from pear_cli.data.dataset import Dataset
from pear_cli.data.files import FileDataset
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.export import single_file, source
from pear_cli.model import merge as merging
from pear_cli.model.attach import remove
from pear_cli.model.description import Description
from pear_cli.model.load import ADAPTERS, kept_knowledge, probe_logits
from pear_cli.model.models import check_probe, stated
from pear_cli.model.rebuild import rebuild, rebuild_on
from pear_cli.store.store import Store
from pear_cli.training import engine
from pear_cli.training.batches import Batches, statistics


def load(
    path: str | Path,
    store: str | Path | Store | None = None,
    weights: str | Path | None = None,
    *,
    backbone: nn.Module | None = None,
    merge: bool = False,
) -> nn.Module:
    """Load an adapted model.

        model = pear_cli.load("outputs/store/eval/3f2a…")
        names = model.pretrained_cfg["label_names"]

    It is the timm model of its backbone with the adapters, their owners and the kept knowledge in place, on
    the CPU, in float32 and eval mode, and gives the logits that `pear eval` saw. `model.pretrained_cfg` tells
    timm how to prepare an image (`timm.data.resolve_model_data_config`): `input_size`, `mean`, `std`,
    interpolation and crop, and `label_names` in logit order.

    Args:
        path: the folder of a train, checkpoint or eval artifact (an evaluation stands for the model that it
            evaluated), a file that `pear export` wrote, or, with `store`, a key or a unique prefix of one.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        backbone: a timm model that is there already: it is adapted in place, on its device, with a new
            classifier and in eval mode, and is what is returned. Its frozen tensors must be those that the
            task was adapted on.
        merge: fold the adapters into the weights: the model is then timm's own, without adapters and hooks,
            and gives the same logits to 1e-4. A `backbone` is left as it is then.

    Raises:
        MissingArtifact: nothing there, or what was evaluated is gone.
        CorruptArtifact: altered files, or logits that differ from those of the time of saving.
        ConfigError: frozen weights that are missing or others, or updates that no weight can hold.
        MergeError: the merged model gives other logits.
    """
    model = load_described(path, store, weights, backbone)[0]
    if not merge:
        return model
    try:
        return merging.checked(model)
    finally:
        if backbone is not None:
            remove(backbone)


class Stored(NamedTuple):
    """All of a task's model but the frozen backbone, as it was read; the tensors are still to be trusted.

    Args:
        place: where it was read.
        description: of the model, checked.
        trained, kept: its tensors, and its encoded knowledge.
        probe: logits (4, K) of the fixed batch.
    """

    place: Path
    description: Description
    trained: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]
    probe: Tensor


def read(path: str | Path, store: str | Path | Store | None = None) -> Stored:
    """Read an artifact or an exported file, and check its hashes.

    Args:
        path, store: as `load` takes them.
    """
    found = source.find(path, store if isinstance(store, Store) or store is None else Store(Path(store)))
    if isinstance(found, Path):
        file = single_file.read(found)
        description = _described(file.description, found)
        return Stored(found, description, file.trained, file.knowledge, file.probe)
    description = _described(found.json(source.HOLDS), found.path)
    tensors = found.tensors(ADAPTERS)
    return Stored(found.path, description, tensors, kept_knowledge(found), probe_logits(found))


def load_described(
    path: str | Path,
    store: str | Path | Store | None = None,
    weights: str | Path | None = None,
    backbone: nn.Module | None = None,
) -> tuple[nn.Module, Description]:
    """`load`, and the description that the model was made from."""
    found, place = read(path, store), None if weights is None else str(weights)
    _, description, trained, kept, probe = found
    if backbone is not None:
        if place is not None:
            raise ConfigError("weights and backbone exclude each other: the backbone has its own weights")
        rebuild_on(backbone, description, trained, kept, probe)
        return backbone.eval(), description
    _find_weights(description, found.place, place)
    model = rebuild(description, trained, kept, place)
    check_probe(model, description, probe)
    return model, description


def evaluate(
    path: str | Path,
    dataset: Dataset,
    runtime: Runtime,
    store: str | Path | Store | None = None,
    weights: str | Path | None = None,
    named: Collection[str] = (),
) -> Mapping[str, float | int]:
    """Accuracy and loss of a stored or exported model on a dataset's test split.

    Images are resized, cropped and normalised as the model was trained; what the dataset says otherwise must
    be its default.

    Args:
        path, store, weights: as `load` takes them.
        dataset: it must have the model's classes, in the same order.
        runtime: device, precision and workers.
        named: settings such as `dataset.resize` that must agree even where they are the default.

    Returns:
        `accuracy` and `mean_per_class_accuracy` in [0, 1], `loss`, and `images`, their number.

    Raises:
        ConfigError: a dataset with other classes, or another preparation; see `load` for the others.
    """
    where = engine.device(runtime)
    model, description = load_described(path, store, weights)
    if dataset.classes() != description.classes:
        raise ConfigError(
            f"dataset {dataset.name} has other classes ({_some(dataset.classes())}) than the model "
            f"({_some(description.classes)}): its logits would mean other things"
        )
    _check_preparation(path, model, description, dataset, named)
    if isinstance(dataset, FileDataset) and description.grey_range is not None:
        if dataset.grey_range not in (None, description.grey_range):
            raise ConfigError(
                f"{path} was trained with dataset.grey_range={description.grey_range}, not "
                f"{dataset.grey_range}; leave it out"
            )
        dataset = replace(dataset, grey_range=description.grey_range)
    images = loading.load(dataset, dataset.test_split, description.preparation, runtime.workers)
    split = Batches(images, statistics(model, description.normalization), where.device)
    result = engine.evaluate(model.to(where.device), split, where)
    return {
        "accuracy": result.accuracy,
        "mean_per_class_accuracy": result.mean_per_class_accuracy,
        "loss": result.loss,
        "images": len(split),
    }


def _check_preparation(
    path: str | Path,
    model: nn.Module,
    description: Description,
    dataset: Dataset,
    named: Collection[str],
) -> None:
    """Raise ConfigError where a dataset asks for images that are prepared otherwise than in training."""
    defaults = {field.name: field.default for field in fields(dataset)}
    wanted = dataset.preparation(description.size, stated(model))
    same = {
        "normalization": dataset.normalization is description.normalization
        or dataset.normalization.statistics == statistics(model, description.normalization),
        "resize": wanted.resize is description.resize,
        "crop_pct": dataset.crop_pct in (None, description.crop_pct) or description.resize is not Resize.crop,
        "interpolation": wanted.interpolation is description.interpolation,
    }
    for name, agrees in same.items():
        asked, trained = getattr(dataset, name), getattr(description, name)
        if not agrees and (asked != defaults[name] or f"dataset.{name}" in named):
            asked, trained = (getattr(value, "value", value) for value in (asked, trained))
            raise ConfigError(f"{path} was trained with dataset.{name}={trained}, not {asked}; leave it out")


def _some(names: tuple[str, ...]) -> str:
    """The first few names, and how many there are."""
    return f"{len(names)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _described(description: Any, where: Path) -> Description:
    """A description from a stranger, checked.

    Raises:
        CorruptArtifact: it is none, or would do more than describe.
    """
    try:
        return Description.from_json(description)
    except CorruptArtifact as error:
        raise CorruptArtifact(f"{where}: {error}") from None


def _find_weights(description: Description, where: Path, weights: str | None) -> None:
    """Raise ConfigError where the file of the frozen weights is not on this machine."""
    if weights is None:
        try:
            identity.weights_file(description.backbone)
        except ConfigError as error:
            raise ConfigError(
                *error.args, f"{where} needs that file: --weights FILE, in Python weights="
            ) from None
