"""Predict: labels for image files, batch by batch as they are read."""

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from pear_cli.api.bank import TaskBank
from pear_cli.config.settings import Runtime
from pear_cli.data import transforms
from pear_cli.errors import ConfigError, DataError, printable
from pear_cli.export import load
from pear_cli.export.source import find
from pear_cli.model.preprocessing import Preprocessing
from pear_cli.model.rebuild import made_again
from pear_cli.store.store import Store
from pear_cli.system.streams import formula_free
from pear_cli.training import engine
from pear_cli.training.devices import Device

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image.

    Args:
        path: of the file, as it was given.
        model: that labelled it, as it was given; null where there is one.
        labels: the likeliest first.
        probabilities: one a label; over all classes they sum to 1.
    """

    path: str
    model: str | None
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def cells(self) -> list[str]:
        """Path, model, label, probability, label, …; control characters in names are escaped."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        named = [printable(self.path), *([] if self.model is None else [printable(self.model)])]
        return [*named, *(cell for label, p in pairs for cell in (printable(label), f"{p:.4f}"))]

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
        model = {} if self.model is None else {"model": self.model}
        return json.dumps({"path": self.path, **model, "predictions": found})


@dataclass(frozen=True)
class Labeller:
    """One model, or several on one backbone, that label the same images.

    Args:
        names: of the models in the output; null for a model alone.
        classes, transforms: of each model: its label names, and how it takes an image.
        logits: (B, K) of each model, of its images (B, 3, H, W).
    """

    names: tuple[str | None, ...]
    classes: tuple[tuple[str, ...], ...]
    transforms: tuple[Preprocessing, ...]
    logits: Callable[[Sequence[Tensor]], Sequence[Tensor]]

    def decode(self, path: str) -> list[Tensor]:
        """One image as each model takes it; a pipe or a device is no image, and would never end.

        Raises:
            DataError: it cannot be read.
        """
        place = Path(path)
        if place.exists() and not place.is_file():
            raise DataError(f"image {path} is not a plain file")
        read = {t.grey_range: transforms.read(place, t.grey_range) for t in set(self.transforms)}
        try:
            taken = {t: t.of_rgb(read[t.grey_range]) for t in set(self.transforms)}
        except ValueError as error:
            raise DataError(f"image {path}: {error}") from None
        return [taken[t] for t in self.transforms]

    def label(
        self, paths: Sequence[str], images: Sequence[Sequence[Tensor]], topk: int
    ) -> Iterator[Prediction]:
        """The likeliest labels of a batch, image by image, by each model."""
        found = self.logits([torch.stack(of_one) for of_one in zip(*images, strict=True)])
        best = [logits.float().softmax(-1).cpu().topk(min(topk, logits.shape[-1])) for logits in found]
        for row, path in enumerate(paths):
            for name, classes, (values, indices) in zip(self.names, self.classes, best, strict=True):
                labels = tuple(classes[i] for i in indices[row].tolist())
                yield Prediction(path, name, labels, tuple(values[row].tolist()))


def one(source: str | Path, store: Store | None, weights: str | None, where: Device) -> Labeller:
    """The labeller of one model."""
    model, description = load.load_described(source, store, weights)
    model.to(where.device)

    def logits(images: Sequence[Tensor]) -> list[Tensor]:
        with torch.inference_mode(), where.autocast():
            return [model(x.to(where.device)) for x in images]

    return Labeller((None,), (description.classes,), (Preprocessing.described(description, model),), logits)


def several(sources: Sequence[str], store: Store | None, weights: str | None, where: Device) -> Labeller:
    """The labeller of several models on one backbone: that of the first.

    Raises:
        ConfigError: a model named twice, or one that the backbone cannot serve, see `TaskBank`.
    """
    twice = [name for name, times in Counter(sources).items() if times > 1]
    if twice:
        raise ConfigError(f"--also {twice[0]}: it is named twice")
    found = [find(name, store) for name in sources]
    places = [place if isinstance(place, Path) else place.path for place in found]
    backbone = made_again(load.read(places[0]).description, weights).to(where.device)
    bank = TaskBank(backbone, dict(zip(sources, places, strict=True)))

    def logits(images: Sequence[Tensor]) -> list[Tensor]:
        names = [name for name, x in zip(sources, images, strict=True) for _ in x]
        with where.autocast():
            rows = bank(torch.cat(list(images)), names)
        return [torch.stack(rows[at : at + len(images[0])]) for at in range(0, len(rows), len(images[0]))]

    classes, prepared = (tuple(map(of, sources)) for of in (bank.classes, bank.transform))
    return Labeller(tuple(sources), classes, prepared, logits)  # type: ignore[arg-type]


def predict(
    source: str | Path,
    files: Sequence[str],
    runtime: Runtime,
    *,
    also: Sequence[str] = (),
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
        also: further models on the same backbone; each image then has a line a model.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        topk: how many labels an image, at least 1.
        form: `tsv` and `csv` have a line an image, the latter below a header; `json` is JSON lines.

    Returns:
        The exit code: 1 if any image could not be read, else 0.

    Raises:
        ConfigError: a `topk` below 1, or models that one backbone cannot serve.
        PearError: a model that cannot be loaded, see `pear_cli.load`.
    """
    out, err = out or sys.stdout, err or sys.stderr
    if topk < 1:
        raise ConfigError(f"--topk = {topk} is out of range: at least 1")
    where = engine.device(runtime)
    labeller = (
        several([str(source), *also], store, weights, where) if also else one(source, store, weights, where)
    )
    bad = 0
    if form == "csv":
        ranks = range(1, min(topk, max(map(len, labeller.classes))) + 1)
        titles = ["path", *(["model"] if also else [])]
        print(
            _comma_separated([*titles, *(f"{n}_{i}" for i in ranks for n in ("label", "probability"))]),
            file=out,
        )
    transforms.accept_large()
    size = max(1, BATCH // len(labeller.names))
    for paths, images, failures in _batches(_expand(files, stdin or sys.stdin, err), labeller.decode, size):
        for failure in failures:
            bad += 1
            print(f"pear predict: {printable(failure)}", file=err, flush=True)
        for found in labeller.label(paths, images, topk) if paths else []:
            print(getattr(found, form)(), file=out)
        out.flush()
    return 1 if bad else 0


def _comma_separated(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


Batch = tuple[list[str], list[list[Tensor]], list[str]]


def _batches(
    paths: Iterable[str | DataError], decode: Callable[[str], list[Tensor]], size: int
) -> Iterator[Batch]:
    """Names and inputs of up to `size` images, and what went wrong on the way."""
    names: list[str] = []
    images: list[list[Tensor]] = []
    failures: list[str] = []
    for path in paths:
        try:
            if isinstance(path, DataError):
                raise path
            images.append(decode(path))
            names.append(path)
        except DataError as error:
            failures.append(str(error))
        if len(names) + len(failures) == size:
            yield names, images, failures
            names, images, failures = [], [], []
    if names or failures:
        yield names, images, failures


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
