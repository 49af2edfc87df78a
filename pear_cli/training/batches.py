"""Batches: a split of a dataset on the device, as a model reads it."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pear_cli.data import loading
from pear_cli.data.dataset import Normalization
from pear_cli.data.images import Images
from pear_cli.data.loading import Split


class Normaliser:
    """Turns pixels into a model's input.

    Args:
        mean, std: of the channels, in [0, 1] pixel units.
        where: the device.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], where: torch.device) -> None:
        means, stds = (torch.tensor(values, device=where).view(-1, 1, 1) for values in (mean, std))
        self.scale, self.shift = 1 / (255 * stds), -means / stds

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (…, 3, H, W) -> float32 of the same shape, contiguous."""
        # contiguous: backward through some small convolutions of channels-last images crashes on the CPU
        x = torch.empty(pixels.shape, device=pixels.device).copy_(pixels)
        return torch.addcmul(self.shift, x, self.scale, out=x)


class Batches:
    """A labelled split on the device, normalised batch by batch.

    Images that are in memory are kept on the device, where half of what is free there holds them; others go
    there a batch at a time.

    Args:
        split: the images, uint8 (N, H, W, 3).
        statistics: mean and standard deviation of the channels, in [0, 1] pixel units.
        where: the device.
    """

    def __init__(
        self, split: Split, statistics: tuple[tuple[float, ...], tuple[float, ...]], where: torch.device
    ) -> None:
        self.split = split
        fits = isinstance(split, Images) and split.pixels.nbytes <= _room(where)
        self.pixels = torch.from_numpy(split.pixels).to(where) if fits else None  # type: ignore[attr-defined]
        self.labels = torch.from_numpy(split.labels).to(where)
        self.normalise = Normaliser(*statistics, where)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), normalised float32, and labels (B,)."""
        return next(self.each([index]))

    def each(
        self, indices: Sequence[Tensor], augment: Callable[[int, Tensor], Tensor] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What `take` gives for each of these indices, in order, read ahead where they are decoded anew.

        Args:
            indices: (B,) each, on the CPU.
            augment: given the number of a batch, changes its pixels (B, 3, H, W), uint8.
        """
        device = self.labels.device
        if self.pixels is None:
            read = (torch.from_numpy(p).to(device) for p in self.split.read(i.numpy() for i in indices))
        else:
            held = self.pixels
            read = (held[index.to(device)] for index in indices)
        for number, (index, found) in enumerate(zip(indices, read, strict=True)):
            pixels = found.permute(0, 3, 1, 2)  # B, H, W, 3 -> B, 3, H, W
            if augment is not None:
                pixels = augment(number, pixels)
            yield self.normalise(pixels), self.labels[index.to(device)]

    def repeated(self, images: int) -> "Batches":
        """The same split, of which `images` are read several times; each is decoded once, if they fit."""
        again = copy.copy(self)
        again.split = loading.repeated(self.split, images)
        return again

    def in_order(self, batch_size: int, count: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive batches over the split, or over its first `count` images."""
        return self.each(torch.split(torch.arange(min(len(self), count or len(self))), batch_size))


def _room(where: torch.device) -> float:
    """Bytes that a split may take on a device; what memory holds already is there on a CPU."""
    return torch.cuda.mem_get_info(where)[0] / 2 if where.type == "cuda" else math.inf


def statistics(model: nn.Module, choice: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel mean and standard deviation of a normalisation, in [0, 1] pixel units."""
    if choice.statistics is not None:
        return choice.statistics
    known: Any = model.pretrained_cfg
    return tuple(known["mean"]), tuple(known["std"])
