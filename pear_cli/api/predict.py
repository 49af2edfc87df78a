"""Predict: labels for image files, batch by batch as they are read."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn

from pear_cli.config.settings import Runtime
from pear_cli.data import transforms
from pear_cli.data.images import Images, Pixels
from pear_cli.data.preparation import Preparation
from pear_cli.errors import ConfigError, DataError, printable
from pear_cli.export import load as api
from pear_cli.model.description import Description
from pear_cli.store.store import Store
from pear_cli.system.streams import formula_free
from pear_cli.training import engine
from pear_cli.training.batches import Batches, statistics
from pear_cli.training.devices import Device

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image.

    Args:
        path: of the file, as it was given.
        labels: the likeliest first.
        probabilities: one a label; over all classes they sum to 1.
    """

    path: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def cells(self) -> list[str]:
        """Path, label, probability, label, …; control characters in names are escaped."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        return [
            printable(self.path),
            *(cell for label, p in pairs for cell in (printable(label), f"{p:.4f}")),
        ]

    def tsv(self) -> str:
        """The cells with tabs between them."""
        return "\t".join(self.cells())

    def csv(self) -> str:
        """The cells as a spreadsheet reads them."""
        return _comma_separated(map(formula_free, self.cells()))

    def json(self) -> str:
        """One line of JSON; names stand in it unchanged."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        found = [{"label": label, "probability": round(p, 6)} for label, p in pairs]
        return json.dumps({"path": self.path, "predictions": found})


def predict(
    source: str | Path,
    files: Sequence[str],
    runtime: Runtime,
    *,
    store: Store | None = None,
    weights: str | None = None,
    topk: int = 5,
    form: str = "tsv",
    out: TextIO | None = None,
    err: TextIO | None = None,
    stdin: TextIO | None = None,
) -> int:
    """Write the likeliest labels of every image to `out` as they are found.

    Images are resized, cropped and normalised as in training. An image that cannot be read gives a line on
    `err`, and the others go on.

    Args:
        source: an artifact's folder, an exported file, or a key of `store`.
        files: image files, folders (searched through, in sorted order), or `-` for a list on `stdin`.
        runtime: device, precision and threads.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        topk: how many labels an image, at least 1.
        form: `tsv` and `csv` have a line an image, the latter below a header; `json` is JSON lines.

    Returns:
        The exit code: 1 if any image could not be read, else 0.

    Raises:
        ConfigError: a `topk` below 1.
        PearError: a model that cannot be loaded, see `pear_cli.load`.
    """
    out, err = out or sys.stdout, err or sys.stderr
    if topk < 1:
        raise ConfigError(f"--topk = {topk} is out of range: at least 1")
    where = engine.device(runtime)
    model, description = api.load_described(source, store, weights)
    model.to(where.device)
    bad = 0
    if form == "csv":
        ranks = range(1, min(topk, len(description.classes)) + 1)
        print(
            _comma_separated(["path", *(f"{n}_{i}" for i in ranks for n in ("label", "probability"))]),
            file=out,
        )
    transforms.accept_large()
    for paths, pixels, failures in _batches(
        _expand(files, stdin or sys.stdin, err), description.preparation, description.grey_range
    ):
        for failure in failures:
            bad += 1
            print(f"pear predict: {printable(failure)}", file=err, flush=True)
        for found in label(model, description, paths, pixels, where, topk) if paths else []:
            print(getattr(found, form)(), file=out)
        out.flush()
    return 1 if bad else 0


def _comma_separated(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def label(
    model: nn.Module,
    description: Description,
    paths: Sequence[str],
    pixels: Sequence[Pixels],
    where: Device,
    topk: int,
) -> Iterator[Prediction]:
    """The likeliest labels of one batch of images, each of size, size, 3."""
    images = Images(np.stack(pixels), np.zeros(len(pixels), np.int64), description.classes)
    batch = Batches(images, statistics(model, description.normalization), where.device)
    with torch.inference_mode(), where.autocast():
        logits = model(batch.take(torch.arange(len(batch)))[0])
    best = logits.float().softmax(-1).cpu().topk(min(topk, logits.shape[-1]))
    for path, values, indices in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
        yield Prediction(path, tuple(description.classes[i] for i in indices), tuple(values))


Batch = tuple[list[str], list[Pixels], list[str]]


def _batches(
    paths: Iterable[str | DataError], preparation: Preparation, grey_range: int | None = None
) -> Iterator[Batch]:
    """Names and pixels of up to `BATCH` images, and what went wrong on the way."""
    names: list[str] = []
    pixels: list[Pixels] = []
    failures: list[str] = []
    for path in paths:
        try:
            if isinstance(path, DataError):
                raise path
            pixels.append(_decode(path, preparation, grey_range))
            names.append(path)
        except DataError as error:
            failures.append(str(error))
        if len(names) + len(failures) == BATCH:
            yield names, pixels, failures
            names, pixels, failures = [], [], []
    if names or failures:
        yield names, pixels, failures


def _decode(path: str, preparation: Preparation, grey_range: int | None) -> Pixels:
    """One image; a pipe or a device is no image, and would never end.

    Raises:
        DataError: it cannot be read.
    """
    place = Path(path)
    if place.exists() and not place.is_file():
        raise DataError(f"image {path} is not a plain file")
    try:
        return preparation(transforms.read(place, grey_range))
    except ValueError as error:
        raise DataError(f"image {path}: {error}") from None


def _expand(files: Sequence[str], stdin: TextIO, err: TextIO = sys.stderr) -> Iterator[str | DataError]:
    """The image files that are meant, one by one; an error where a folder has none."""
    for name in files:
        if name == "-":
            yield from (line.rstrip("\r\n") for line in stdin if line.strip())
        elif os.path.isdir(name):
            inside = list(_inside(name))
            images = [file for file in inside if transforms.is_image(file)]
            yield from images
            if not images:
                yield DataError(f"folder {name} has no images that Pillow reads, by their suffixes")
            if others := [os.path.relpath(file, name) for file in inside if not transforms.is_image(file)]:
                told = printable(f"folder {name}: {transforms.passed_over(others)}")
                print(f"pear predict: {told}", file=err, flush=True)
        else:
            yield name


def _inside(folder: str) -> Iterator[str]:
    """Files in a folder and below it, sorted by folder, then name, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names) if not transforms.is_clutter(name))
