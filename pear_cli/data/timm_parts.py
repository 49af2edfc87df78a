"""What timm's loaders make of a name and a folder."""

import contextlib
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timm.data.dataset_factory import create_dataset
from timm.data.readers.img_extensions import set_img_extensions
from torch.utils.data import IterableDataset

from pear_cli.data import storage
from pear_cli.data.condition import say_once
from pear_cli.data.fetch import downloading
from pear_cli.data.published import Published, published
from pear_cli.data.rows import Rows
from pear_cli.data.torchvision_parts import BROKEN, decoded, reason
from pear_cli.data.transforms import is_clutter, is_image, passed_over, suffixes
from pear_cli.errors import DataError


def open_part(
    name: str, root: Path | None, part: str, divided: bool, download: bool, args: Mapping[str, Any]
) -> Rows:
    """A part of a dataset of timm's.

    Args:
        name: as `timm.data.create_dataset` takes it.
        root: the folder; None is the cache of the Hugging Face hub.
        part: what timm calls a split.
        divided: the part must not be all of the folder.
        download: fetch the files when they are not there.
        args: further arguments of `create_dataset`.

    Raises:
        DataError: it is neither there nor to be had, or timm can read only some of it.
    """
    source, title = _source(name, root, part, download, args), f"{name} ({part})"
    reader: Any = getattr(source, "reader", None)
    if divided and root is not None and getattr(reader, "root", None) == str(root):
        raise DataError(f"{root} has no folder {part!r}; timm would take all of {root} for it")
    if name == "folder" and root is not None:
        inside = storage.files(Path(getattr(reader, "root", root)))
        if others := sorted(f for f, _ in inside if not (is_image(f) or is_clutter(f))):
            say_once(f"{title} in {root}: {passed_over(others)}")
    names = getattr(source if reader is None else reader, "class_to_idx", None) or {}
    classes = sorted(names, key=names.__getitem__) or None
    if root is None:
        files = [Path(file["filename"]) for file in reader.dataset.cache_files]
    else:
        known = published().get(type(source).__name__, Published()).files
        files = [root / place for place in known] or [root]
    if isinstance(source, IterableDataset):
        held = [(image.copy(), int(label)) for image, label in source]
        stated = getattr(reader, "num_samples", 0) or len(held)
        if stated != len(held):
            raise DataError(f"{title} has {stated} images, but {len(held)} can be read; timm has said which")
        labels = np.array([label for _, label in held], dtype=np.int64)
        return Rows(title, [image for image, _ in held].__getitem__, labels, classes, files)
    if reader is None:
        labels = np.asarray(source.targets).astype(np.int64)
        return Rows(title, partial(decoded, source), labels, classes, files)
    targets = reader.iter_targets() if hasattr(reader, "iter_targets") else [t for _, t in reader.samples]
    labels = np.array([-1 if target is None else target for target in targets], dtype=np.int64)
    file = partial(_named, reader) if hasattr(reader, "samples") else None
    return Rows(title, partial(_encoded, reader), labels, classes, files, file)


def _source(name: str, root: Path | None, part: str, download: bool, args: Mapping[str, Any]) -> Any:
    place = None if root is None else str(root)
    set_img_extensions(sorted(suffixes()))  # type: ignore[no-untyped-call]
    try:
        with downloading(), contextlib.redirect_stdout(sys.stderr):
            return create_dataset(name, place, split=part, download=download, **args)
    except (*BROKEN, AssertionError, LookupError) as error:
        where = f" in {root}" if root else ""
        remedy = "the network" if download else "what lies there, or set dataset.download=true"
        raise DataError(
            f"{name}, part {part}, cannot be opened by timm{where}: {reason(error) or 'nothing there'}",
            f"check dataset.name, dataset.root and {remedy}",
        ) from None


def _encoded(reader: Any, index: int) -> bytes:
    """A file of timm's reader; timm's own dataset would take another image for one that is damaged."""
    with reader[index][0] as file:
        return bytes(file.read())


def _named(reader: Any, index: int) -> str:
    return str(reader.filename(index, absolute=True))
